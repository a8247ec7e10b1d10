package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// A forgettable store can do what forgetting a record takes.
type forgettable interface {
	tokenstore.TokenStore
	tokenstore.Refresher
	migrate.ConditionalDeleter
}

// forgetAttempts is how often a record is looked at again that changes meanwhile.
const forgetAttempts = 5

var errNotRevoked = errors.New("not revoked")

// forgetOne revokes the tokens of a record and removes it, and says in f what it did. A
// record that has changed in between holds other tokens: they are revoked before it is
// removed.
func (a *app) forgetOne(ctx context.Context, from forgettable, w wish, t tokenstore.Token, f *forgotten) error {
	var failed error
	for range forgetAttempts {
		var err error
		t, f.Revoked, failed = a.revoke(ctx, from, w, t)
		if failed != nil && !w.unrevoked {
			return failed
		}
		err = from.DeleteIfUnchanged(ctx, t)
		if errors.Is(err, tokenstore.ErrConflict) {
			if t, err = from.FindTokenByID(ctx, f.ID); err == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			return errors.Join(failed, err)
		}
		f.Deleted = true
		if failed == nil && !f.Revoked {
			f.Why = nothingHeld
		}
		return failed
	}
	f.Revoked = false // what it holds now
	return errors.Join(failed, fmt.Errorf("%w: the record has changed again and again", tokenstore.ErrConflict))
}

// revoke revokes the tokens of a record, and returns the record as it was then. It does
// so under the right to refresh: a refresh that is under way ends before it, and none
// begins. The refusal that it leaves tells all who wait, or come later, that the tokens
// are of no use.
func (a *app) revoke(ctx context.Context, from forgettable, w wish, t tokenstore.Token) (_ tokenstore.Token, revoked bool, _ error) {
	for range forgetAttempts {
		asked := false
		var failed error
		now, err := from.Refresh(ctx, t.ID, t.AccessToken, func(ctx context.Context, now tokenstore.Token) (tokenstore.Token, error) {
			asked, t = true, now
			if revoked, failed = a.revokeAt(ctx, w, now); failed != nil {
				return tokenstore.Token{}, errNotRevoked // and no refusal of the refresh token
			}
			return tokenstore.Token{}, &tokenstore.RefreshError{Code: "token_revoked", Permanent: true}
		})
		var refused *tokenstore.RefreshError
		switch {
		case asked:
			return t, revoked, failed
		case err == nil:
			t = now // another process has refreshed it
		case errors.As(err, &refused), errors.Is(err, tokenstore.ErrNotFound):
			// Nothing is refreshed while a refusal counts, and nothing that is gone.
			revoked, err = a.revokeAt(ctx, w, t)
			return t, revoked, err
		default:
			return t, false, err
		}
	}
	return t, false, fmt.Errorf("%w: the record is refreshed again and again", tokenstore.ErrConflict)
}

// revokeAt revokes the tokens of a record at its authorization server. It returns false
// without an error if there are none.
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
