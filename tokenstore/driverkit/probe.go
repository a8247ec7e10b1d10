package driverkit

import (
	"context"
	"errors"
	"iter"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Probe is a call that a driver makes, with the permission that the call needs.
type Probe struct {
	Call, Needs string // see driver.Probed
	Do          func(context.Context) error
}

// ErrUntried is the error that the Do function of a Probe returns if the call cannot be
// tried.
var ErrUntried = errors.New("not tried")

// Probes makes the calls in probes one after another, and yields their outcomes as the method Probe
// of a driver.Inspector must. A call also counts as allowed if its error matches
// driver.ErrNotFound, ErrExists, ErrConflict or ErrCorrupt, because the service has then examined
// the secret. Probes leaves out a call that fails with ErrUntried.
//
// If ctx is done, Probes yields ctx.Err() with the zero Probed, and ends. If a call fails with an
// error matching driver.ErrCredentials, Probes yields that error in the same way, and ends.
func Probes(ctx context.Context, probes []Probe) iter.Seq2[driver.Probed, error] {
	return func(yield func(driver.Probed, error) bool) {
		for _, p := range probes {
			err := p.Do(ctx)
			switch {
			case ctx.Err() != nil:
				yield(driver.Probed{}, ctx.Err())
				return
			case errors.Is(err, driver.ErrCredentials):
				yield(driver.Probed{}, err)
				return
			case errors.Is(err, ErrUntried):
				continue
			case errors.Is(err, driver.ErrNotFound), errors.Is(err, driver.ErrExists),
				errors.Is(err, driver.ErrConflict), errors.Is(err, driver.ErrCorrupt):
				err = nil
			}
			if !yield(driver.Probed{Call: p.Call, Needs: p.Needs, Err: err}, nil) {
				return
			}
		}
	}
}
