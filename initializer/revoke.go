package initializer

import (
	"cmp"
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// EnvironmentOf returns the environment of the Zoho data center with the given API domain,
// such as "https://www.zohoapis.eu". It returns false if the domain does not belong to a Zoho
// data center.
func EnvironmentOf(apiDomain string) (Environment, bool) {
	accounts, ok := accountsFor(apiDomain)
	if !ok {
		return Environment{}, false
	}
	e, err := Environment{AccountsURL: accounts, APIURL: apiDomain}.complete()
	return e, err == nil
}

// RevokeToken revokes the refresh token of t at the authorization server of c, or the access token
// if t has no refresh token. RevokeToken requests no new token and does not use the store: c.Store
// may be nil. A token that the server does not know counts as revoked. If t has no token, the error
// is nil. If the Issuer or Resource of t differs from the value in c, RevokeToken sends no request,
// and the error matches tokenstore.ErrIDMismatch.
func RevokeToken(ctx context.Context, c Config, t tokenstore.Token) error {
	c.Token = t
	c.Token.Issuer, c.Token.Resource = "", "" // belongs compares t with c
	conf, err := c.completeServer()
	if err != nil {
		return err
	}
	client := &Client{conf: &conf, server: conf.server()}
	if err := client.belongs(t); err != nil {
		return client.fail("revoke", err)
	}
	return client.fail("revoke", client.revoke(ctx, client.configured(t)))
}

func (c *Client) revoke(ctx context.Context, t tokenstore.Token) error {
	token := cmp.Or(t.RefreshToken, t.AccessToken)
	if token == "" {
		return nil
	}
	return c.server.revoke(ctx, t, token)
}

// Revoke revokes the refresh token, or the access token if there is no refresh token, at the
// authorization server, and then deletes the record. If the record does not exist, or the token in
// memory could not be stored, Revoke revokes the token in memory. If Revoke fails, it can be called
// again. After Revoke succeeds, calls that need a token fail with ErrReauthRequired. After Close or
// a successful Revoke, Revoke fails with ErrClosed.
func (c *Client) Revoke(ctx context.Context) error {
	s := c.current.Load()
	if s == nil {
		return c.fail("revoke", ErrClosed)
	}
	t := s.token
	// Another process may have obtained a new refresh token.
	found, err := c.conf.Store.FindTokenByID(ctx, t.ID)
	switch {
	case err == nil && c.belongs(found) != nil:
		return c.fail("revoke", c.belongs(found))
	case err == nil && s.unsaved == nil:
		t = found
	case err != nil && !errors.Is(err, tokenstore.ErrNotFound):
		return c.fail("revoke", err)
	}
	if err := c.revoke(ctx, c.configured(t)); err != nil {
		return c.fail("revoke", err)
	}
	if err := c.conf.Store.DeleteToken(ctx, cmp.Or(found.ID, t.ID)); err != nil {
		return c.fail("revoke", err) // the next call deletes the record: revoking again is not an error
	}
	c.current.Store(nil)
	return nil
}
