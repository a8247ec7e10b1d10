package initializer

import (
	"cmp"
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// EnvironmentOf returns the environment of Zoho's data centre that has an API domain,
// such as "https://www.zohoapis.eu". It returns false if the domain is not one of Zoho's.
func EnvironmentOf(apiDomain string) (Environment, bool) {
	accounts, ok := accountsFor(apiDomain)
	if !ok {
		return Environment{}, false
	}
	e, err := Environment{AccountsURL: accounts, APIURL: apiDomain}.complete()
	return e, err == nil
}

// RevokeToken revokes the refresh token of t, or its access token if there is no other,
// at the authorization server of c. It needs no Client, asks for no new token, and leaves
// the store alone: c.Store may be nil. A token that the server does not know counts as
// revoked.
func RevokeToken(ctx context.Context, c Config, t tokenstore.Token) error {
	c.Token = t
	conf, err := c.completeServer()
	if err != nil {
		return err
	}
	client := &Client{conf: &conf, server: conf.server()}
	return client.fail("revoke", client.revoke(ctx, client.configured(t)))
}

// revoke revokes what t has at the authorization server.
func (c *Client) revoke(ctx context.Context, t tokenstore.Token) error {
	token := cmp.Or(t.RefreshToken, t.AccessToken)
	if token == "" {
		return nil
	}
	return c.server.revoke(ctx, t, token)
}

// Revoke revokes the refresh token, or the access token if there is no other, at
// the authorization server and then deletes the record. Of a record that is gone
// from the store what the Client has is revoked. The Client has no token
// afterwards.
func (c *Client) Revoke(ctx context.Context) error {
	s := c.current.Load()
	if s == nil {
		return c.fail("revoke", ErrClosed)
	}
	t := s.token
	// Another process may have been given a new refresh token.
	found, err := c.conf.Store.FindTokenByID(ctx, t.ID)
	switch {
	case err == nil && s.unsaved == nil:
		t = found
	case err != nil && !errors.Is(err, tokenstore.ErrNotFound):
		return c.fail("revoke", err)
	}
	if err := c.revoke(ctx, c.configured(t)); err != nil {
		return c.fail("revoke", err)
	}
	if err := c.conf.Store.DeleteToken(ctx, cmp.Or(found.ID, t.ID)); err != nil {
		return c.fail("revoke", err) // and the next call deletes it: what is revoked already is no error
	}
	c.current.Store(nil)
	return nil
}
