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
	fmt.Errorf("%w: between two pages", driver.ErrConflict),
	fmt.Errorf("%w: twice", driver.ErrExists),
	fmt.Errorf("%w: the key service: %w", driver.ErrCorrupt, context.DeadlineExceeded),
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
			case errors.As(err, &u) && !isUnreadable(u):
				t.Errorf("%v: All yields an error of another class: %v", reason, err)
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

// isUnreadable reports whether err matches exactly one class that the documentation of an
// UnreadableError names, and no error of package context.
func isUnreadable(err *tokenstore.UnreadableError) bool {
	count := 0
	for _, class := range []error{tokenstore.ErrCorrupt, tokenstore.ErrDenied, tokenstore.ErrRefused, tokenstore.ErrUnavailable} {
		if errors.Is(err, class) {
			count++
		}
	}
	for _, other := range []error{tokenstore.ErrNotFound, tokenstore.ErrConflict, driver.ErrExists, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, other) {
			return false
		}
	}
	return count == 1
}

// TestUnreadableRecordOfAContext checks that an operation ends with the error if a driver yields
// an error of package context for a secret. The service may have enforced the caller's deadline
// before the context is done.
func TestUnreadableRecordOfAContext(t *testing.T) {
	t.Parallel()
	memory := memstore.NewDriver()
	bad := saved(t, storeOn(t, memory, nil), annsToken)
	reason := fmt.Errorf("read the secret: %w", context.DeadlineExceeded)
	s := storeOn(t, closed{memory, map[string]error{bad.ID: reason}}, nil)
	var u *tokenstore.UnreadableError
	if tokens, err := s.GetTokens(t.Context()); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &u) {
		t.Errorf("GetTokens returns %d tokens and %v", len(tokens), err)
	}
	if err := s.DeleteTokens(t.Context()); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &u) {
		t.Errorf("DeleteTokens returns %v", err)
	}
	for f, err := range s.Check(t.Context(), nil) {
		if f.Kind == doctor.KindUnreadable || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Check yields %+v and %v", f, err)
		}
	}
}

// A closing is a driver whose lists yield all secrets, and whose later reads of some secrets fail.
type closing struct{ closed }

func (c closing) List(ctx context.Context) iter.Seq2[driver.Named, error] { return c.Secrets.List(ctx) }

// TestUnreadableRecordAfterList checks that Check reports a record once, with the error, if the
// record becomes unreadable after Check has listed the record.
func TestUnreadableRecordAfterList(t *testing.T) {
	t.Parallel()
	memory := memstore.NewDriver()
	before, after := []byte("an earlier index key"), []byte("the present index key")
	bad := saved(t, storeOn(t, memory, &tokenstore.Options{IndexKeys: [][]byte{before}}), annsToken)
	reason := fmt.Errorf("%w: its key is disabled", driver.ErrRefused)
	s := storeOn(t, closing{closed{memory, map[string]error{bad.ID: reason}}}, &tokenstore.Options{IndexKeys: [][]byte{after, before}})
	var u *tokenstore.UnreadableError
	found := 0
	for _, f := range check(t, s, doctor.CheckOptions{Repair: true}) {
		if f.Kind != doctor.KindUnreadable || f.Name != bad.ID || f.Remedy != doctor.RemedyManual {
			t.Errorf("Check reports %s", describe(f))
			continue
		}
		if found++; !errors.Is(f.Err, tokenstore.ErrRefused) || !errors.As(f.Err, &u) || u.Name != bad.ID {
			t.Errorf("the finding has the error %v, want %v", f.Err, reason)
		}
	}
	if found != 1 {
		t.Errorf("Check reports the record %d times, want once", found)
	}
}

// A cut is a driver whose lists end with an error after all secrets.
type cut struct {
	driver.Secrets
	reason error
}

func (c cut) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range c.Secrets.List(ctx) {
			if !yield(named, err) {
				return
			}
		}
		yield(driver.Named{}, c.reason)
	}
}

// TestListEndsWithAnError checks that an error without a name, of any class, is the last result of
// an iteration over all records.
func TestListEndsWithAnError(t *testing.T) {
	t.Parallel()
	before, after := []byte("an earlier index key"), []byte("the present index key")
	for _, reason := range whyNot {
		memory := memstore.NewDriver()
		saved(t, storeOn(t, memory, &tokenstore.Options{IndexKeys: [][]byte{before}}), annsToken)
		s := storeOn(t, cut{memory, reason}, &tokenstore.Options{IndexKeys: [][]byte{after, before}})
		var ends []error
		end := func(op string, last error, named bool, err error) error {
			if last != nil {
				t.Errorf("%v: %s continues after the error %v", reason, op, last)
			}
			if err != nil && (named || !strings.Contains(err.Error(), reason.Error())) {
				t.Errorf("%v: %s yields %v", reason, op, err)
			}
			return err
		}
		var last error
		for r, err := range s.Rekey(t.Context(), nil) {
			last = end("Rekey", last, r.Name != "", err)
		}
		ends, last = append(ends, last), nil
		for f, err := range s.Check(t.Context(), &doctor.CheckOptions{Repair: true}) {
			last = end("Check", last, err != nil && f.Name != "", err)
		}
		ends, last = append(ends, last), nil
		for tok, err := range s.All(t.Context()) {
			last = end("All", last, tok.ID != "", err)
		}
		for i, err := range append(ends, last) {
			if err == nil {
				t.Errorf("%v: iteration %d ends without an error", reason, i)
			}
		}
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
		if f.Kind == doctor.KindPromotionUnfinished && !errors.Is(f.Err, tokenstore.ErrRefused) {
			t.Errorf("Check reports %s", describe(f))
		}
	}
}
