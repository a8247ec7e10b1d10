package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// untilFresh calls Refresh repeatedly until a call returns a fresh token, and returns the total
// duration of the calls. Each call uses a Store that open returns, and times out after deadline.
func untilFresh(t *testing.T, open func() *tokenstore.Store, id string, deadline time.Duration) time.Duration {
	t.Helper()
	begun := time.Now()
	for time.Since(begun) < 10*time.Minute {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		got, err := open().Refresh(ctx, id, "access0", answer("access1"))
		cancel()
		if err == nil {
			if got.AccessToken != "access1" {
				t.Errorf("Refresh returned another token")
			}
			return time.Since(begun)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Refresh: %v", err)
		}
	}
	t.Fatalf("no fresh token in %v", time.Since(begun))
	return 0
}

// TestLeaseDeadlines checks how long repeated calls with a deadline, in one or in several
// processes, wait for the lease of a dead holder.
func TestLeaseDeadlines(t *testing.T) {
	t.Parallel()
	const poll = 500 * time.Millisecond
	for _, deadline := range []time.Duration{3 * time.Second, 10 * time.Second, 29 * time.Second, 40 * time.Second} {
		for _, holder := range []struct {
			name     string
			deadline time.Duration // of the holder's call; 0 means no deadline
			lasts    time.Duration // how long other processes must watch the lease
		}{{"of a holder without one", 0, ttl}, {"of a holder with three seconds", 3 * time.Second, 8 * time.Second}} {
			for _, cold := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, %s, cold %v", deadline, holder.name, cold), func(t *testing.T) {
					t.Parallel()
					leases(t, func(t *testing.T, d driver.Secrets) {
						saved := expiredRecord(t, process(t, d, 0))
						if holder.deadline == 0 {
							dying(t, d, saved.ID)
						} else {
							ctx, cancel := context.WithTimeout(t.Context(), holder.deadline)
							defer cancel()
							dyingWithin(ctx, t, d, saved.ID)
						}
						one := process(t, d, 0)
						open := func() *tokenstore.Store { return one }
						most := holder.lasts + poll
						if cold {
							open = func() *tokenstore.Store { return process(t, d, 0) }
							most += holder.lasts / 8 // a call does not store the last part of its watch
						}
						if took := untilFresh(t, open, saved.ID, deadline); took > most || took < holder.lasts {
							t.Errorf("a fresh token after %v, want %v to %v", took, holder.lasts, most)
						}
					})
				})
			}
		}
	}
}

// TestLeaseHolderDeadline checks that a caller with a deadline gives its lease back before
// the deadline, because its process may end at the deadline.
func TestLeaseHolderDeadline(t *testing.T) {
	t.Parallel()
	for _, deadline := range []time.Duration{3 * time.Second, 29 * time.Second, 40 * time.Second} {
		t.Run(deadline.String(), func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				begun := time.Now()
				ctx, cancel := context.WithDeadline(t.Context(), begun.Add(deadline))
				defer cancel()
				_, err := process(t, d, 0).Refresh(ctx, saved.ID, "access0", func(ctx context.Context, _ tokenstore.Token) (tokenstore.Token, error) {
					<-ctx.Done()
					return tokenstore.Token{}, ctx.Err()
				})
				if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
					t.Errorf("Refresh: %v after %v", err, time.Since(begun))
				}
				if took, most := time.Since(begun), min(deadline, ttl); took < most*5/6-time.Second || took >= most {
					t.Errorf("mint was stopped after %v", took)
				}
				begun = time.Now()
				if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil || time.Since(begun) > 0 {
					t.Errorf("the next Refresh: %v after %v", err, time.Since(begun))
				}
			})
		})
	}
}

// TestLeaseWords checks that many waiters with deadlines make few writes, and that these
// writes do not disturb the holder.
func TestLeaseWords(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		var writes, calls atomic.Int64
		c := counted(d, &writes)
		var all sync.WaitGroup
		held := make(chan struct{})
		all.Go(func() {
			got, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
				calls.Add(1)
				close(held)
				pass(20 * time.Second)
				return answer("access1")(ctx, u)
			})
			if err != nil || got.AccessToken != "access1" {
				t.Errorf("the holder's Refresh: %v", err)
			}
		})
		<-held
		for i := range 20 {
			all.Go(func() {
				pass(time.Duration(i) * 150 * time.Millisecond)
				for {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					got, err := process(t, c, 0).Refresh(ctx, saved.ID, "access0", uncalled(t))
					cancel()
					if err == nil {
						if got.AccessToken != "access1" {
							t.Error("Refresh returned another token")
						}
						return
					}
				}
			})
		}
		all.Wait()
		if n := writes.Load(); n == 0 || n > 24 {
			t.Errorf("those who watched wrote %d times", n)
		}
		begun := time.Now()
		if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access1", answer("access2")); err != nil || time.Since(begun) > time.Second {
			t.Errorf("the next Refresh: %v after %v", err, time.Since(begun))
		}
	})
}

// counted returns a driver like d that counts its writes in *writes. The driver counts the
// successful calls of Note or, if d is not a driver.Leaser, the successful calls of Update.
func counted(d driver.Secrets, writes *atomic.Int64) driver.Secrets {
	if l, ok := d.(driver.Leaser); ok {
		return countedNotes{l, writes}
	}
	return countedWrites{d, writes}
}

type countedWrites struct {
	driver.Secrets
	writes *atomic.Int64
}

func (c countedWrites) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := c.Secrets.Update(ctx, name, base, p)
	if err == nil {
		c.writes.Add(1)
	}
	return v, err
}

type countedNotes struct {
	driver.Leaser
	writes *atomic.Int64
}

func (c countedNotes) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	err := c.Leaser.Note(ctx, name, base, note)
	if err == nil {
		c.writes.Add(1)
	}
	return err
}

// TestLeaseOfDeletedRecord checks that the lease of a deleted incarnation does not delay a
// refresh of the next incarnation.
func TestLeaseOfDeletedRecord(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		dying(t, d, saved.ID)
		var replaced time.Time
		var all sync.WaitGroup
		all.Go(func() {
			pass(2 * time.Second)
			if err := s.DeleteToken(t.Context(), saved.ID); err != nil {
				t.Errorf("DeleteToken: %v", err)
			}
			replaced = time.Now()
			_ = expiredRecord(t, s)
		})
		got, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access9", answer("access1"))
		ended := time.Now()
		all.Wait()
		if waited := ended.Sub(replaced); err != nil || got.AccessToken != "access1" || waited > time.Second {
			t.Errorf("Refresh: %v, %v after the record was created again", err, waited)
		}
	})
}

func TestLeaseClockSetBack(t *testing.T) {
	t.Parallel()
	// skewed returns a Store for a further process, and a function that sets the offset of the
	// clock of that process.
	skewed := func(t *testing.T, d driver.Secrets) (*tokenstore.Store, func(time.Duration)) {
		var off atomic.Int64
		s, err := tokenstore.New(d, &tokenstore.Options{LeaseTTL: ttl, Now: func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }})
		if err != nil {
			t.Fatal(err)
		}
		s.Punctually()
		return s, func(d time.Duration) { off.Store(int64(d)) }
	}
	for _, by := range []time.Duration{-time.Hour, -time.Minute, time.Minute} {
		t.Run(fmt.Sprintf("of a waiter, %v", by), func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				dying(t, d, saved.ID)
				s, set := skewed(t, d)
				time.AfterFunc(10*time.Second, func() { set(by) })
				begun := time.Now()
				_, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
					got, err := answer("access1")(ctx, u)
					got.ExpiresAt = got.ExpiresAt.Add(by)
					return got, err
				})
				if took := time.Since(begun); err != nil || took < ttl || took > ttl+time.Second {
					t.Errorf("Refresh: %v after %v", err, took)
				}
			})
		})
		t.Run(fmt.Sprintf("of a holder, %v", by), func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				slow := &slowWrites{Secrets: d, takes: 10 * time.Second}
				s, set := skewed(t, slow.as(d))
				slow.during = func() { set(by) }
				begun := time.Now()
				_, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
					// If the clock was set forward, Refresh has begun again, so mint may
					// run longer.
					if end, ok := ctx.Deadline(); !ok || by < 0 && end.Sub(begun) > ttl-5*time.Second {
						t.Errorf("mint is stopped after %v", end.Sub(begun))
					}
					return answer("access1")(ctx, u)
				})
				if err != nil {
					t.Errorf("Refresh: %v", err)
				}
			})
		})
	}
}

// A slowWrites is a driver whose first write is slow: it waits for the duration in the field takes,
// calls the function in the field during, and then takes effect.
type slowWrites struct {
	driver.Secrets
	takes  time.Duration
	during func()
	once   sync.Once
}

type slowNotes struct {
	*slowWrites
	notes driver.Leaser
}

func (s *slowWrites) as(d driver.Secrets) driver.Secrets {
	if l, ok := d.(driver.Leaser); ok {
		return slowNotes{s, l}
	}
	return s
}

func (s *slowWrites) wait() {
	s.once.Do(func() {
		pass(s.takes)
		s.during()
	})
}

func (s *slowWrites) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	s.wait()
	return s.Secrets.Update(ctx, name, base, p)
}

func (s slowNotes) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	s.wait()
	return s.notes.Note(ctx, name, base, note)
}

// TestLeaseReleaseStoreDown checks that Refresh returns promptly if its context is done and
// mint fails while the store is down. A later call in the same process must not wait for
// the lease.
func TestLeaseReleaseStoreDown(t *testing.T) {
	t.Parallel()
	refusal := &tokenstore.RefreshError{Code: "server_error"}
	for name, err := range map[string]error{"canceled": context.Canceled, "refused": refusal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				m, down := killables(d)
				s := process(t, m, 0)
				ctx, cancel := context.WithCancel(t.Context())
				begun := time.Now()
				_, got := s.Refresh(ctx, saved.ID, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
					down.Store(true)
					cancel()
					return tokenstore.Token{}, err
				})
				if took := time.Since(begun); !errors.Is(got, context.Canceled) || took > time.Second {
					t.Errorf("Refresh: %v after %v", got, took)
				}
				down.Store(false)
				begun = time.Now()
				if _, err := s.Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil || time.Since(begun) > time.Second {
					t.Errorf("the next Refresh: %v after %v", err, time.Since(begun))
				}
			})
		})
	}
}

func TestLeaseMintNeverReturns(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panic": func() { panic("mint") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leases(t, func(t *testing.T, d driver.Secrets) {
				saved := expiredRecord(t, process(t, d, 0))
				var ended sync.WaitGroup
				ended.Go(func() {
					defer func() { _ = recover() }()
					_, _ = process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
						end()
						return tokenstore.Token{}, nil
					})
					t.Error("Refresh returned")
				})
				ended.Wait()
				begun := time.Now()
				if _, err := process(t, d, 0).Refresh(t.Context(), saved.ID, "access0", answer("access1")); err != nil || time.Since(begun) > time.Second {
					t.Errorf("the next Refresh: %v after %v", err, time.Since(begun))
				}
			})
		})
	}
}

// TestRefreshCodeMerged checks that a user's record keeps its lease if the record of a code
// is merged into the user's record while mint runs.
func TestRefreshCodeMerged(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		saved := expiredRecord(t, process(t, d, 0))
		code, err := process(t, d, 0).SaveToken(t.Context(), tokenstore.Token{
			ClientID: client, ClientSecret: "secret", GrantToken: "grant9", RefreshToken: "refresh9", AccessToken: "access9", ExpiresAt: time.Now().Add(-time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		var minting, most atomic.Int64
		mint := func(after func()) mintFunc {
			return func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
				most.Store(max(most.Load(), minting.Add(1)))
				defer minting.Add(-1)
				after()
				pass(5 * time.Second)
				return answer("access of "+string(u.RefreshToken))(ctx, u)
			}
		}
		var all sync.WaitGroup
		refresh := func(stale tokenstore.Secret, after func()) {
			got, err := process(t, d, 0).Refresh(t.Context(), saved.ID, stale, mint(after))
			if err != nil || got.AccessToken != "access of refresh9" {
				t.Errorf("Refresh: %v", err)
			}
		}
		var once sync.Once
		refresh("access0", func() {
			once.Do(func() {
				if _, err := process(t, d, 0).SaveToken(t.Context(), tokenstore.Token{ID: code.ID, UserName: user}); err != nil {
					t.Error(err)
				}
				all.Go(func() { refresh("access9", func() {}) })
			})
		})
		all.Wait()
		if n := most.Load(); n != 1 {
			t.Errorf("%d calls of mint at once", n)
		}
	})
}

// TestLeaseOfAdoptedToken checks that a refresh gives its lease back if it returns a token
// that another caller saved while mint ran.
func TestLeaseOfAdoptedToken(t *testing.T) {
	t.Parallel()
	leases(t, func(t *testing.T, d driver.Secrets) {
		s := process(t, d, 0)
		saved := expiredRecord(t, s)
		got, err := s.Refresh(t.Context(), saved.ID, "access0", func(ctx context.Context, u tokenstore.Token) (tokenstore.Token, error) {
			if _, err := process(t, d, 0).SaveToken(ctx, tokenstore.Token{ID: saved.ID, AccessToken: "saved", ExpiresAt: time.Now().Add(time.Minute)}); err != nil {
				t.Error(err)
			}
			return answer("access1")(ctx, u)
		})
		if err != nil || got.AccessToken != "saved" {
			t.Fatalf("Refresh: %v", err)
		}
		secret, err := d.Fresh(t.Context(), saved.ID, driver.Secret{})
		if err != nil {
			t.Fatal(err)
		}
		if record, err := stored.Decode(secret.Data); err != nil || record.Lease != nil || secret.Note != "" {
			t.Errorf("the lease is %v, the note %q, error %v", record.Lease, secret.Note, err)
		}
	})
}
