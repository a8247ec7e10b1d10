package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// ProbeName is the name of the probe, the entry that SameAs and doctor.Check write to test a
// store. All probes have the same name, because some services keep a remnant of every deleted
// name. The name has the form of a record's name. The probe holds no token, so readers do not
// take the probe for a record.
const ProbeName = "atokenkeepprobetokenkeepprobetoke"

// The names of the probes that doctor.Measure writes. The names are constant for the same
// reason as ProbeName. These names do not have the form of a record's name, so that no store
// takes the probes for records.
const (
	ProbeCreate = "tokenkeepprobecreate" // for concurrent calls of Create
	ProbeUpdate = "tokenkeepprobeupdate" // for concurrent calls of Update
)

// Measures reports whether name is ProbeCreate or ProbeUpdate.
func Measures(name string) bool { return name == ProbeCreate || name == ProbeUpdate }

const (
	// probeAge is the age at which a probe counts as left behind: see leftBehind.
	probeAge = time.Minute

	// probeTimeout bounds the removal of a probe, which continues after the caller's
	// context is done.
	probeTimeout = 15 * time.Second
)

// SameAs reports whether l and other keep their records in the same place. See
// tokenstore.Store.SameAs.
func (l *Ledger) SameAs(ctx context.Context, other *Ledger) (is bool, err error) {
	mine, err := l.ClaimProbe(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, l.RemoveProbe(ctx, mine)) }()
	theirs, err := other.ClaimProbe(ctx, mine.Data)
	switch {
	case errors.Is(err, errClaimed):
		return true, nil
	case isOneOf(err, driver.ErrDenied, driver.ErrRefused):
		return other.sees(ctx, mine.Data, err)
	case err != nil:
		return false, err
	}
	defer func() { err = errors.Join(err, other.RemoveProbe(ctx, theirs)) }()
	// Both probes were created, which proves nothing if another process removed the first
	// probe in between. An update of the first probe fails in that case.
	next, err := l.NewProbe()
	if err != nil {
		return false, err
	}
	version, err := l.Driver.Update(ctx, ProbeName, mine, next)
	if err != nil {
		return false, err
	}
	mine = driver.Secret{Payload: next, Version: version}
	return false, nil
}

// errClaimed means that the probe exists and has the data that the caller knows.
var errClaimed = errors.New("the probe exists")

// ClaimProbe creates the probe. It first removes a probe that another process left behind,
// and waits while another process tests the store. If known is not nil and the existing probe
// has this data, the error is errClaimed.
func (l *Ledger) ClaimProbe(ctx context.Context, known []byte) (driver.Secret, error) {
	for {
		p, err := l.NewProbe()
		if err != nil {
			return driver.Secret{}, err
		}
		version, err := l.Driver.Create(ctx, ProbeName, p)
		if !errors.Is(err, driver.ErrExists) {
			return driver.Secret{Payload: p, Version: version}, err
		}
		now, err := l.Driver.Fresh(ctx, ProbeName, driver.Secret{})
		switch {
		case errors.Is(err, driver.ErrNotFound):
			err = ctx.Err()
		case err != nil:
		case known != nil && bytes.Equal(now.Data, known):
			err = errClaimed
		case l.leftBehind(now):
			if err = l.Driver.Delete(ctx, ProbeName, now); errors.Is(err, driver.ErrConflict) {
				err = ctx.Err()
			}
		default:
			err = l.Wait(ctx, lastPause)
		}
		if err != nil {
			return driver.Secret{}, err
		}
	}
}

// leftBehind reports whether the time of a probe differs from the current time by at least
// probeAge. An unreadable probe counts as left behind, because its age is unknown.
func (l *Ledger) leftBehind(probe driver.Secret) bool {
	e, err := l.toEntry(ProbeName, probe)
	return err != nil || l.Now().Sub(e.WrittenAt()).Abs() >= probeAge
}

// NewProbe returns the payload of a new probe.
func (l *Ledger) NewProbe() (driver.Payload, error) {
	mine := l.NewNonce()
	r := stored.Record{Born: mine, Nonces: []string{mine}, Updated: l.Now().UnixMilli()}
	data, err := l.encode(ProbeName, r)
	if err != nil {
		return driver.Payload{}, fmt.Errorf("encode a probe: %w", err)
	}
	return driver.Payload{Data: data}, nil
}

// RemoveProbe removes the probe if the current state of the probe is last, even if ctx is
// done. It returns nil if another process has replaced the probe.
func (l *Ledger) RemoveProbe(ctx context.Context, last driver.Secret) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	err := l.Driver.Delete(ctx, ProbeName, last)
	if errors.Is(err, driver.ErrConflict) {
		return nil
	}
	return err
}

// sees reports whether l, which could not create the probe, reads a probe with the given
// data. If reads lag and do not show that probe, sees returns the parameter refused, the error of
// the attempt to create the probe.
func (l *Ledger) sees(ctx context.Context, data []byte, refused error) (bool, error) {
	now, err := l.Driver.Fresh(ctx, ProbeName, driver.Secret{})
	switch {
	case err == nil && bytes.Equal(now.Data, data):
		return true, nil
	case err != nil && !errors.Is(err, driver.ErrNotFound):
		return false, err
	case l.Properties.ReadLag == 0:
		return false, nil
	}
	return false, refused // a read that lags proves nothing
}
