package driverkit

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff is a sequence of random pauses. Each pause is between 0.5 and 1.5 times Pause. After
// each pause, Pause doubles, up to Longest.
type Backoff struct {
	Pause   time.Duration
	Longest time.Duration

	// Patience is the time for which Until repeats its calls, measured with Now. A nil Now means
	// time.Now.
	Patience time.Duration
	Now      func() time.Time
}

// Next returns the next pause without waiting, and doubles b.Pause, up to b.Longest. Next
// panics if b.Pause is negative.
func (b *Backoff) Next() time.Duration {
	pause := b.Pause/2 + rand.N(b.Pause+1)
	b.Pause = min(2*b.Pause, b.Longest)
	return pause
}

// Until calls the function try, with pauses between the calls, until the result is true or an
// error. Until returns the results of the last call. If Patience passes first, Until returns
// false and no error. If ctx is done before a pause ends, Until returns false and ctx.Err().
func (b Backoff) Until(ctx context.Context, try func() (bool, error)) (bool, error) {
	now := b.Now
	if now == nil {
		now = time.Now
	}
	for deadline := now().Add(b.Patience); ; {
		if done, err := try(); done || err != nil {
			return done, err
		}
		if now().After(deadline) {
			return false, nil
		}
		if err := Sleep(ctx, b.Next()); err != nil {
			return false, err
		}
	}
}

// Sleep returns nil after d, or ctx.Err() if ctx is done first. If d is not positive, Sleep
// returns ctx.Err() immediately.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
