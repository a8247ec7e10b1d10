// Package forget revokes the tokens of a record and removes the record. With a store that
// compares before it removes, a concurrent refresh or save leaves no valid tokens behind.
package forget

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// attempts is the maximum number of attempts to forget a record that keeps changing.
const attempts = 5

// ErrNotRevoked means that the tokens of a record could not be revoked.
var ErrNotRevoked = errors.New("not revoked")

// A conditionalDeleter removes a record only if it is unchanged (TS-43 in package tokenstore).
type conditionalDeleter interface {
	DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error
}

// A Forgetter forgets records of a store.
type Forgetter struct {
	Store tokenstore.TokenStore

	// Revoke revokes the tokens of a record. It returns false without an error if the record has
	// no tokens. Its error matches ErrNotRevoked.
	Revoke func(context.Context, tokenstore.Token) (bool, error)

	// Unrevoked also removes records that could not be revoked.
	Unrevoked bool
}

// A Result is the outcome of Forget for a record.
type Result struct {
	Revoked bool // all tokens of the record were revoked
	Deleted bool
}

// Forget revokes the tokens of a record and removes it. If the record changes in the meantime,
// Forget revokes its new tokens before removing it. It keeps a record that cannot be revoked,
// unless Unrevoked is set, and returns the error in either case.
func (f Forgetter) Forget(ctx context.Context, t tokenstore.Token) (r Result, err error) {
	id := t.ID
	for range attempts {
		var failed error
		t, r.Revoked, failed = f.revoke(ctx, t)
		if failed != nil && !f.Unrevoked {
			return r, failed
		}
		err := f.remove(ctx, t)
		if errors.Is(err, tokenstore.ErrConflict) {
			if t, err = f.Store.FindTokenByID(ctx, id); err == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			return r, errors.Join(failed, err)
		}
		r.Deleted = true
		return r, failed
	}
	r.Revoked = false // the tokens that the record holds now are not revoked
	return r, fmt.Errorf("%w: the record has changed again and again", tokenstore.ErrConflict)
}

// remove removes t if the record is unchanged. If the record has changed, the error matches
// tokenstore.ErrConflict. If the store cannot compare, remove removes the record in any
// case.
func (f Forgetter) remove(ctx context.Context, t tokenstore.Token) error {
	if store, ok := f.Store.(conditionalDeleter); ok {
		return store.DeleteIfUnchanged(ctx, t)
	}
	return f.Store.DeleteToken(ctx, t.ID)
}

// revoke revokes the tokens of a record, and returns the record that held these tokens. With a
// tokenstore.Refresher, it revokes while holding the right to refresh: a refresh in progress ends
// first, and no other refresh begins. Then it stores a refusal, so that waiters and later callers
// do not use the tokens.
func (f Forgetter) revoke(ctx context.Context, t tokenstore.Token) (_ tokenstore.Token, revoked bool, _ error) {
	store, ok := f.Store.(tokenstore.Refresher)
	if !ok {
		revoked, err := f.Revoke(ctx, t)
		return t, revoked, err
	}
	for range attempts {
		asked := false
		var failed error
		now, err := store.Refresh(ctx, t.ID, t.AccessToken, func(ctx context.Context, now tokenstore.Token) (tokenstore.Token, error) {
			asked, t = true, now
			if revoked, failed = f.Revoke(ctx, now); failed != nil {
				return tokenstore.Token{}, ErrNotRevoked // no refusal of the refresh token is stored
			}
			return tokenstore.Token{}, &tokenstore.RefreshError{Code: "token_revoked", Permanent: true}
		})
		var refused *tokenstore.RefreshError
		switch {
		case asked:
			return t, revoked, failed
		case err == nil:
			t = now // another process has refreshed the record
		case errors.As(err, &refused), errors.Is(err, tokenstore.ErrNotFound):
			// No refresh runs while a refusal counts or after the record is gone.
			revoked, err = f.Revoke(ctx, t)
			return t, revoked, err
		default:
			return t, false, err
		}
	}
	return t, false, fmt.Errorf("%w: the record is refreshed again and again", tokenstore.ErrConflict)
}
