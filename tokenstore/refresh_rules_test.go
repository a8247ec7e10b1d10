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

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// plainly is a driver that is no Leaser, though the one it is made of may be.
type plainly struct {
	driver.Secrets
	daily int
	fail  *atomic.Bool // its writes fail
	gets  *atomic.Int64
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

// leases runs f with leases in records and with leases in notes, each in a
// bubble of its own.
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

// process returns a store as another process has it, whose clock is off.
func process(t *testing.T, d driver.Secrets, off time.Duration) *tokenstore.Store {
	t.Helper()
	s, err := tokenstore.New(d, &tokenstore.Options{LeaseTTL: ttl, Now: func() time.Time { return time.Now().Add(off) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expiredRecord saves a record whose access token has expired.
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

// dying takes the lease and never gives it back, as a process does that is killed.
func dying(t *testing.T, s *tokenstore.Store, id string) {
	t.Helper()
	var dead sync.WaitGroup
	dead.Go(func() {
		_, _ = s.Refresh(t.Context(), id, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			runtime.Goexit()
			panic("unreachable")
		})
	})
	dead.Wait()
}

// pass lets time pass in the bubble.
func pass(d time.Duration) { <-time.After(d) }

func TestALeaseIsTakenOverWhenItWasWatchedForItsTime(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		for _, off := range []time.Duration{0, 2 * time.Minute, -2 * time.Minute} {
			saved := expiredRecord(t, process(t, d, 0))
			dying(t, process(t, d, 0), saved.ID)
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

func TestALeaseThatIsLongOverIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		dying(t, process(t, d, 0), saved.ID)
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

// The instances' clocks differ by four minutes, and still one of them mints.
func TestClocksThatDifferLetOneMint(t *testing.T) {
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

// A waiter reads twice at most after the holder has committed, and every half
// second at most before.
func TestWaitersPollSeldom(t *testing.T) {
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
		if waited > 10*time.Second+500*time.Millisecond {
			t.Errorf("the waiter returned %v after the commit", waited-10*time.Second)
		}
	})
}

func TestMintsContextEndsBeforeTheLease(t *testing.T) {
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
		// The lease was given back: nobody has to wait.
		begun = time.Now()
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the next refresh took %v", took)
		}
	})
}

func TestARefusalCountsForItsTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		refusal tokenstore.RefreshError
		until   time.Duration // it is worth trying again
	}{
		{"throttled without a time", tokenstore.RefreshError{Code: "Access Denied"}, 10 * time.Minute},
		{"throttled for a shorter time", tokenstore.RefreshError{Code: "Access Denied", RetryAfter: time.Minute}, 10 * time.Minute},
		{"throttled for a longer time", tokenstore.RefreshError{Code: "Access Denied", RetryAfter: 15 * time.Minute}, 15 * time.Minute},
		{"for a time", tokenstore.RefreshError{Code: "slow_down", RetryAfter: 3 * time.Minute}, 3 * time.Minute},
		{"for too long a time", tokenstore.RefreshError{Code: "slow_down", RetryAfter: 50 * time.Hour}, 30 * time.Minute},
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

func TestRefusalsInARowCountLongerAndLonger(t *testing.T) {
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

func TestAPermanentRefusalJustAfterATakeOverIsTemporary(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		dying(t, process(t, d, 0), saved.ID)
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

func TestATokenThatCannotBeStoredIsReturned(t *testing.T) {
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

// A service that keeps a hundred states a day gets two a refresh while that lasts,
// then one, and in the end none.
func TestADaysWritesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := memstore.NewDriver()
		d := plainly{Secrets: mem, daily: 100}
		saved := expiredRecord(t, process(t, d, 0))
		writes := func() int {
			secret, err := mem.Get(t.Context(), saved.ID)
			if err != nil {
				t.Fatal(err)
			}
			record, err := codec.JSON.Decode(saved.ID, secret.Data)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, w := range record.Writes {
				n += w
			}
			return n
		}
		refresh := func(n int) error {
			stale := saved.AccessToken
			got, err := process(t, d, 0).Refresh(t.Context(), saved.ID, stale, answer(fmt.Sprint("access", n)))
			if got.AccessToken == "" || got.AccessToken == stale {
				t.Fatalf("refresh %d: no token: %v", n, err)
			}
			if err == nil {
				saved = got
			}
			return err
		}
		// From the 61st write on a refresh is one, from the 91st on none.
		for n := 1; writes() < 91; n++ {
			before := writes()
			if err := refresh(n); err != nil {
				t.Fatalf("refresh %d, after %d writes: %v", n, before, err)
			}
			want := 2
			if before > 60 {
				want = 1
			}
			if got := writes() - before; got != want {
				t.Errorf("after %d writes a refresh made %d, want %d", before, got, want)
			}
			pass(time.Minute)
		}
		if err := refresh(1000); !errors.Is(err, tokenstore.ErrNotPersisted) {
			t.Errorf("after %d writes: %v", writes(), err)
		}
		pass(25 * time.Hour)
		if err := refresh(2000); err != nil {
			t.Errorf("a day later: %v", err)
		}
		if n := writes(); n != 2 {
			t.Errorf("a day later %d writes are counted, want 2", n)
		}
	})
}

func TestAMintThatPanicsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		func() {
			defer func() {
				if p := recover(); p != "mint" {
					t.Errorf("recovered %v", p)
				}
			}()
			_, _ = process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				panic("mint")
			})
		}()
		begun := time.Now()
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the next refresh took %v", took)
		}
	})
}

// outpaced is a driver whose updates lose, and may hang.
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

func TestARefreshThatAlwaysLosesGivesUp(t *testing.T) {
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

// What was not stored in time is as good for those who wait in the same process:
// none of them asks again, which a server that rotates refresh tokens would punish.
func TestATokenThatCouldNotBeStoredInTimeIsSharedWithWhoeverWaits(t *testing.T) {
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

// A refresh without a lease proves by a read that what it was told is the newest.
func TestAStaleReadDoesNotMintWithWhatWasReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &staleReads{plainly: plainly{Secrets: memstore.NewDriver(), daily: 10}}
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		for i := range 6 {
			if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: saved.ID, APIDomain: fmt.Sprint("https://", i)}); err != nil {
				t.Fatal(err)
			}
		}
		old, err := d.Get(t.Context(), saved.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil {
			t.Fatal(err)
		}
		d.old.Store(&old)
		got, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", uncalled(t))
		if err != nil || got.AccessToken != "access1" {
			t.Errorf("Refresh: %v", err)
		}
	})
}

// staleReads is a driver whose Get may be out of date.
type staleReads struct {
	plainly
	old atomic.Pointer[driver.Secret]
}

func (s *staleReads) Properties() driver.Properties {
	p := s.plainly.Properties()
	p.ReadLag = driver.Unbounded
	return p
}

func (s *staleReads) Get(ctx context.Context, name string) (driver.Secret, error) {
	if old := s.old.Load(); old != nil {
		return *old, nil
	}
	return s.plainly.Get(ctx, name)
}

func TestARefusalIsKeptThoughThereIsNoRoomForALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := plainly{Secrets: memstore.NewDriver(), daily: 10}
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		for i := range 6 {
			if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: saved.ID, APIDomain: fmt.Sprint("https://", i)}); err != nil {
				t.Fatal(err)
			}
		}
		throttled := refusing(tokenstore.RefreshError{Code: "Access Denied"})
		if _, err := s.Refresh(t.Context(), saved.ID, "access0", throttled); err == nil {
			t.Fatal("no error")
		}
		_, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", uncalled(t))
		if kept, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || kept.Code != "Access Denied" {
			t.Errorf("Refresh: %v", err)
		}
	})
}
