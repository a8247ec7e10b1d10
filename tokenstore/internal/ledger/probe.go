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

// ProbeName is the name of the entry with which SameAs and Check test a server. The name
// never changes, because some services keep a remnant of every deleted name. It has the
// form of a record's name. The entry holds no token, so readers do not take it for a
// record.
const ProbeName = "atokenkeepprobetokenkeepprobetoke"

// The names of the probes that doctor.Measure writes. The names never change, for the
// reason given for ProbeName. These names do not have the form of a record's name, so that no
// store takes a probe for a record.
const (
	ProbeCreate = "tokenkeepprobecreate" // racers create it concurrently
	ProbeUpdate = "tokenkeepprobeupdate" // racers update it concurrently
)

// Measures reports whether name is ProbeCreate or ProbeUpdate.
func Measures(name string) bool { return name == ProbeCreate || name == ProbeUpdate }

const (
	// A probe counts as left behind if its time differs from the current time by at least
	// probeAge.
	probeAge = time.Minute

	// probeTimeout bounds the removal of a probe, which continues after the caller's
	// context is done so that no probe is left behind.
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
	// Both probes were created. Another process may have removed the first probe in between.
	// Update the first probe, which succeeds only if it still exists.
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

// ClaimProbe creates the probe. It first removes a probe that a process left behind, and
// waits for another process that is testing the store. If known is not nil and the existing
// probe has this data, the error is errClaimed.
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
	mine := Nonce()
	r := stored.Record{Born: mine, Nonces: []string{mine}, Updated: l.Now().UnixMilli()}
	data, err := l.encode(ProbeName, r)
	if err != nil {
		return driver.Payload{}, fmt.Errorf("encode a probe: %w", err)
	}
	return driver.Payload{Data: data}, nil
}

// RemoveProbe removes the probe if its state is last, even if ctx is done. It returns nil if
// another process has replaced the probe.
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
// data. If reads lag and do not show that probe, sees returns refused, the error of the
// attempt to create the probe.
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
