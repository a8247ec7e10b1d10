package tokenstore

import (
	"context"
	"time"
)

// Steadily makes the pauses of s multiples of a quarter of a second, so that the order of
// events is deterministic. No pause is longer than half a second, so that no lease ends while
// its holder waits for the scheduler and other processes read.
func (s *Store) Steadily() {
	const step, longest = 250 * time.Millisecond, 500 * time.Millisecond
	s.Punctually()
	sleep := s.ledger.Wait
	s.ledger.Wait = func(ctx context.Context, d time.Duration) error {
		return sleep(ctx, min((d+step-1)/step*step, longest))
	}
}

// OnPause makes s call f before each pause.
func (s *Store) OnPause(f func()) {
	sleep := s.ledger.Wait
	s.ledger.Wait = func(ctx context.Context, d time.Duration) error {
		f()
		return sleep(ctx, d)
	}
}

// SetNonces makes s use the nonces that next returns.
func (s *Store) SetNonces(next func() string) { s.ledger.NewNonce = next }

// Punctually removes the random parts of the waits for a lease. s then tries to take a lease
// without an initial wait.
func (s *Store) Punctually() {
	s.leases.Random = func(time.Duration) time.Duration { return 0 }
}

// ReadOnce reads the named secret with one call.
func (s *Store) ReadOnce(ctx context.Context, name string) error {
	_, err := s.ledger.Driver.Get(ctx, name)
	return err
}
