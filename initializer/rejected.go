package initializer

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Rejected returns the record with an access token that differs from the parameter rejected. Call
// Rejected with an access token that the API refused before the expiry of the token. If the Client
// or the store already has another valid access token, Rejected sends no request to the
// authorization server. Otherwise, one process refreshes the token for all processes.
// Client.HTTPClient replaces rejected tokens automatically.
//
// The error matches ErrThrottled if the rejected token itself replaced another rejected token less
// than a minute ago. If the new token could not be stored, Rejected returns the record together
// with an error matching tokenstore.ErrNotPersisted.
func (c *Client) Rejected(ctx context.Context, rejected tokenstore.Secret) (tokenstore.Token, error) {
	s, err := c.session(ctx)
	if s == nil {
		return tokenstore.Token{}, c.fail("rejected", err)
	}
	if s.token.AccessToken != rejected {
		return s.token, c.fail("rejected", err)
	}
	if !s.rejected.IsZero() && c.conf.Now().Sub(s.rejected) < rejectPause {
		return tokenstore.Token{}, c.fail("rejected", fmt.Errorf("%w: the access token has just replaced another that was rejected", ErrThrottled))
	}
	next, err := c.renew(ctx, rejected, true)
	if next == nil {
		return tokenstore.Token{}, c.fail("rejected", err)
	}
	return next.token, c.fail("rejected", err)
}
