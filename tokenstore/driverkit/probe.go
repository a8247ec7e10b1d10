package driverkit

import (
	"context"
	"errors"
	"iter"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Probe is one call that a driver makes, and the permission that it needs.
type Probe struct {
	Call, Needs string // see driver.Probed
	Do          func(context.Context) error
}

// ErrUntried is returned by a Probe's Do if the call cannot be tried.
var ErrUntried = errors.New("not tried")

// Probes makes the calls of probes one after the other and yields their outcomes, as
// required by driver.Inspector. A call counts as allowed if its error shows that the
// service examined the secret: the error matches driver.ErrNotFound, ErrExists,
// ErrConflict or ErrCorrupt. Probes leaves out a call that fails with ErrUntried.
//
// An error that says nothing about a single call ends the iteration: the error of ctx,
// or an error that matches driver.ErrCredentials.
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
