// Package forget revokes the tokens of a record and removes the record. If the store has a method
// DeleteIfUnchanged, Forget also revokes tokens that a concurrent refresh or save stores.
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

// A conditionalDeleter is a store that can remove a record only if the record is unchanged (TS-43
// in package tokenstore).
type conditionalDeleter interface {
	DeleteIfUnchanged(ctx context.Context, t tokenstore.Token) error
}

// A Forgetter forgets records of a store.
type Forgetter struct {
	Store tokenstore.TokenStore

	// Revoke revokes the tokens of a record. It returns false without an error if the record has no
	// tokens. An error from Revoke should match ErrNotRevoked.
	Revoke func(context.Context, tokenstore.Token) (bool, error)

	// Unrevoked makes Forget also remove records whose tokens could not be revoked.
	Unrevoked bool
}

// A Result is the outcome of Forget for a record.
type Result struct {
	Revoked bool // all tokens of the record were revoked
	Deleted bool
}

// Forget revokes the tokens of the record t, and then removes the record. If the store reports that
// the record has changed, Forget first revokes the new tokens of the record. If the record changes
// during each of several attempts, Forget keeps the record, and the error matches
// tokenstore.ErrConflict. If f.Revoke fails, Forget keeps the record unless f.Unrevoked is set, and
// returns the error in either case.
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
// tokenstore.ErrConflict. If the store cannot compare, remove removes the record in any case.
func (f Forgetter) remove(ctx context.Context, t tokenstore.Token) error {
	if store, ok := f.Store.(conditionalDeleter); ok {
		return store.DeleteIfUnchanged(ctx, t)
	}
	return f.Store.DeleteToken(ctx, t.ID)
}

// revoke revokes the tokens of a record, and returns the record that held these tokens. With a
// tokenstore.Refresher, f.Revoke runs as a refresh: a refresh in progress ends first, and no
// other refresh begins meanwhile. If f.Revoke succeeds, the store keeps a refusal, so waiters and
// later callers do not get the revoked tokens.
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
				return tokenstore.Token{}, ErrNotRevoked // the store keeps no refusal for this error
			}
			return tokenstore.Token{}, &tokenstore.RefreshError{Code: "token_revoked", Permanent: true}
		})
		var refused *tokenstore.RefreshError
		switch {
		case asked:
			return t, revoked, failed
		case err == nil:
			t = now // another caller has refreshed the record
		case errors.As(err, &refused), errors.Is(err, tokenstore.ErrNotFound):
			// No refresh can run while the store keeps a refusal, or after the record was
			// deleted.
			revoked, err = f.Revoke(ctx, t)
			return t, revoked, err
		default:
			return t, false, err
		}
	}
	return t, false, fmt.Errorf("%w: the record is refreshed again and again", tokenstore.ErrConflict)
}
