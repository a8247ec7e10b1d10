package doctor

import (
	"bytes"
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// permissions reports the calls that the service refuses, and the calls whose permissions
// could not be tested.
func (c *checker) permissions(ctx context.Context, inspector driver.Inspector) error {
	for p, err := range inspector.Probe(ctx) {
		if err != nil {
			return err
		}
		switch {
		case p.Err == nil:
			continue
		case errors.Is(p.Err, driver.ErrCredentials):
			return p.Err // every call fails: this is not a missing permission
		}
		f := Finding{
			Kind: KindPermission, Name: p.Call, Remedy: RemedyManual, Err: p.Err,
			Detail: "it is refused; it needs " + p.Needs,
		}
		if !errors.Is(p.Err, driver.ErrDenied) {
			f.Detail = "whether it is allowed could not be found out; it needs " + p.Needs
		}
		if err := c.emit(f); err != nil {
			return err
		}
	}
	return nil
}

// A lapse is the error for a server that breaks a promise of package driver.
type lapse struct{ text string }

func (l lapse) Error() string { return l.text }

// compares tests whether the server compares before it writes. If the server accepts a write over a
// state that is not current, compares reports a finding. In that case, it also turns repairs off,
// because a repair could undo the write of another process.
func (c *checker) compares(ctx context.Context) error {
	err := c.race(ctx)
	var l lapse
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &l):
		c.o.Repair, c.o.MergeDuplicates, c.o.Purge = false, false, false
		return c.emit(Finding{Kind: KindNotCompared, Remedy: RemedyManual, Detail: l.text + ": nothing is repaired"})
	case errors.Is(err, driver.ErrDenied) && c.o.Permissions:
		return nil // permissions reports each refused call
	}
	return c.emit(Finding{
		Kind: KindNotCompared, Remedy: RemedyManual, Err: err,
		Detail: "whether the server compares before it writes could not be tried",
	})
}

// race makes the calls of two competing writers on the probe. The error wraps a lapse if the
// server accepts a call that it should have refused, or loses a write.
func (c *checker) race(ctx context.Context) error {
	last, err := c.ledger.ClaimProbe(ctx, nil)
	if err != nil {
		return err
	}
	err = c.raceOver(ctx, &last)
	if l := (lapse{}); errors.As(err, &l) {
		// The call that the server should have refused may have changed the probe.
		if now, readErr := c.ledger.Driver.Fresh(ctx, ledger.ProbeName, driver.Secret{}); readErr == nil {
			last = now
		}
	}
	return errors.Join(err, c.ledger.RemoveProbe(ctx, last))
}

// raceOver tries to create the probe a second time, to update one state of the probe twice,
// and to delete a replaced state. It then reads the probe back. raceOver sets *last to the state
// that it wrote.
func (c *checker) raceOver(ctx context.Context, last *driver.Secret) error {
	second, err := c.ledger.NewProbe()
	if err != nil {
		return err
	}
	if _, err := c.ledger.Driver.Create(ctx, ledger.ProbeName, second); !errors.Is(err, driver.ErrExists) {
		return passed(err, "the server created one secret twice")
	}
	base := *last
	version, err := c.ledger.Driver.Update(ctx, ledger.ProbeName, base, second)
	if err != nil {
		return err
	}
	*last = driver.Secret{Payload: second, Version: version}
	third, err := c.ledger.NewProbe()
	if err != nil {
		return err
	}
	if _, err := c.ledger.Driver.Update(ctx, ledger.ProbeName, base, third); !errors.Is(err, driver.ErrConflict) {
		return passed(err, "the server wrote twice over one state")
	}
	if err := c.ledger.Driver.Delete(ctx, ledger.ProbeName, base); !errors.Is(err, driver.ErrConflict) {
		return passed(err, "the server deleted a state that was replaced")
	}
	now, err := c.ledger.Driver.Fresh(ctx, ledger.ProbeName, *last)
	if errors.Is(err, driver.ErrNotFound) || err == nil && !bytes.Equal(now.Data, second.Data) {
		return lapse{"the server reported a write as done and does not hold it"}
	}
	return err
}

// passed returns a lapse with the text if err is nil, because the call should have failed.
// Otherwise, it returns err.
func passed(err error, text string) error {
	if err == nil {
		return lapse{text}
	}
	return err
}
