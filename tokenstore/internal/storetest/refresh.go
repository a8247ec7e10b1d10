package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Store is one that is both.
type Store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
}

// A Backend is how the cases get at a store.
type Backend struct {
	// Open returns a store on an empty backend, with the clock.
	Open func(t testing.TB, now func() time.Time) Store

	// Reopen returns a second store on what s keeps, as another process has it.
	Reopen func(t testing.TB, s Store, now func() time.Time) Store
}

// A clock is one that tests put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// An issuer is an authorization server.
type issuer struct {
	mu    sync.Mutex
	asked int
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// mint returns an access token that no other call returns.
func (i *issuer) mint(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	return tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprintf("new-%d", i.asked)), ExpiresAt: time.Now().Add(time.Hour)}, nil
}

// refuse is a mint that is refused.
func (i *issuer) refuse(refusal tokenstore.RefreshError) func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
	return func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.asked++
		return tokenstore.Token{}, &refusal
	}
}

// A bench is what a case works with: two handles on a store with a record whose
// access token "old" has expired.
type bench struct {
	testing.TB
	ctx    context.Context
	s, two Store
	clock  clock
	issuer issuer
	id     string
}

// Refresh checks Refresh.
func Refresh(t *testing.T, b Backend) {
	for _, c := range refreshCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			e := &bench{TB: t, ctx: ctx}
			e.s = b.Open(t, e.clock.now)
			e.two = b.Reopen(t, e.s, e.clock.now)
			e.id = e.save(tokenstore.Token{
				UserName: "ann", ClientID: "c1", ClientSecret: "secret", RefreshToken: "refresh", AccessToken: "old", ExpiresAt: time.UnixMilli(1),
			}).ID
			c.run(e)
		})
	}
}

func (e *bench) save(t tokenstore.Token) tokenstore.Token {
	e.Helper()
	saved, err := e.two.SaveToken(e.ctx, t)
	if err != nil {
		e.Fatalf("SaveToken: %v", err)
	}
	return saved
}

// stored checks the access token of the record.
func (e *bench) stored(want tokenstore.Secret) {
	e.Helper()
	got, err := e.two.FindTokenByID(e.ctx, e.id)
	if err != nil {
		e.Fatalf("FindTokenByID: %v", err)
	}
	if got.AccessToken != want || got.RefreshToken == "" {
		e.Errorf("the record has the access token %q and a refresh token of %d bytes, want %q", string(got.AccessToken), len(got.RefreshToken), string(want))
	}
}

// asked checks how often the authorization server was asked.
func (e *bench) asked(want int) {
	e.Helper()
	if got := e.issuer.count(); got != want {
		e.Errorf("the authorization server was asked %d times, want %d", got, want)
	}
}

// refused checks that Refresh returns a refusal with the code.
func (e *bench) refused(s Store, code string) {
	e.Helper()
	_, err := s.Refresh(e.ctx, e.id, "old", e.issuer.mint)
	if refused, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || refused.Code != code {
		e.Errorf("Refresh returned error %v, want the refusal %q", err, code)
	}
}

// fresh checks that Refresh returns a new token.
func (e *bench) fresh(s Store) tokenstore.Token {
	e.Helper()
	t, err := s.Refresh(e.ctx, e.id, "old", e.issuer.mint)
	if err != nil {
		e.Fatalf("Refresh: %v", err)
	}
	if t.AccessToken == "old" || t.AccessToken == "" || t.RefreshToken == "" || t.ID != e.id {
		e.Errorf("Refresh returned the access token %q of the record %q", string(t.AccessToken), t.ID)
	}
	return t
}

var refreshCases = []struct {
	name string
	run  func(e *bench)
}{
	{"of the goroutines of two processes one asks", func(e *bench) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				t, err := []Store{e.s, e.two}[i%2].Refresh(e.ctx, e.id, "old", e.issuer.mint)
				if err != nil || t.AccessToken != "new-1" {
					e.Errorf("Refresh returned the access token %q and error %v", string(t.AccessToken), err)
				}
			})
		}
		wg.Wait()
		e.asked(1)
		e.stored("new-1")
	}},
	{"a fresh token that is there already is returned", func(e *bench) {
		e.save(tokenstore.Token{ID: e.id, AccessToken: "newer", ExpiresAt: time.Now().Add(time.Hour)})
		if t := e.fresh(e.s); t.AccessToken != "newer" {
			e.Errorf("Refresh returned the access token %q", string(t.AccessToken))
		}
		e.asked(0)
	}},
	{"an unknown ID is not found, and nobody is asked", func(e *bench) {
		if _, err := e.s.Refresh(e.ctx, "4711", "old", e.issuer.mint); !errors.Is(err, tokenstore.ErrNotFound) {
			e.Errorf("Refresh returned error %v, want %q", err, tokenstore.ErrNotFound)
		}
		if _, err := e.s.Refresh(e.ctx, "", "old", e.issuer.mint); !errors.Is(err, tokenstore.ErrInvalidToken) {
			e.Errorf("Refresh of no ID returned error %v, want %q", err, tokenstore.ErrInvalidToken)
		}
		e.asked(0)
	}},
	{"the store is not locked while mint runs", func(e *bench) {
		_, err := e.s.Refresh(e.ctx, e.id, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			for _, s := range []Store{e.s, e.two} {
				if _, err := s.SaveToken(ctx, tokenstore.Token{UserName: "bob", RefreshToken: tokenstore.Secret(fmt.Sprintf("%p", s))}); err != nil {
					return t, err
				}
				if _, err := s.SaveToken(ctx, tokenstore.Token{ID: e.id, APIDomain: fmt.Sprintf("https://%p.example", s)}); err != nil {
					return t, err
				}
			}
			return e.issuer.mint(ctx, t)
		})
		if err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		e.stored("new-1")
		if t, err := e.s.FindTokenByID(e.ctx, e.id); err != nil || t.APIDomain == "" {
			e.Errorf("what was saved while mint ran is %q, error %v", t.APIDomain, err)
		}
	}},
	{"records are refreshed at the same time", func(e *bench) {
		other := e.save(tokenstore.Token{UserName: "bob", RefreshToken: "r2", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
		_, err := e.s.Refresh(e.ctx, e.id, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			if _, err := e.two.Refresh(ctx, other.ID, "old", e.issuer.mint); err != nil {
				return t, err
			}
			return e.issuer.mint(ctx, t)
		})
		if err != nil {
			e.Errorf("Refresh: %v", err)
		}
		e.asked(2)
	}},
	{"a permanent refusal is kept until the credentials change", func(e *bench) {
		_, err := e.s.Refresh(e.ctx, e.id, "old", e.issuer.refuse(tokenstore.RefreshError{Code: "invalid_code", Permanent: true}))
		if refused, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || !refused.Permanent {
			e.Fatalf("Refresh returned error %v, want a permanent refusal", err)
		}
		e.clock.forward(24 * time.Hour)
		e.refused(e.two, "invalid_code")
		e.refused(e.s, "invalid_code")
		e.asked(1)
		e.save(tokenstore.Token{ID: e.id, RefreshToken: "refresh-2"})
		e.clock.forward(-24 * time.Hour)
		e.fresh(e.two)
		e.asked(2)
	}},
	{"a temporary refusal is kept for its time", func(e *bench) {
		_, _ = e.s.Refresh(e.ctx, e.id, "old", e.issuer.refuse(tokenstore.RefreshError{Code: "Access Denied"}))
		e.clock.forward(9 * time.Minute)
		e.refused(e.two, "Access Denied")
		e.asked(1)
		e.clock.forward(2 * time.Minute)
		e.fresh(e.two)
		e.asked(2)
	}},
	{"a refusal of the client is not kept", func(e *bench) {
		_, _ = e.s.Refresh(e.ctx, e.id, "old", e.issuer.refuse(tokenstore.RefreshError{Code: "invalid_client", Permanent: true}))
		e.fresh(e.two)
		e.asked(2)
	}},
	{"a refusal is forgotten with its record", func(e *bench) {
		_, _ = e.s.Refresh(e.ctx, e.id, "old", e.issuer.refuse(tokenstore.RefreshError{Code: "invalid_code", Permanent: true}))
		if err := e.two.DeleteToken(e.ctx, e.id); err != nil {
			e.Fatal(err)
		}
		e.save(tokenstore.Token{ID: e.id, UserName: "ann", ClientID: "c1", ClientSecret: "secret", RefreshToken: "refresh", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
		e.fresh(e.s)
		e.asked(2)
	}},
	{"a record that is deleted while mint runs is not created again", func(e *bench) {
		t, err := e.s.Refresh(e.ctx, e.id, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			if err := e.two.DeleteToken(ctx, e.id); err != nil {
				return t, err
			}
			return e.issuer.mint(ctx, t)
		})
		if !errors.Is(err, tokenstore.ErrNotPersisted) || t.AccessToken != "new-1" || t.RefreshToken != "refresh" {
			e.Errorf("Refresh returned the access token %q and error %v, want the new one and %q", string(t.AccessToken), err, tokenstore.ErrNotPersisted)
		}
		if _, err := e.two.FindTokenByID(e.ctx, e.id); !errors.Is(err, tokenstore.ErrNotFound) {
			e.Errorf("after that FindTokenByID returned error %v, want %q", err, tokenstore.ErrNotFound)
		}
	}},
	{"credentials that were replaced while mint ran are tried anew", func(e *bench) {
		first := true
		t, err := e.s.Refresh(e.ctx, e.id, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			if first {
				first = false
				if _, err := e.two.SaveToken(ctx, tokenstore.Token{ID: e.id, RefreshToken: "refresh-2"}); err != nil {
					return t, err
				}
			} else if t.RefreshToken != "refresh-2" {
				e.Errorf("mint was called again with the old refresh token")
			}
			return e.issuer.mint(ctx, t)
		})
		if err != nil || t.AccessToken != "new-2" || t.RefreshToken != "refresh-2" {
			e.Errorf("Refresh returned the access token %q and error %v, want that of the second call", string(t.AccessToken), err)
		}
		e.stored("new-2")
	}},
	{"a token that somebody else stored while mint ran is adopted", func(e *bench) {
		t, err := e.s.Refresh(e.ctx, e.id, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			_, err := e.two.SaveToken(ctx, tokenstore.Token{ID: e.id, RefreshToken: "refresh-2", AccessToken: "theirs", ExpiresAt: time.Now().Add(2 * time.Hour)})
			if err != nil {
				return t, err
			}
			return e.issuer.mint(ctx, t)
		})
		if err != nil || t.AccessToken != "theirs" {
			e.Errorf("Refresh returned the access token %q and error %v, want the other one", string(t.AccessToken), err)
		}
		e.stored("theirs")
	}},
	{"what mint has brought is stored though the caller has gone", func(e *bench) {
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		_, err := e.s.Refresh(ctx, e.id, "old", func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			cancel()
			return e.issuer.mint(ctx, t)
		})
		if err != nil {
			e.Errorf("Refresh: %v", err)
		}
		e.stored("new-1")
	}},
	{"a caller that goes does not take the others with it", func(e *bench) {
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		begun := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := e.s.Refresh(ctx, e.id, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
				close(begun)
				<-ctx.Done()
				return t, ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				e.Errorf("Refresh of who has gone returned error %v, want %q", err, context.Canceled)
			}
		})
		<-begun
		for _, s := range []Store{e.s, e.two} {
			wg.Go(func() {
				if t, err := s.Refresh(e.ctx, e.id, "old", e.issuer.mint); err != nil || t.AccessToken != "new-1" {
					e.Errorf("Refresh of who stays returned the access token %q and error %v", string(t.AccessToken), err)
				}
			})
		}
		wg.Go(func() {
			gone, leave := context.WithCancel(e.ctx)
			leave()
			if _, err := e.s.Refresh(gone, e.id, "old", e.issuer.mint); !errors.Is(err, context.Canceled) {
				e.Errorf("Refresh whose context is done returned error %v, want %q", err, context.Canceled)
			}
		})
		cancel()
		wg.Wait()
		e.asked(1)
	}},
	{"a result that the store cannot hold is returned all the same", func(e *bench) {
		long := tokenstore.Secret(strings.Repeat("x", 33<<10))[:32<<10]
		t, err := e.s.Refresh(e.ctx, e.id, "old", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			return tokenstore.Token{AccessToken: long, RefreshToken: long, GrantToken: long, ExpiresAt: time.Now().Add(time.Hour)}, nil
		})
		if !errors.Is(err, tokenstore.ErrNotPersisted) || t.AccessToken != long {
			e.Errorf("Refresh returned an access token of %d bytes and error %v, want %q", len(t.AccessToken), err, tokenstore.ErrNotPersisted)
		}
		e.stored("old")
	}},
}

// RefreshOnce is what a process does in the test that one of several asks: some
// goroutines refresh the record, and each call of mint adds a line to the log.
func RefreshOnce(s Store, id, log string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const goroutines = 4
	errs := make(chan error, goroutines)
	for range goroutines {
		go func() {
			t, err := s.Refresh(ctx, id, "old", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				return tokenstore.Token{AccessToken: "new", ExpiresAt: time.Now().Add(time.Hour)}, note(log)
			})
			if err == nil && t.AccessToken != "new" {
				err = fmt.Errorf("Refresh returned the access token %q", string(t.AccessToken))
			}
			errs <- err
		}()
	}
	var all error
	for range goroutines {
		all = errors.Join(all, <-errs)
	}
	return all
}

func note(log string) error {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("asked\n")
	return errors.Join(err, f.Close())
}

// Asked checks that one of all processes has asked.
func Asked(t *testing.T, log string) {
	t.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "\n"); n != 1 {
		t.Errorf("the authorization server was asked %d times, want once", n)
	}
}
