package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A closed is a driver that returns errors for reads of some secrets.
type closed struct {
	driver.Secrets
	reasons map[string]error // the errors, by name of the secret
}

func (c closed) Get(ctx context.Context, name string) (driver.Secret, error) {
	if err := c.reasons[name]; err != nil {
		return driver.Secret{}, err
	}
	return c.Secrets.Get(ctx, name)
}

func (c closed) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if err := c.reasons[name]; err != nil {
		return driver.Secret{}, err
	}
	return c.Secrets.Fresh(ctx, name, than)
}

func (c closed) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return c.only(c.Secrets.List(ctx))
}

func (c closed) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return c.only(c.Secrets.Lookup(ctx, any))
}

func (c closed) only(seq iter.Seq2[driver.Named, error]) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range seq {
			if reason := c.reasons[named.Name]; reason != nil {
				named, err = driver.Named{Name: named.Name}, reason
			}
			if !yield(named, err) {
				return
			}
		}
	}
}

// whyNot holds errors that a read of a secret may return. One of the errors has no class.
var whyNot = []error{
	fmt.Errorf("%w: bytes of another program", driver.ErrCorrupt),
	fmt.Errorf("%w: kms:Decrypt", driver.ErrDenied),
	fmt.Errorf("%w: version 3 is disabled", driver.ErrRefused),
	fmt.Errorf("%w: status 503", driver.ErrUnavailable),
	fmt.Errorf("%w: no version", driver.ErrNotFound),
	errors.New("no class"),
}

func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	for _, reason := range whyNot {
		memory := memstore.NewDriver()
		before, after := []byte("an earlier index key"), []byte("the present index key")
		open := storeOn(t, memory, &tokenstore.Options{IndexKeys: [][]byte{before}})
		bad := saved(t, open, annsToken)
		good := saved(t, open, token{UserName: "bob", ClientID: "c1", RefreshToken: canary + "4"})
		d := closed{memory, map[string]error{bad.ID: reason}}
		s := storeOn(t, d, &tokenstore.Options{IndexKeys: [][]byte{after, before}})

		var read, unread []string
		for tok, err := range s.All(t.Context()) {
			var u *tokenstore.UnreadableError
			switch {
			case err == nil:
				read = append(read, tok.ID)
			case errors.As(err, &u) && errors.Is(err, tokenstore.ErrNotFound):
				t.Errorf("%v: a record that is there is called absent: %v", reason, err)
			case errors.As(err, &u) && u.Name == bad.ID && tok == token{ID: bad.ID} && strings.Contains(err.Error(), reason.Error()):
				unread = append(unread, tok.ID)
			default:
				t.Errorf("%v: All yields %q and %v", reason, tok.ID, err)
			}
		}
		if len(read) != 1 || len(unread) != 1 {
			t.Errorf("%v: All yields the records %q, and %q as unreadable", reason, read, unread)
		}

		found := 0
		for f, err := range s.Check(t.Context(), &doctor.CheckOptions{Repair: true, Grace: -1}) {
			switch {
			case err != nil:
				t.Errorf("%v: Check ends with %v", reason, err)
			case f.Kind == doctor.KindUnreadable && f.Name == bad.ID && errors.Is(f.Err, tokenstore.ErrCorrupt):
				found++
			case f.Kind == doctor.KindUnreadable && f.Name == bad.ID && strings.Contains(f.Detail, reason.Error()):
				found++
			}
		}
		if found != 1 {
			t.Errorf("%v: Check reports the record %d times", reason, found)
		}

		var rewritten []string
		for r, err := range s.Rekey(t.Context(), nil) {
			switch {
			case err != nil && r.Name != bad.ID:
				t.Errorf("%v: Rekey ends with %v", reason, err)
			case err == nil && r.Rewritten:
				rewritten = append(rewritten, r.ID)
			}
		}
		if len(rewritten) != 1 || rewritten[0] != good.ID {
			t.Errorf("%v: Rekey rewrites %q, want %q", reason, rewritten, good.ID)
		}

		if err := s.DeleteTokens(t.Context()); err == nil || !strings.Contains(err.Error(), bad.ID) {
			t.Errorf("%v: DeleteTokens returns %v", reason, err)
		}
		only(t, open, bad)
	}
}

// TestUnreadableRecordAlias checks that a search or save fails with ErrRefused if a redirect
// leads to a record that the service refuses to return. A search for another record must
// succeed.
func TestUnreadableRecordAlias(t *testing.T) {
	t.Parallel()
	memory := memstore.NewDriver()
	open := storeOn(t, memory, nil)
	code := saved(t, open, token{ClientID: "c1", GrantToken: canary + "5", RefreshToken: canary + "6"})
	ann := saved(t, open, token{ID: code.ID, UserName: "ann"})
	bob := saved(t, open, token{UserName: "bob", ClientID: "c1", RefreshToken: canary + "7"})
	reason := fmt.Errorf("%w: its key is disabled", driver.ErrRefused)
	s := storeOn(t, closed{memory, map[string]error{ann.ID: reason}}, nil)
	for _, like := range []token{{ID: code.ID}, {ClientID: "c1", GrantToken: canary + "5"}, {ClientID: "c1", RefreshToken: canary + "6"}} {
		_, err := s.FindToken(t.Context(), like)
		if !errors.Is(err, tokenstore.ErrRefused) || !strings.Contains(err.Error(), "its key is disabled") {
			t.Errorf("FindToken(%+v) returns %v", like, err)
		}
		like.AccessToken = canary + "8"
		if got, err := s.SaveToken(t.Context(), like); !errors.Is(err, tokenstore.ErrRefused) {
			t.Errorf("SaveToken(%+v) returns %q, %v", like, got.ID, err)
		}
	}
	if got, err := s.FindToken(t.Context(), token{ClientID: "c1", RefreshToken: canary + "7"}); err != nil || got.ID != bob.ID {
		t.Errorf("another record: %q, %v", got.ID, err)
	}
	for f, err := range s.Check(t.Context(), nil) {
		if err != nil {
			t.Errorf("Check ends with %v after %s", err, f.Kind)
		}
	}
}
