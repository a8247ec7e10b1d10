package initializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/internal/forget"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

var errNoUser = fmt.Errorf("%w: Config.Token needs a UserName and a ClientID", tokenstore.ErrInvalidToken)

// Forgotten is the outcome of Forget.
type Forgotten struct {
	ID      string // the ID of the record; empty if there was no record
	Revoked bool   // whether the refresh token, or else the access token, was revoked
	Deleted bool   // whether the record was deleted
}

// Forget revokes the refresh token of a user, or the access token if there is no refresh token, at
// the authorization server of c, and then deletes the record. c.Token must have a UserName and,
// with an Environment, a ClientID; otherwise the error matches tokenstore.ErrInvalidToken. Forget
// ignores the tokens in c.Token. With OAuth2 and without a RevokeURL, Forget only deletes the
// record.
//
// With the stores of this module, no other process refreshes the record during Forget, and a token
// saved in the meantime is also revoked. If a token cannot be revoked, Forget keeps the record, and
// the error has the class of the reason. A token that the server does not know counts as revoked.
// If the record does not exist, the error is nil.
func Forget(ctx context.Context, c Config) (Forgotten, error) {
	conf, err := c.complete()
	if err != nil {
		return Forgotten{}, err
	}
	client := &Client{conf: &conf, server: conf.server()}
	f, err := client.forget(ctx)
	return f, client.fail("forget", err)
}

func (c *Client) forget(ctx context.Context) (Forgotten, error) {
	like := c.conf.Token
	if like.UserName == "" || like.ClientID == "" {
		return Forgotten{}, errNoUser
	}
	t, err := c.byUser(ctx, like)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return Forgotten{}, nil
	case err != nil:
		return Forgotten{}, err
	}
	forgetter := forget.Forgetter{Store: c.conf.Store, Revoke: func(ctx context.Context, t tokenstore.Token) (bool, error) {
		if err := c.belongs(t); err != nil {
			return false, fmt.Errorf("%w: %w", forget.ErrNotRevoked, err)
		}
		if c.conf.OAuth2 != nil && c.conf.RevokeURL == "" || t.RefreshToken == "" && t.AccessToken == "" {
			return false, nil
		}
		if err := c.revoke(ctx, c.configured(t)); err != nil {
			return false, fmt.Errorf("%w: %w", forget.ErrNotRevoked, err)
		}
		return true, nil
	}}
	r, err := forgetter.Forget(ctx, t)
	return Forgotten{ID: t.ID, Revoked: r.Revoked, Deleted: r.Deleted}, err
}
