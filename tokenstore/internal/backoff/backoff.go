// Package backoff waits, for the stores that try again and again.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Sequence is one of growing pauses, none of which is sure.
type Sequence struct{ Pause, Longest time.Duration }

// Next returns how long to wait this time.
func (s *Sequence) Next() time.Duration {
	pause := s.Pause/2 + rand.N(s.Pause/2+1)
	s.Pause = min(s.Pause*3/2, s.Longest)
	return pause
}

// Sleep waits for d, or until ctx is done.
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

// Outlast returns a context that ends a while after ctx is done, and after most in
// any case: for what has to be done though the caller has gone.
func Outlast(ctx context.Context, while, most time.Duration) (context.Context, context.CancelFunc) {
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	late := time.AfterFunc(most, cancel)
	stop := context.AfterFunc(ctx, func() { late.Reset(while) })
	return long, func() {
		stop()
		late.Stop()
		cancel()
	}
}
