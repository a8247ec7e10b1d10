package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A fault says whether and how one call of a driver fails.
type fault int

const (
	fine       fault = iota
	failBefore       // the call fails and changes nothing
	failAfter        // the call takes effect and then fails
)

func (f fault) String() string { return [...]string{"fine", "fail before", "fail after applying"}[f] }

var errFault = fmt.Errorf("%w: status 503", driver.ErrUnavailable)

// A faulty is a driver whose calls fail according to fault.
type faulty struct {
	memory *memstore.Driver
	fault  func(op, name string) fault // nil means that no call fails
	stale  map[string]driver.Secret    // stale results of Get, by name; an empty Version means not found
	lag    time.Duration               // ReadLag
	list   time.Duration               // ListLag

	mu    sync.Mutex
	calls []string
}

func newFaulty() *faulty { return &faulty{memory: memstore.NewDriver()} }

// cold returns a Store on the same memory, as another process would open it. The calls of that
// Store do not fail.
func (f *faulty) cold(t testing.TB, opts *tokenstore.Options) *tokenstore.Store {
	t.Helper()
	return storeOn(t, f.memory.Reopen(), opts)
}

func storeOn(t testing.TB, d driver.Secrets, opts *tokenstore.Options) *tokenstore.Store {
	t.Helper()
	s, err := tokenstore.New(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *faulty) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, call := range f.calls {
		if call == op {
			n++
		}
	}
	return n
}

func with[T any](f *faulty, op, name string, do func() (T, error)) (T, error) {
	var zero T
	f.mu.Lock()
	f.calls = append(f.calls, op)
	f.mu.Unlock()
	var kind fault
	if f.fault != nil {
		kind = f.fault(op, name)
	}
	switch kind {
	case failBefore:
		return zero, errFault
	case failAfter:
		if _, err := do(); err != nil {
			return zero, err
		}
		return zero, errFault
	}
	return do()
}

func (f *faulty) Properties() driver.Properties {
	p := f.memory.Properties()
	p.Name, p.ReadLag, p.ListLag = "faulty", f.lag, f.list
	return p
}

func (f *faulty) Get(ctx context.Context, name string) (driver.Secret, error) {
	return with(f, "get", name, func() (driver.Secret, error) {
		if s, ok := f.stale[name]; ok && s.Version == "" {
			return driver.Secret{}, driver.ErrNotFound
		} else if ok {
			return s, nil
		}
		return f.memory.Get(ctx, name)
	})
}

func (f *faulty) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	return with(f, "fresh", name, func() (driver.Secret, error) { return f.memory.Fresh(ctx, name, than) })
}

func (f *faulty) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	return with(f, "create", name, func() (driver.Version, error) { return f.memory.Create(ctx, name, p) })
}

func (f *faulty) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	return with(f, "update", name, func() (driver.Version, error) { return f.memory.Update(ctx, name, base, p) })
}

func (f *faulty) Delete(ctx context.Context, name string, base driver.Secret) error {
	_, err := with(f, "delete", name, func() (struct{}, error) { return struct{}{}, f.memory.Delete(ctx, name, base) })
	return err
}

func (f *faulty) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return each(f, "lookup", f.memory.Lookup(ctx, any))
}

func (f *faulty) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return each(f, "list", f.memory.List(ctx))
}

func (f *faulty) Names(ctx context.Context) iter.Seq2[string, error] {
	return each(f, "names", f.memory.Names(ctx))
}

func each[T any](f *faulty, op string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		all, err := with(f, op, "", func() (iter.Seq2[T, error], error) { return seq, nil })
		if err != nil {
			var zero T
			yield(zero, err)
			return
		}
		all(yield)
	}
}

func (f *faulty) Close() error { return nil }

// nth returns a function whose nth call returns kind. All other calls return the fault fine.
func nth(n int, kind fault) func(op, name string) fault {
	var mu sync.Mutex
	return func(string, string) fault {
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			return kind
		}
		return fine
	}
}

// of returns a function that returns kind for the first call of op. For all other calls, the
// function returns the fault fine.
func of(op string, kind fault) func(op, name string) fault {
	first := nth(1, kind)
	return func(o, name string) fault {
		if o != op {
			return fine
		}
		return first(o, name)
	}
}

func saved(t testing.TB, s *tokenstore.Store, given token) token {
	t.Helper()
	got, err := s.SaveToken(t.Context(), given)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// only checks that the store holds want and no other record.
func only(t *testing.T, s *tokenstore.Store, want token) {
	t.Helper()
	got, err := s.GetTokens(t.Context())
	if err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("the store holds %+v, error %v, want\n%+v", got, err, want)
	}
}

var (
	annsToken = token{UserName: "ann", ClientID: "c1", RefreshToken: canary + "1", AccessToken: canary + "2", ExpiresAt: at(1).UTC()}
	annsNews  = token{UserName: "ann", ClientID: "c1", AccessToken: canary + "3", ExpiresAt: at(2).UTC()}
)

func TestSaveTokenCreateAnswerLost(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	f.fault = of("create", failAfter)
	got := saved(t, storeOn(t, f, nil), annsToken)
	only(t, f.cold(t, nil), got)
	if f.count("create") != 1 || f.count("fresh") != 1 || f.count("update") != 0 {
		t.Errorf("the calls are %v", f.calls)
	}
}

func TestSaveTokenUpdateAnswerLost(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	s := storeOn(t, f, nil)
	saved(t, s, annsToken)
	f.fault = of("update", failAfter)
	got := saved(t, s, annsNews)
	only(t, f.cold(t, nil), got)
	if f.count("update") != 1 || got.AccessToken != annsNews.AccessToken || got.RefreshToken != annsToken.RefreshToken {
		t.Errorf("saved as %+v by the calls %v", got, f.calls)
	}
}

func TestSaveTokenAnswerLostOthersWrite(t *testing.T) {
	t.Parallel()
	for others := 1; others <= 7; others++ {
		f := newFaulty()
		s := storeOn(t, f, nil)
		saved(t, s, annsToken)
		first := of("update", failAfter)
		f.fault = func(op, name string) fault {
			if op == "fresh" { // other processes write before the store reads the outcome of the update
				for i := range others {
					saved(t, f.cold(t, nil), token{UserName: "ann", ClientID: "c1", APIDomain: fmt.Sprint(i)})
				}
			}
			return first(op, name)
		}
		got := saved(t, s, annsNews)
		if f.count("update") != 1 || got.APIDomain != fmt.Sprint(others-1) || got.AccessToken != annsNews.AccessToken {
			t.Errorf("after %d others it is saved as %+v by the calls %v", others, got, f.calls)
		}
		only(t, f.cold(t, nil), got)
	}
}

func TestSaveTokenNotApplied(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"create", "update"} {
		f := newFaulty()
		s := storeOn(t, f, nil)
		if op == "update" {
			saved(t, s, annsToken)
		}
		before, _ := f.cold(t, nil).GetTokens(t.Context())
		f.fault = of(op, failBefore)
		got, err := s.SaveToken(t.Context(), annsNews)
		var e *tokenstore.Error
		if !errors.Is(err, tokenstore.ErrUnavailable) || !errors.As(err, &e) || e.Op != "save" || e.Store != "faulty" || got != (token{}) {
			t.Errorf("a failed %s: %+v, error %v, want ErrUnavailable", op, got, err)
		}
		after, _ := f.cold(t, nil).GetTokens(t.Context())
		if len(after) != len(before) || len(before) > 0 && after[0] != before[0] {
			t.Errorf("a failed %s left %+v", op, after)
		}
		f.fault = nil
		only(t, f.cold(t, nil), saved(t, s, annsNews))
	}
}

func TestSaveTokenUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, kind := range []fault{failBefore, failAfter} {
		f := newFaulty()
		s := storeOn(t, f, nil)
		saved(t, s, annsToken)
		f.fault = func(op, _ string) fault {
			switch op {
			case "update":
				return kind
			case "fresh":
				return failBefore
			}
			return fine
		}
		if _, err := s.SaveToken(t.Context(), annsNews); !errors.Is(err, tokenstore.ErrUnavailable) || errors.Is(err, tokenstore.ErrConflict) {
			t.Errorf("%v: error %v, want ErrUnavailable", kind, err)
		}
		f.fault = nil
		only(t, f.cold(t, nil), saved(t, s, annsNews))
	}
}

func TestSaveTokenDenied(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	s := storeOn(t, denying{f}, nil)
	if _, err := s.SaveToken(t.Context(), annsToken); !errors.Is(err, tokenstore.ErrDenied) || errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("error %v, want ErrDenied", err)
	}
	if f.count("fresh") != 0 {
		t.Errorf("the calls are %v", f.calls)
	}
}

type denying struct{ *faulty }

func (denying) Create(context.Context, string, driver.Payload) (driver.Version, error) {
	return "", fmt.Errorf("%w: status 403", driver.ErrDenied)
}

func TestSaveTokenStaleRead(t *testing.T) {
	t.Parallel()
	for what, stale := range map[string]func(f *faulty, name string, old driver.Secret){
		"an earlier state": func(f *faulty, name string, old driver.Secret) { f.stale = map[string]driver.Secret{name: old} },
		"not there yet":    func(f *faulty, name string, _ driver.Secret) { f.stale = map[string]driver.Secret{name: {}} },
	} {
		f := newFaulty()
		f.lag = time.Minute
		s := storeOn(t, f, nil)
		first := saved(t, s, annsToken)
		old, err := f.memory.Get(t.Context(), first.ID)
		if err != nil {
			t.Fatal(err)
		}
		saved(t, f.cold(t, nil), annsNews)
		stale(f, first.ID, old)
		got := saved(t, s, token{UserName: "ann", ClientID: "c1", RefreshToken: annsToken.RefreshToken, APIDomain: "https://api.example.com"})
		if got.AccessToken != annsNews.AccessToken || got.APIDomain != "https://api.example.com" || got.ID != first.ID {
			t.Errorf("%s: saved as %+v", what, got)
		}
		only(t, f.cold(t, nil), got)
	}
}

func TestDeleteTokenAnswerLost(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	s := storeOn(t, f, nil)
	got := saved(t, s, annsToken)
	f.fault = of("delete", failAfter)
	if err := s.DeleteToken(t.Context(), got.ID); err != nil {
		t.Errorf("DeleteToken: %v", err)
	}
	got = saved(t, s, annsToken)
	f.fault = of("delete", failBefore)
	if err := s.DeleteToken(t.Context(), got.ID); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	only(t, f.cold(t, nil), got)
}

// TestEveryCallOfEveryOperationMayFail checks the records that a new process finds after any
// call of an operation has failed. In one run the call fails without effect, and in another
// run the call takes effect and then fails. The new process must be able to repeat the
// operation.
func TestEveryCallOfEveryOperationMayFail(t *testing.T) {
	t.Parallel()
	code := token{ClientID: "c1", GrantToken: canary + "9", ClientSecret: canary + "8"}
	for _, c := range []struct {
		op    string
		setup []token
		do    func(ctx context.Context, s *tokenstore.Store) error
		left  int // number of records after the operation has succeeded
	}{
		{"a first save", nil, func(ctx context.Context, s *tokenstore.Store) error {
			_, err := s.SaveToken(ctx, annsToken)
			return err
		}, 1},
		{"a second save", []token{annsToken}, func(ctx context.Context, s *tokenstore.Store) error {
			_, err := s.SaveToken(ctx, annsNews)
			return err
		}, 1},
		{"a save by a token", []token{annsToken}, func(ctx context.Context, s *tokenstore.Store) error {
			_, err := s.SaveToken(ctx, token{ClientID: "c1", RefreshToken: annsToken.RefreshToken, APIDomain: "d"})
			return err
		}, 1},
		{"a promotion to a new user", []token{code}, func(ctx context.Context, s *tokenstore.Store) error {
			found, err := s.FindToken(ctx, code)
			if err != nil {
				return err
			}
			_, err = s.SaveToken(ctx, token{ID: found.ID, UserName: "ann"})
			return err
		}, 1},
		{"a promotion to a user's record", []token{code, annsToken}, func(ctx context.Context, s *tokenstore.Store) error {
			found, err := s.FindToken(ctx, code)
			if err != nil {
				return err
			}
			_, err = s.SaveToken(ctx, token{ID: found.ID, UserName: "ann"})
			return err
		}, 1},
		{"a deletion", []token{annsToken}, func(ctx context.Context, s *tokenstore.Store) error {
			found, err := s.FindToken(ctx, annsToken)
			if errors.Is(err, tokenstore.ErrNotFound) {
				return nil
			} else if err != nil {
				return err
			}
			return s.DeleteToken(ctx, found.ID)
		}, 0},
		{"a deletion of all", []token{annsToken, code}, func(ctx context.Context, s *tokenstore.Store) error { return s.DeleteTokens(ctx) }, 0},
	} {
		for _, kind := range []fault{failBefore, failAfter} {
			for n := 1; ; n++ {
				f := newFaulty()
				for _, given := range c.setup {
					saved(t, f.cold(t, nil), given)
				}
				f.fault = nth(n, kind)
				s := storeOn(t, f, nil)
				err := c.do(t.Context(), s)
				faulted := len(f.calls) >= n
				what := fmt.Sprintf("%s, call %d: %v", c.op, n, kind)
				if err != nil && (!errors.Is(err, tokenstore.ErrUnavailable) || leaks(shown(err))) {
					t.Errorf("%s: error %v, want ErrUnavailable", what, err)
				}
				cold := f.cold(t, nil)
				left, listErr := cold.GetTokens(t.Context())
				if listErr != nil || err == nil && len(left) != c.left || len(left) > max(len(c.setup), 1) {
					t.Errorf("%s: %d records are left, error %v", what, len(left), listErr)
				}
				for _, given := range c.setup {
					if _, err := cold.FindToken(t.Context(), given); err != nil && c.left > 0 {
						t.Errorf("%s: a record is not found any more: %v", what, err)
					}
				}
				if err := c.do(t.Context(), cold); err != nil {
					t.Errorf("%s: it cannot be repeated: %v", what, err)
				}
				if left, err := cold.GetTokens(t.Context()); err != nil || len(left) != c.left {
					t.Errorf("%s: repeated it leaves %d records, error %v", what, len(left), err)
				}
				if !faulted {
					break
				}
			}
		}
	}
}
