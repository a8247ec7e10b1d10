package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A plainly is a driver that hides the method Note of the driver that it wraps.
type plainly struct {
	driver.Secrets
	daily int           // DailyWrites
	fail  *atomic.Bool  // whether updates fail; nil means that updates do not fail
	gets  *atomic.Int64 // counts the calls of Get, unless nil
}

func (p plainly) Properties() driver.Properties {
	props := p.Secrets.Properties()
	props.DailyWrites = p.daily
	return props
}

func (p plainly) Get(ctx context.Context, name string) (driver.Secret, error) {
	if p.gets != nil {
		p.gets.Add(1)
	}
	return p.Secrets.Get(ctx, name)
}

func (p plainly) Update(ctx context.Context, name string, base driver.Secret, payload driver.Payload) (driver.Version, error) {
	if p.fail != nil && p.fail.Load() {
		return "", fmt.Errorf("update %q: %w", name, driver.ErrUnavailable)
	}
	return p.Secrets.Update(ctx, name, base, payload)
}

// leases runs f with leases in records and with leases in notes, each in a separate bubble of
// package synctest.
func leases(t *testing.T, f func(t *testing.T, d driver.Secrets)) {
	t.Helper()
	for name, of := range map[string]func(*memstore.Driver) driver.Secrets{
		"in records": func(d *memstore.Driver) driver.Secrets { return plainly{Secrets: d} },
		"in notes":   func(d *memstore.Driver) driver.Secrets { return d },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { f(t, of(memstore.NewDriver())) })
		})
	}
}

const ttl = 30 * time.Second

// process returns a Store for a further process with a clock that is ahead by off.
func process(t *testing.T, d driver.Secrets, off time.Duration) *tokenstore.Store {
	t.Helper()
	s, err := tokenstore.New(d, &tokenstore.Options{LeaseTTL: ttl, Now: func() time.Time { return time.Now().Add(off) }})
	if err != nil {
		t.Fatal(err)
	}
	s.Punctually()
	return s
}

func expiredRecord(t *testing.T, s *tokenstore.Store) tokenstore.Token {
	t.Helper()
	saved, err := s.SaveToken(t.Context(), tokenstore.Token{
		UserName: user, ClientID: client, ClientSecret: "secret", RefreshToken: "refresh0", AccessToken: "access0",
		ExpiresAt: time.Now().Add(-time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

type mintFunc = func(context.Context, tokenstore.Token) (tokenstore.Token, error)

func answer(access string) mintFunc {
	return func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{AccessToken: tokenstore.Secret(access), ExpiresAt: time.Now().Add(time.Hour)}, nil
	}
}

func refusing(e tokenstore.RefreshError) mintFunc {
	return func(context.Context, tokenstore.Token) (tokenstore.Token, error) { return tokenstore.Token{}, &e }
}

func uncalled(t *testing.T) mintFunc {
	return func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		t.Helper()
		t.Error("mint is called")
		return tokenstore.Token{}, errors.New("called")
	}
}

type killable struct {
	driver.Leaser
	killed *atomic.Bool
}

// killables returns a driver like d, and a flag. While the flag is set, updates and notes
// through the driver fail, like those of a dead process.
func killables(d driver.Secrets) (driver.Secrets, *atomic.Bool) {
	killed := new(atomic.Bool)
	if l, ok := d.(driver.Leaser); ok {
		return killable{l, killed}, killed
	}
	return plainly{Secrets: d, fail: killed}, killed
}

func (m killable) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	if m.killed.Load() {
		return fmt.Errorf("note %q: %w", name, driver.ErrUnavailable)
	}
	return m.Leaser.Note(ctx, name, base, note)
}

func (m killable) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if m.killed.Load() {
		return "", fmt.Errorf("update %q: %w", name, driver.ErrUnavailable)
	}
	return m.Leaser.Update(ctx, name, base, p)
}

// dying takes the lease on the record, and never gives the lease back, like a process that is
// killed.
func dying(t *testing.T, d driver.Secrets, id string) { dyingWithin(t.Context(), t, d, id) }

// dyingWithin is like dying, but passes a context derived from ctx to Refresh.
func dyingWithin(ctx context.Context, t *testing.T, d driver.Secrets, id string) {
	t.Helper()
	m, killed := killables(d)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := process(t, m, 0)
	minted := false
	var gone sync.WaitGroup
	gone.Go(func() {
		_, _ = s.Refresh(ctx, id, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			minted = true
			killed.Store(true)
			cancel()
			runtime.Goexit()
			panic("unreachable")
		})
	})
	gone.Wait()
	if !minted {
		t.Fatal("the process died without the lease")
	}
}

// pass lets the duration d pass on the clock of the synctest bubble.
func pass(d time.Duration) { <-time.After(d) }

func TestLeaseTakeOver(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		for _, off := range []time.Duration{0, 2 * time.Minute, -2 * time.Minute} {
			saved := expiredRecord(t, process(t, d, 0))
			dying(t, d, saved.ID)
			begun := time.Now()
			got, err := process(t, d, off).Refresh(t.Context(), saved.ID, "access0", answer("access1"))
			if err != nil || got.AccessToken != "access1" {
				t.Fatalf("Refresh: %v", err)
			}
			if waited := time.Since(begun); waited < ttl || waited > ttl*3/2 {
				t.Errorf("with a clock that is off by %v it took over after %v, want %v", off, waited, ttl)
			}
			if err := process(t, d, 0).DeleteToken(t.Context(), saved.ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestLeaseLongOver(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		dying(t, d, saved.ID)
		pass(ttl + 5*time.Minute)
		begun := time.Now()
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begun); waited > time.Second {
			t.Errorf("it took over after %v", waited)
		}
	})
}

// TestLeaseClocks checks that only one process calls mint if the clocks of the processes
// differ by up to four minutes.
func TestLeaseClocks(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		var calls atomic.Int64
		var all sync.WaitGroup
		for i := range 20 {
			s := process(t, d, time.Duration(i%3-1)*2*time.Minute)
			all.Go(func() {
				_, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
					calls.Add(1)
					pass(20 * time.Second)
					return answer("access1")(ctx, u)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls of mint", n)
		}
	})
}

// TestLeaseWaiters checks that a waiter returns at most 1.5 seconds after the holder's mint,
// and reads the record at most twice in this time.
func TestLeaseWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := memstore.NewDriver()
		saved := expiredRecord(t, process(t, mem, 0))
		var holding, all sync.WaitGroup
		holding.Add(1)
		var polls atomic.Int64
		all.Go(func() {
			_, err := process(t, plainly{Secrets: mem}, 0).Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
				holding.Done()
				pass(10 * time.Second)
				polls.Store(0)
				return answer("access1")(ctx, u)
			})
			if err != nil {
				t.Error(err)
			}
		})
		holding.Wait()
		begun := time.Now()
		s := process(t, plainly{Secrets: mem, gets: &polls}, 0)
		if _, err := s.Refresh(t.Context(), saved.ID, "access0", uncalled(t)); err != nil {
			t.Error(err)
		}
		waited := time.Since(begun)
		all.Wait()
		if n := polls.Load(); n > 2 {
			t.Errorf("%d reads after the commit, want 2 at most", n)
		}
		if waited > 10*time.Second+1500*time.Millisecond {
			t.Errorf("the waiter returned %v after the commit", waited-10*time.Second)
		}
	})
}

func TestLeaseMintContext(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		begun := time.Now()
		_, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, _ tokenstore.Token) (tokenstore.Token, error) {
			<-ctx.Done()
			return tokenstore.Token{}, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Refresh: %v", err)
		}
		if took := time.Since(begun); took != ttl-5*time.Second {
			t.Errorf("mint was stopped after %v", took)
		}
		// The lease was released, so no process has to wait.
		begun = time.Now()
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the next refresh took %v", took)
		}
	})
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		refusal tokenstore.RefreshError
		until   time.Duration // how long the refusal counts
	}{
		{"throttled without a time", tokenstore.RefreshError{Code: "Access Denied"}, 10 * time.Minute},
		{"throttled for a shorter time", tokenstore.RefreshError{Code: "Access Denied", RetryAfter: time.Minute}, 10 * time.Minute},
		{"throttled for a longer time", tokenstore.RefreshError{Code: "Access Denied", RetryAfter: 15 * time.Minute}, 15 * time.Minute},
		{"for a time", tokenstore.RefreshError{Code: "slow_down", RetryAfter: 3 * time.Minute}, 3 * time.Minute},
		{"for days", tokenstore.RefreshError{Code: "slow_down", RetryAfter: 50 * time.Hour}, 50 * time.Hour},
		{"temporary", tokenstore.RefreshError{Code: "server_error"}, time.Second},
		{"of the client", tokenstore.RefreshError{Code: "invalid_client", Permanent: true}, 0},
		{"of the client's secret", tokenstore.RefreshError{Code: "invalid_client_secret"}, 0},
		{"of the client, by another code", tokenstore.RefreshError{Code: "redirect_uri_mismatch", Client: true}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", refusing(c.refusal)); err == nil {
					t.Fatal("no error")
				}
				if c.until > 0 {
					pass(c.until - 100*time.Millisecond)
					_, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", uncalled(t))
					kept, ok := errors.AsType[*tokenstore.RefreshError](err)
					if !ok || kept.Code != c.refusal.Code || kept.Permanent {
						t.Errorf("just before it is worth trying: %v", err)
					}
					pass(200 * time.Millisecond)
				}
				if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
					t.Errorf("when it is worth trying: %v", err)
				}
			})
		})
	}
}

func TestRefusalsInARow(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		want := time.Second
		for range 14 {
			_, _ = process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", refusing(tokenstore.RefreshError{Code: "server_error"}))
			_, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", uncalled(t))
			kept, ok := errors.AsType[*tokenstore.RefreshError](err)
			if !ok || kept.RetryAfter > want || kept.RetryAfter < want-time.Second {
				t.Fatalf("want a refusal for %v: %v", want, err)
			}
			pass(kept.RetryAfter)
			want = min(2*want, 30*time.Minute)
		}
		if want != 30*time.Minute {
			t.Errorf("the longest is %v", want)
		}
	})
}

func TestRefusalAfterTakeOver(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		dying(t, d, saved.ID)
		dead := refusing(tokenstore.RefreshError{Code: "invalid_grant", Permanent: true})
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", dead); err == nil {
			t.Fatal("no error")
		}
		_, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", uncalled(t))
		kept, ok := errors.AsType[*tokenstore.RefreshError](err)
		if !ok || kept.Permanent || kept.RetryAfter > ttl {
			t.Errorf("the refusal that is kept: %v", err)
		}
		pass(ttl)
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", dead); err == nil {
			t.Fatal("no error")
		}
		pass(time.Hour)
		_, err = process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", uncalled(t))
		if kept, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || !kept.Permanent {
			t.Errorf("the second refusal: %v", err)
		}
	})
}

func TestRefreshNotPersisted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem, down := memstore.NewDriver(), new(atomic.Bool)
		s := process(t, plainly{Secrets: mem, fail: down}, 0)
		saved := expiredRecord(t, s)
		begun := time.Now()
		got, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
			down.Store(true)
			return answer("access1")(ctx, u)
		})
		if !errors.Is(err, tokenstore.ErrNotPersisted) || !errors.Is(err, tokenstore.ErrUnavailable) || got.AccessToken != "access1" {
			t.Errorf("Refresh: %v", err)
		}
		if took := time.Since(begun); took > ttl+time.Second {
			t.Errorf("it tried for %v", took)
		}
		down.Store(false)
		got, err = process(t, plainly{Secrets: mem}, 0).Refresh(t.Context(), saved.ID, "access0", answer("access2"))
		if err != nil || got.AccessToken != "access2" {
			t.Errorf("the next Refresh: %v", err)
		}
	})
}

// writesOf returns the number of writes that the record counts.
func writesOf(t *testing.T, d driver.Secrets, id string) int {
	t.Helper()
	secret, err := d.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	record, err := stored.Decode(secret.Data)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, w := range record.Writes {
		n += w
	}
	return n
}

// TestDailyWrites checks that a refresh makes two writes on a service that accepts a
// hundred states a day. If too few writes are left, Refresh must not call mint.
func TestDailyWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := plainly{Secrets: memstore.NewDriver(), daily: 100}
		saved := expiredRecord(t, process(t, d, 0))
		for n := 1; writesOf(t, d, saved.ID) <= 94; n++ {
			before := writesOf(t, d, saved.ID)
			got, err := process(t, d, 0).Refresh(t.Context(), saved.ID, saved.AccessToken, answer(fmt.Sprint("access", n)))
			if err != nil {
				t.Fatalf("refresh %d, after %d writes: %v", n, before, err)
			}
			saved = got
			if made := writesOf(t, d, saved.ID) - before; made != 2 {
				t.Errorf("after %d writes a refresh made %d, want 2", before, made)
			}
			pass(time.Minute)
		}
		for range 3 {
			if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, saved.AccessToken, uncalled(t)); !errors.Is(err, tokenstore.ErrUnavailable) {
				t.Errorf("after %d writes: %v", writesOf(t, d, saved.ID), err)
			}
		}
		pass(25 * time.Hour)
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, saved.AccessToken, answer("tomorrow")); err != nil {
			t.Errorf("a day later: %v", err)
		}
		if n := writesOf(t, d, saved.ID); n != 2 {
			t.Errorf("a day later %d writes are counted, want 2", n)
		}
	})
}

// A rotating is an authorization server that replaces the refresh token at each use, and
// treats a second use of a refresh token as theft.
type rotating struct {
	mu      sync.Mutex
	n       int
	asked   int
	revoked bool
}

func (r *rotating) mint(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.revoked = r.revoked || t.RefreshToken != tokenstore.Secret(fmt.Sprint("refresh", r.n)); r.revoked {
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}
	}
	r.n++
	return tokenstore.Token{
		AccessToken: tokenstore.Secret(fmt.Sprint("access", r.n)), RefreshToken: tokenstore.Secret(fmt.Sprint("refresh", r.n)),
		ExpiresAt: time.Now().Add(time.Hour),
	}, nil
}

// TestDailyWritesOfSaves checks that at most one process calls mint and that its result is
// stored, for each number of writes that saves have used up.
func TestDailyWritesOfSaves(t *testing.T) {
	t.Parallel()
	for saves := range 100 {
		synctest.Test(t, func(t *testing.T) {
			d := plainly{Secrets: memstore.NewDriver(), daily: 100}
			saved := expiredRecord(t, process(t, d, 0))
			for i := range saves {
				if _, err := process(t, d, 0).SaveToken(t.Context(), tokenstore.Token{ID: saved.ID, APIDomain: fmt.Sprint("https://", i)}); err != nil {
					t.Fatal(err)
				}
			}
			var server rotating
			var all sync.WaitGroup
			for range 4 {
				s := process(t, d, 0)
				all.Go(func() {
					got, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
						pass(300 * time.Millisecond)
						return server.mint(ctx, u)
					})
					if err == nil && got.AccessToken != "access1" || err != nil && (!errors.Is(err, tokenstore.ErrUnavailable) || errors.Is(err, tokenstore.ErrNotPersisted)) {
						t.Errorf("after %d saves: Refresh: %v", saves, err)
					}
				})
			}
			all.Wait()
			now, err := process(t, d, 0).FindTokenByID(t.Context(), saved.ID)
			if err != nil || server.revoked || server.asked > 1 || now.RefreshToken != tokenstore.Secret(fmt.Sprint("refresh", server.n)) {
				t.Errorf("after %d saves: %d requests, revoked: %v, the record has the server's refresh token: %v, error %v",
					saves, server.asked, server.revoked, now.RefreshToken == tokenstore.Secret(fmt.Sprint("refresh", server.n)), err)
			}
			if saves <= 90 && server.asked != 1 {
				t.Errorf("after %d saves there was no refresh", saves)
			}
		})
	}
}

// An outpaced is a driver whose updates fail with ErrConflict while lose is set. While hang is
// set, updates wait until their context is done.
type outpaced struct {
	driver.Secrets
	lose, hang atomic.Bool
	updates    atomic.Int64
}

func (c *outpaced) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	c.updates.Add(1)
	if c.hang.Load() {
		<-ctx.Done()
		return "", ctx.Err()
	}
	if c.lose.Load() {
		return "", fmt.Errorf("update %q: %w", name, driver.ErrConflict)
	}
	return c.Secrets.Update(ctx, name, base, p)
}

func TestRefreshLoses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &outpaced{Secrets: memstore.NewDriver()}
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		d.lose.Store(true)
		if _, err := s.Refresh(t.Context(), saved.ID, "access0", uncalled(t)); !errors.Is(err, tokenstore.ErrConflict) {
			t.Errorf("Refresh: %v", err)
		}
		if n := d.updates.Load(); n != 100 {
			t.Errorf("%d updates, want 100", n)
		}
	})
}

// TestRefreshNotPersistedWaiters checks that waiters in the same process get a result that
// was not stored in time. If a waiter called mint again, the refresh token would be used twice.
func TestRefreshNotPersistedWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &outpaced{Secrets: memstore.NewDriver()}
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		var calls atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				got, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
					calls.Add(1)
					pass(time.Second)
					d.hang.Store(true)
					return answer("access1")(ctx, u)
				})
				if !errors.Is(err, tokenstore.ErrNotPersisted) || errors.Is(err, context.DeadlineExceeded) || got.AccessToken != "access1" {
					t.Errorf("Refresh: token %t, error %v", got.AccessToken == "access1", err)
				}
			})
		}
		all.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls of mint", n)
		}
	})
}
