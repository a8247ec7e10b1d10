package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Pauses between attempts: exponential with full jitter.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = time.Second
)

// again says that another writer was faster, and that the attempt has to begin
// anew from fresh reads.
type again struct{ err error }

func (a again) Error() string { return a.err.Error() }
func (a again) Unwrap() error { return a.err }

// lost turns the errors by which a compare-and-swap says that it lost into
// again, and passes on all others.
func lost(err error) error {
	for _, class := range []error{driver.ErrConflict, driver.ErrExists, driver.ErrNotFound} {
		if errors.Is(err, class) {
			return again{err}
		}
	}
	return err
}

// retry calls attempt until it returns an error other than again, with a reader
// that asks for the newest states from the second time on.
func (s *Store) retry(ctx context.Context, op string, attempt func(*reader) error) error {
	var err error
	for n := range s.o.Attempts {
		if n > 0 {
			if waitErr := s.wait(ctx, pause(n)); waitErr != nil {
				return waitErr
			}
		}
		err = attempt(s.reader(n > 0))
		var a again
		if !errors.As(err, &a) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	s.o.Logger.WarnContext(ctx, "tokenstore: other writers were faster", "op", op, "attempts", s.o.Attempts)
	return fmt.Errorf("%w: in each of %d attempts", ErrConflict, s.o.Attempts)
}

// pause returns how long to wait before the nth attempt.
func pause(n int) time.Duration {
	most := min(firstPause<<min(n, 20), lastPause)
	return rand.N(most) + 1
}
