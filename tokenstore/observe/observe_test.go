package observe_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	_ "modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
)

// seen is the key of the value that a recorder's Observer adds to a context.
type seen struct{}

// A recorder records the data that an Observer receives.
type recorder struct {
	mu        sync.Mutex
	stores    []string
	refreshes []observe.Refreshed
	calls     []observe.Call
	called    []observe.Called
	open      int
}

func (r *recorder) observer() *observe.Observer {
	return &observe.Observer{
		Refresh: func(ctx context.Context, store string) (context.Context, func(observe.Refreshed)) {
			r.begin(store)
			return context.WithValue(ctx, seen{}, true), func(e observe.Refreshed) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.open--
				r.refreshes = append(r.refreshes, e)
			}
		},
		Call: func(ctx context.Context, c observe.Call) (context.Context, func(observe.Called)) {
			r.begin(c.Store)
			return context.WithValue(ctx, seen{}, true), func(e observe.Called) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.open--
				r.calls, r.called = append(r.calls, c), append(r.called, e)
			}
		},
	}
}

func (r *recorder) begin(store string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	r.stores = append(r.stores, store)
}

func (r *recorder) last() observe.Refreshed {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refreshes) == 0 {
		return observe.Refreshed{}
	}
	return r.refreshes[len(r.refreshes)-1]
}

// operations returns each recorded combination of an operation and the class of its error once.
func (r *recorder) operations() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for i, c := range r.calls {
		all = append(all, strings.TrimSuffix(string(c.Operation)+":"+string(r.called[i].Class), ":"))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
	doctor.Checker
}

const (
	user   = "canary-user@example.com:6001"
	client = "1000.CANARY"
)

// record saves a record whose access token has expired.
func record(t *testing.T, s tokenstore.TokenStore) tokenstore.Token {
	t.Helper()
	saved, err := s.SaveToken(t.Context(), tokenstore.Token{
		UserName: user, ClientID: client, ClientSecret: "canary-secret", RefreshToken: "canary-refresh",
		AccessToken: "canary-expired", ExpiresAt: time.Now().Add(-time.Hour).Truncate(time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

func minted(name string) tokenstore.Token {
	return tokenstore.Token{AccessToken: tokenstore.Secret("canary-" + name), ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Millisecond)}
}

func TestStores(t *testing.T) {
	t.Parallel()
	stores := map[string]func(t *testing.T, o *observe.Observer) store{
		"memstore": func(_ *testing.T, o *observe.Observer) store { return memstore.New(&tokenstore.Options{Observer: o}) },
		"filestore": func(t *testing.T, o *observe.Observer) store {
			t.Helper()
			s, err := filestore.New(filepath.Join(t.TempDir(), "canary-tokens.txt"), &filestore.Options{Observer: o})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"sqlstore": func(t *testing.T, o *observe.Observer) store {
			t.Helper()
			db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "canary.db"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			s, err := sqlstore.New(t.Context(), db, sqlstore.SQLite, &sqlstore.Options{Observer: o})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	secrets := []observe.Operation{observe.OpGet, observe.OpFresh, observe.OpCreate, observe.OpUpdate, observe.OpDelete, observe.OpNote, observe.OpLookup, observe.OpList}
	rows := []observe.Operation{observe.OpRead, observe.OpLock, observe.OpUpdate, observe.OpNote}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{}
			s := open(t, r.observer())
			life(t, s, r)
			want := rows
			if name == "memstore" {
				want = secrets
			}
			had := map[observe.Operation]bool{}
			for _, c := range r.calls {
				had[c.Operation] = true
			}
			for _, op := range want {
				if !had[op] {
					t.Errorf("no call of %s is seen", op)
				}
			}
			if len(had) > len(want) {
				t.Errorf("calls of another kind of store are seen: %v", r.operations())
			}
			if r.open != 0 {
				t.Errorf("%d refreshes and calls have not ended", r.open)
			}
			for _, store := range r.stores {
				if store != name {
					t.Errorf("the store is called %q", store)
				}
			}
			enumerated(t, r)
		})
	}
}

// life calls the operations of a store for one record, and checks the data that the Observer
// receives about each refresh.
func life(t *testing.T, s store, r *recorder) {
	t.Helper()
	ctx := t.Context()
	saved := record(t, s)
	// refresh checks that the Observer receives the expected result, and that mint receives the
	// context from the Observer.
	refresh := func(want observe.Result, class observe.Class, stale tokenstore.Secret, answer tokenstore.Token, refusal error) {
		t.Helper()
		_, err := s.Refresh(ctx, saved.ID, stale, func(ctx context.Context, _ tokenstore.Token) (tokenstore.Token, error) {
			if ctx.Value(seen{}) == nil {
				t.Error("mint gets another context")
			}
			return answer, refusal
		})
		got := r.last()
		if got.Result != want || got.Class != class || (err == nil) != (class == "") {
			t.Errorf("result %q, class %q, error %v; want %q and %q", got.Result, got.Class, err, want, class)
		}
		asked := want != observe.ResultCurrent && want != observe.ResultRefusalKept
		if asked != (got.Asked > 0) || got.Waited <= 0 || got.Lag != 0 {
			t.Errorf("%s: asked for %v, waited for %v, lag %v", want, got.Asked, got.Waited, got.Lag)
		}
	}
	expired := saved.AccessToken
	refresh(observe.ResultUnanswered, observe.ClassServer, expired, tokenstore.Token{}, errors.New("canary: connection refused"))
	refresh(observe.ResultRefused, observe.ClassClient, expired, tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_client", Client: true})
	refresh(observe.ResultMinted, "", expired, minted("first"), nil)
	refresh(observe.ResultCurrent, "", expired, tokenstore.Token{}, nil)
	refresh(observe.ResultRefused, observe.ClassTemporary, "canary-first", tokenstore.Token{}, &tokenstore.RefreshError{Code: "slow_down", RetryAfter: time.Hour})
	refresh(observe.ResultRefusalKept, observe.ClassTemporary, "canary-first", tokenstore.Token{}, nil)

	if _, err := s.FindToken(ctx, tokenstore.Token{UserName: user}); err != nil {
		t.Error(err)
	}
	if _, err := s.FindTokenByID(ctx, saved.ID); err != nil {
		t.Error(err)
	}
	saved.RefreshToken = "canary-second"
	if _, err := s.SaveToken(ctx, saved); err != nil {
		t.Error(err)
	}
	refresh(observe.ResultRefused, observe.ClassReauth, "canary-first", tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true})
	refresh(observe.ResultRefusalKept, observe.ClassReauth, "canary-first", tokenstore.Token{}, nil)
	if _, err := s.GetTokens(ctx); err != nil {
		t.Error(err)
	}
	for _, err := range s.Check(ctx, nil) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.DeleteToken(ctx, saved.ID); err != nil {
		t.Error(err)
	}
	if err := s.DeleteTokens(ctx); err != nil {
		t.Error(err)
	}
}

// enumerated checks that the recorded data holds no part of a record, and only results,
// operations and classes that package observe declares.
func enumerated(t *testing.T, r *recorder) {
	t.Helper()
	for _, e := range r.refreshes {
		if !slices.Contains(observe.Results(), e.Result) || e.Class != "" && !slices.Contains(observe.Classes(), e.Class) {
			t.Errorf("not an enumeration: %+v", e)
		}
	}
	for i, c := range r.calls {
		if class := r.called[i].Class; !slices.Contains(observe.Operations(), c.Operation) || class != "" && !slices.Contains(observe.Classes(), class) {
			t.Errorf("not an enumeration: %+v, %+v", c, r.called[i])
		}
	}
	if text := fmt.Sprintf("%#v %#v %#v %#v", r.stores, r.refreshes, r.calls, r.called); strings.Contains(strings.ToLower(text), "canary") {
		t.Error("the Observer is told a part of a record")
	}
	for _, kind := range []reflect.Type{reflect.TypeFor[observe.Refreshed](), reflect.TypeFor[observe.Called](), reflect.TypeFor[observe.Call]()} {
		for f := range kind.NumField() {
			switch field := kind.Field(f); {
			case field.Type == reflect.TypeFor[time.Duration]() || field.Name == "Store":
			case field.Type.Kind() == reflect.String && field.Type != reflect.TypeFor[string]():
			default:
				t.Errorf("%s.%s can hold more than a kind or a duration", kind, field.Name)
			}
		}
	}
}

// TestAdoption checks that the Observer of a waiter receives the time for which the refresh
// waited, and the age of the adopted token.
func TestAdoption(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := memstore.NewDriver()
		holder, waiter := &recorder{}, &recorder{}
		open := func(r *recorder) *tokenstore.Store {
			s, err := tokenstore.New(d.Reopen(), &tokenstore.Options{Observer: r.observer()})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		one, other := open(holder), open(waiter)
		saved := record(t, one)
		minting := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := one.Refresh(t.Context(), saved.ID, saved.AccessToken, func(ctx context.Context, _ tokenstore.Token) (tokenstore.Token, error) {
				close(minting)
				<-time.After(2 * time.Second)
				return minted("new"), nil
			}); err != nil {
				t.Error(err)
			}
		})
		<-minting
		wg.Go(func() {
			if _, err := other.Refresh(t.Context(), saved.ID, saved.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				t.Error("the waiter asks, too")
				return tokenstore.Token{}, nil
			}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if got := holder.last(); got.Result != observe.ResultMinted || got.Asked != 2*time.Second || got.Waited > time.Second {
			t.Errorf("of the holder: %+v", got)
		}
		got := waiter.last()
		if got.Result != observe.ResultAdopted || got.Asked != 0 || got.Waited < 2*time.Second || got.Lag > 1500*time.Millisecond || got.Waited < got.Lag {
			t.Errorf("of the waiter: %+v", got)
		}
	})
}

// A failing is a driver whose Get and Update return the errors in the fields get and update, if
// these errors are not nil.
type failing struct {
	driver.Secrets
	get, update error
}

func (f *failing) Get(ctx context.Context, name string) (driver.Secret, error) {
	if f.get != nil {
		return driver.Secret{}, f.get
	}
	return f.Secrets.Get(ctx, name)
}

func (f *failing) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if f.update != nil {
		return "", f.update
	}
	return f.Secrets.Update(ctx, name, base, p)
}

func TestFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, f := &recorder{}, &failing{Secrets: memstore.NewDriver()}
		s, err := tokenstore.New(f, &tokenstore.Options{Observer: r.observer()})
		if err != nil {
			t.Fatal(err)
		}
		saved := record(t, s)
		refresh := func(ctx context.Context, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) observe.Refreshed {
			_, _ = s.Refresh(ctx, saved.ID, saved.AccessToken, mint)
			return r.last()
		}
		answer := func(context.Context, tokenstore.Token) (tokenstore.Token, error) { return minted("new"), nil }

		f.get = fmt.Errorf("%w: canary", driver.ErrThrottled)
		if got := refresh(t.Context(), answer); got.Result != observe.ResultFailed || got.Class != observe.ClassThrottled || got.Waited < 30*time.Second {
			t.Errorf("throttled: %+v", got)
		}
		if got := r.operations(); !slices.Contains(got, "get:throttled") {
			t.Errorf("the calls are %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := refresh(ctx, answer); got.Result != observe.ResultCanceled || got.Class != observe.ClassDeadline {
			t.Errorf("canceled: %+v", got)
		}
		f.get = errors.New("canary: no class")
		if got := refresh(t.Context(), answer); got.Result != observe.ResultFailed || got.Class != observe.ClassOther {
			t.Errorf("without a class: %+v", got)
		}
		f.get = nil
		late := func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			f.update = fmt.Errorf("%w: canary", driver.ErrDenied)
			return minted("new"), nil
		}
		if got := refresh(t.Context(), late); got.Result != observe.ResultNotPersisted || got.Class != observe.ClassDenied {
			t.Errorf("not stored: %+v", got)
		}
		f.update = nil
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of mint is lost")
				}
			}()
			refresh(t.Context(), func(context.Context, tokenstore.Token) (tokenstore.Token, error) { panic("canary") })
		}()
		if got := r.last(); got.Result != observe.ResultUnanswered || r.open != 0 {
			t.Errorf("a panic: %+v, %d open", got, r.open)
		}
		enumerated(t, r)
	})
}

// TestHalfAnObserver checks that a store accepts an Observer that lacks one or both functions.
func TestHalfAnObserver(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	o := r.observer()
	for _, half := range []*observe.Observer{{Refresh: o.Refresh}, {Call: o.Call}, {}} {
		s := memstore.New(&tokenstore.Options{Observer: half})
		saved := record(t, s)
		if _, err := s.Refresh(t.Context(), saved.ID, saved.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			return minted("new"), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.refreshes) != 1 || len(r.calls) == 0 || r.open != 0 {
		t.Errorf("%d refreshes and %d calls are seen, %d open", len(r.refreshes), len(r.calls), r.open)
	}
}

// TestCost checks that observation makes allocations only if the Observer has functions.
func TestCost(t *testing.T) {
	ctx := t.Context()
	allocations := func(o *observe.Observer) (find, refresh float64) {
		s, err := tokenstore.New(&failing{Secrets: memstore.NewDriver()}, &tokenstore.Options{Observer: o})
		if err != nil {
			t.Fatal(err)
		}
		saved, err := s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, AccessToken: "current", ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		find = testing.AllocsPerRun(200, func() {
			if _, err := s.FindTokenByID(ctx, saved.ID); err != nil {
				t.Fatal(err)
			}
		})
		refresh = testing.AllocsPerRun(200, func() {
			if _, err := s.Refresh(ctx, saved.ID, "another", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				return tokenstore.Token{}, nil
			}); err != nil {
				t.Fatal(err)
			}
		})
		return find, refresh
	}
	silent := &observe.Observer{
		Refresh: func(ctx context.Context, _ string) (context.Context, func(observe.Refreshed)) {
			return ctx, func(observe.Refreshed) {}
		},
		Call: func(ctx context.Context, _ observe.Call) (context.Context, func(observe.Called)) {
			return ctx, func(observe.Called) {}
		},
	}
	find, refresh := allocations(nil)
	emptyFind, emptyRefresh := allocations(&observe.Observer{})
	seenFind, seenRefresh := allocations(silent)
	t.Logf("find %v, refresh %v; observed %v, %v", find, refresh, seenFind, seenRefresh)
	if find != emptyFind || refresh != emptyRefresh || seenFind <= find || seenRefresh <= refresh {
		t.Errorf("find %v, %v and %v; refresh %v, %v and %v", find, emptyFind, seenFind, refresh, emptyRefresh, seenRefresh)
	}
}
