package forget_test

import (
	"context"
	"errors"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/forget"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// The tests of package cli check Forget with concurrent refreshes and saves.

// plain is a custom store without the optional methods for refreshing and comparing.
type plain struct{ tokenstore.TokenStore }

func saved(t *testing.T, store tokenstore.TokenStore, like tokenstore.Token) tokenstore.Token {
	t.Helper()
	like.UserName, like.ClientID = "ann", "client"
	rec, err := store.SaveToken(t.Context(), like)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestForget(t *testing.T) {
	t.Parallel()
	failed := errors.New("the server is away")
	for what, c := range map[string]struct {
		err       error
		unrevoked bool
		want      forget.Result
	}{
		"revoked":                               {nil, false, forget.Result{Revoked: true, Deleted: true}},
		"not revoked":                           {failed, false, forget.Result{}},
		"not revoked, and removed all the same": {failed, true, forget.Result{Deleted: true}},
	} {
		for kind, store := range map[string]tokenstore.TokenStore{"a Store": memstore.New(nil), "a store of one's own": plain{memstore.New(nil)}} {
			rec := saved(t, store, tokenstore.Token{RefreshToken: "r", AccessToken: "a"})
			f := forget.Forgetter{Store: store, Unrevoked: c.unrevoked, Revoke: func(_ context.Context, now tokenstore.Token) (bool, error) {
				if now.RefreshToken != "r" {
					t.Errorf("%s, %s: the record has another refresh token", what, kind)
				}
				return c.err == nil, c.err
			}}
			got, err := f.Forget(t.Context(), rec)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s, %s: the result is %+v: %v", what, kind, got, err)
			}
			if _, err := store.FindTokenByID(t.Context(), rec.ID); errors.Is(err, tokenstore.ErrNotFound) != got.Deleted {
				t.Errorf("%s, %s: the record: %v", what, kind, err)
			}
		}
	}
}

// TestForgetSavedBetween checks that tokens that are saved during the revocation of earlier
// tokens are also revoked before the record is removed.
func TestForgetSavedBetween(t *testing.T) {
	t.Parallel()
	for saves := range 7 {
		store := memstore.New(nil)
		rec := saved(t, store, tokenstore.Token{RefreshToken: "0"})
		var revoked []tokenstore.Secret
		f := forget.Forgetter{Store: store, Revoke: func(_ context.Context, now tokenstore.Token) (bool, error) {
			if revoked = append(revoked, now.RefreshToken); len(revoked) <= saves {
				saved(t, store, tokenstore.Token{RefreshToken: tokenstore.Secret('0' + rune(len(revoked)))})
			}
			return true, nil
		}}
		got, err := f.Forget(t.Context(), rec)
		if done := saves < 5; got.Deleted != done || got.Revoked != done || done != (err == nil) || !done && !errors.Is(err, tokenstore.ErrConflict) {
			t.Errorf("%d saves: the result is %+v: %v", saves, got, err)
		}
		if n := min(saves+1, 5); len(revoked) != n {
			t.Errorf("%d saves: %d tokens were revoked", saves, len(revoked))
		}
	}
}
