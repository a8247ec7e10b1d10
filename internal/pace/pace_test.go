package pace_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/pace"
)

var errThrottled = errors.New("throttled")

func throttled(err error) bool { return errors.Is(err, errThrottled) }

// A quota is a token bucket or, if fixed is set, a number of calls in each minute.
type quota struct {
	rate  float64 // calls a second; 0 means unlimited
	burst float64 // capacity of the bucket or, if fixed is set, calls in each minute
	fixed bool    // calls are counted in each minute
}

// A service accepts calls within a quota. Each call takes the duration trip.
type service struct {
	quota

	trip time.Duration

	mu              sync.Mutex
	left            float64
	at              time.Time
	taken, refused  int
	running, atOnce int
}

func (s *service) call() error {
	s.mu.Lock()
	s.running++
	s.atOnce = max(s.atOnce, s.running)
	s.mu.Unlock()
	<-time.After(s.trip) // takes no real time in a synctest bubble
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if !s.take(time.Now()) {
		s.refused++
		return errThrottled
	}
	s.taken++
	return nil
}

func (s *service) take(now time.Time) bool {
	switch {
	case s.at.IsZero(), s.fixed && now.Truncate(time.Minute).After(s.at):
		s.left = s.burst
	case !s.fixed:
		s.left = min(s.burst, s.left+now.Sub(s.at).Seconds()*s.rate)
	}
	s.at = now
	if s.rate > 0 && s.left < 1 {
		return false
	}
	s.left--
	return true
}

// TestEach_Quota checks that Each makes calls at nearly the rate of a quota, and that few of its
// calls are refused.
func TestEach_Quota(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		quota

		trip  time.Duration
		n     int
		least float64 // minimum fraction of the rate of the quota
	}{
		"50 a second":          {quota{rate: 50, burst: 50}, 20 * ms, 1000, 0.95},
		"50 a second, evenly":  {quota{rate: 50, burst: 1}, 20 * ms, 1000, 0.85},
		"200 a minute":         {quota{rate: 200.0 / 60, burst: 200}, 80 * ms, 1000, 0.95},
		"200 a minute, evenly": {quota{rate: 200.0 / 60, burst: 3}, 80 * ms, 1000, 0.95},
		"200 in each minute":   {quota{rate: 200.0 / 60, burst: 200, fixed: true}, 80 * ms, 1000, 0.8},
		"1,000 a second":       {quota{rate: 1000, burst: 100}, 20 * ms, 20_000, 0.9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &service{quota: test.quota, trip: test.trip}
				began := time.Now()
				err := pace.New(throttled, 0).Each(t.Context(), test.n, func(context.Context, int) error { return s.call() })
				took := time.Since(began)
				best := time.Duration((float64(test.n) - test.burst) / test.rate * float64(time.Second))
				if err != nil || s.taken != test.n {
					t.Fatalf("%d of %d taken, %v", s.taken, test.n, err)
				}
				if best.Seconds() < test.least*took.Seconds() {
					t.Errorf("took %v, and the quota allows %v", took, best)
				}
				if s.refused > test.n/4 {
					t.Errorf("%d calls were throttled", s.refused)
				}
			})
		})
	}
}

// TestEach_Width checks that the number of concurrent calls grows to the limit if no call is
// throttled, and that each call is made once.
func TestEach_Width(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]int{0: 64, 3: 3, 40: 40} {
		synctest.Test(t, func(t *testing.T) {
			s := &service{trip: time.Second}
			var mu sync.Mutex
			var made []int
			err := pace.New(throttled, most).Each(t.Context(), 5000, func(_ context.Context, i int) error {
				mu.Lock()
				made = append(made, i)
				mu.Unlock()
				return s.call()
			})
			slices.Sort(made)
			if once := slices.Compact(slices.Clone(made)); err != nil || s.atOnce != want || len(made) != 5000 || len(once) != 5000 {
				t.Errorf("%v: %d calls of %d, %d at once, want %d", err, len(made), len(once), s.atOnce, want)
			}
		})
	}
}

// TestEach_Error checks that Each ends the iteration and returns the error if a call fails.
func TestEach_Error(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, wrong := &service{trip: time.Second}, errors.New("wrong")
		err := pace.New(throttled, 0).Each(t.Context(), 1000, func(ctx context.Context, i int) error {
			if i == 20 {
				return wrong
			}
			return errors.Join(s.call(), context.Cause(ctx))
		})
		if !errors.Is(err, wrong) || s.taken > 100 || s.running != 0 {
			t.Errorf("%v after %d calls, %d under way", err, s.taken, s.running)
		}
	})
}

// TestEach_Canceled checks that Each stops waiting when its context is done.
func TestEach_Canceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err := pace.New(throttled, 0).Each(ctx, 10, func(context.Context, int) error { return errThrottled })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestEach_Shut checks that Each ends with the service's error if the service accepts no calls.
func TestEach_Shut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		p := pace.New(throttled, 1)
		err := p.Each(t.Context(), 10, func(_ context.Context, i int) error {
			calls++
			if i == 0 {
				return nil
			}
			return errThrottled
		})
		if took := time.Since(began); !errors.Is(err, errThrottled) || took < 2*time.Minute || took > 3*time.Minute || calls > 50 {
			t.Errorf("%v after %v and %d calls", err, took, calls)
		}
		if p.Speed() == 0 {
			t.Error("no speed is known")
		}
	})
}

// TestAll_Slow checks that a call that lasts longer than the patience of a Pacer does not count as
// throttled, and that a Pacer can be used again after its context was done.
func TestAll_Slow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(throttled, 2)
		done, cancel := context.WithCancel(t.Context())
		cancel()
		for range 3 {
			if err := p.Each(done, 4, func(context.Context, int) error { return nil }); !errors.Is(err, context.Canceled) {
				t.Errorf("with a context that is done: %v", err)
			}
		}
		refused := false
		err := p.Each(t.Context(), 2, func(_ context.Context, i int) error {
			<-time.After(10 * time.Minute)
			if i == 1 && !refused {
				refused = true
				return errThrottled
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
