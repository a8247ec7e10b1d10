package cli

import (
	"context"
	"fmt"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/forget"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

var errNotRevoked = forget.ErrNotRevoked

// forgetOne revokes the tokens of a record, and removes the record. It stores the outcome in f.
func (a *app) forgetOne(ctx context.Context, from tokenstore.TokenStore, w wish, t tokenstore.Token, f *forgotten) error {
	forgetter := forget.Forgetter{Store: from, Unrevoked: w.unrevoked, Revoke: func(ctx context.Context, t tokenstore.Token) (bool, error) {
		return a.revokeAt(ctx, w, t)
	}}
	r, err := forgetter.Forget(ctx, t)
	f.Revoked, f.Deleted = r.Revoked, r.Deleted
	if err == nil && !f.Revoked {
		f.Why = nothingHeld
	}
	return err
}

// revokeAt revokes the tokens of a record at the authorization server that the record or w
// names. It returns true if the tokens are revoked, and false with a nil error if the record has
// no tokens to revoke. Errors match errNotRevoked.
func (a *app) revokeAt(ctx context.Context, w wish, t tokenstore.Token) (bool, error) {
	if !revocable(t) {
		return false, nil
	}
	c, t, ok := a.server(w, t)
	if !ok {
		return false, fmt.Errorf("%w: its authorization server is not known", errNotRevoked)
	}
	if err := initializer.RevokeToken(ctx, c, t); err != nil {
		return false, fmt.Errorf("%w: %w", errNotRevoked, err)
	}
	return true, nil
}
