package tokenstore

import (
	"context"
	"time"
)

// Steadily makes the pauses of s multiples of a quarter of a second, so that chance
// does not decide which of two things happens first.
func (s *Store) Steadily() {
	const step = 250 * time.Millisecond
	sleep := s.ledger.Wait
	s.ledger.Wait = func(ctx context.Context, d time.Duration) error { return sleep(ctx, (d+step-1)/step*step) }
}
