package tokenstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// probeName is the name of the entry that SameAs and Check try a server with. There
// is one, because some services keep a remnant of every name that was deleted. It
// has the form of a record's name and holds no token, so that no reader takes it
// for a record.
const probeName = "atokenkeepprobetokenkeepprobetoke"

const (
	// probeAge is how old a probe is that a process left behind.
	probeAge = time.Minute

	// probeTimeout is how long the removal of a probe may take. The caller's
	// context does not end it: the probe would be left.
	probeTimeout = 15 * time.Second
)

// SameAs reports whether s and other keep their records in one place, such as one
// mount under two addresses, whatever keys they are opened with. It creates an
// entry without a token through s, tries to create it through other, and removes
// what it has created; records are not touched. An entry that is left behind by a
// process that was killed is removed by a later call, and Check reports it as
// KindEmpty.
//
// The answer is proved by writes, whatever the lag of reads. If other may not
// create secrets its reads decide, and where they lag the error matches ErrDenied
// or ErrRefused.
func (s *Store) SameAs(ctx context.Context, other *Store) (bool, error) {
	if s.driver == other.driver {
		return true, nil
	}
	err := s.begin(ctx)
	if err == nil {
		err = other.begin(ctx)
	}
	is := false
	if err == nil {
		is, err = s.sameAs(ctx, other)
	}
	return is, s.error("compare with another store", "", err)
}

func (s *Store) sameAs(ctx context.Context, other *Store) (is bool, err error) {
	mine, err := s.claim(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.removeProbe(ctx, &mine)) }()
	theirs, err := other.claim(ctx, mine.Data)
	switch {
	case errors.Is(err, errClaimed):
		return true, nil
	case errors.Is(err, ErrDenied), errors.Is(err, ErrRefused):
		return other.sees(ctx, mine.Data, err)
	case err != nil:
		return false, err
	}
	defer func() { err = errors.Join(err, other.removeProbe(ctx, &theirs)) }()
	// Both were created. Another process may have removed the first in between: a
	// write over it shows that it is still there.
	next, err := s.probe()
	if err != nil {
		return false, err
	}
	version, err := s.driver.Update(ctx, probeName, mine, next)
	if err != nil {
		return false, err
	}
	mine = driver.Secret{Payload: next, Version: version}
	return false, nil
}

// errClaimed means that the probe which is there is the caller's own.
var errClaimed = errors.New("the probe is there")

// claim creates the probe, and first removes one that a process left behind. If the
// one that is there has the data in known the error is errClaimed. It waits for
// another process that is trying the store.
func (s *Store) claim(ctx context.Context, known []byte) (driver.Secret, error) {
	for {
		p, err := s.probe()
		if err != nil {
			return driver.Secret{}, err
		}
		version, err := s.driver.Create(ctx, probeName, p)
		if !errors.Is(err, driver.ErrExists) {
			return driver.Secret{Payload: p, Version: version}, err
		}
		now, err := s.driver.Fresh(ctx, probeName, driver.Secret{})
		switch {
		case errors.Is(err, driver.ErrNotFound):
			err = ctx.Err()
		case err != nil:
		case known != nil && bytes.Equal(now.Data, known):
			err = errClaimed
		case s.leftBehind(now):
			if err = s.driver.Delete(ctx, probeName, now); errors.Is(err, driver.ErrConflict) {
				err = ctx.Err()
			}
		default:
			err = s.wait(ctx, lastPause)
		}
		if err != nil {
			return driver.Secret{}, err
		}
	}
}

// leftBehind reports whether a probe is older than any that is in use. One that
// cannot be read was written under other keys: how old it is, is not known.
func (s *Store) leftBehind(probe driver.Secret) bool {
	e, err := s.entry(probeName, probe)
	return err != nil || s.o.Now().Sub(e.updated()).Abs() >= probeAge
}

// probe returns an entry that holds no token.
func (s *Store) probe() (driver.Payload, error) {
	mine := nonce()
	r := codec.Record{Born: mine, Nonces: []string{mine}, Updated: s.o.Now().UnixMilli()}
	data, err := s.o.Codec.Encode(probeName, r)
	if err != nil {
		return driver.Payload{}, fmt.Errorf("encode a probe: %w", err)
	}
	return driver.Payload{Data: data}, nil
}

// removeProbe removes the probe if its state is the last one that the caller wrote.
func (s *Store) removeProbe(ctx context.Context, last *driver.Secret) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	err := s.driver.Delete(ctx, probeName, *last)
	if errors.Is(err, driver.ErrConflict) {
		return nil // it is another process's
	}
	return err
}

// sees reports whether s, which may not create the probe, can read the one with the
// data. refused is what kept s from creating it.
func (s *Store) sees(ctx context.Context, data []byte, refused error) (bool, error) {
	now, err := s.driver.Fresh(ctx, probeName, driver.Secret{})
	switch {
	case err == nil && bytes.Equal(now.Data, data):
		return true, nil
	case err == nil, errors.Is(err, ErrNotFound):
		if s.properties.ReadLag == 0 {
			return false, nil
		}
		return false, refused // a read that lags proves nothing
	}
	return false, err
}

// A lapse is what a server did that a driver promises it does not do.
type lapse struct{ text string }

func (l lapse) Error() string { return l.text }

// compares reports a server that does not compare before it writes, and turns
// repairs off there: each could undo what another writer has done.
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
	case errors.Is(err, ErrDenied) && c.o.Permissions:
		return nil // that is reported for each call
	}
	return c.emit(Finding{
		Kind: KindNotCompared, Remedy: RemedyManual, Err: err,
		Detail: "whether the server compares before it writes could not be tried",
	})
}

// race does with the probe what two writers do that race. The error is a lapse if
// the server lets the second of them pass, or drops a write.
func (c *checker) race(ctx context.Context) error {
	last, err := c.claim(ctx, nil)
	if err != nil {
		return err
	}
	err = c.raceOver(ctx, &last)
	if l := (lapse{}); errors.As(err, &l) {
		// Which state such a server holds is not known.
		if now, readErr := c.driver.Fresh(ctx, probeName, driver.Secret{}); readErr == nil {
			last = now
		}
	}
	return errors.Join(err, c.removeProbe(ctx, &last))
}

// raceOver creates the probe a second time, writes twice over its state, and
// deletes a state that was replaced.
func (c *checker) raceOver(ctx context.Context, last *driver.Secret) error {
	second, err := c.probe()
	if err != nil {
		return err
	}
	if _, err := c.driver.Create(ctx, probeName, second); !errors.Is(err, driver.ErrExists) {
		return passed(err, "the server created one secret twice")
	}
	base := *last
	version, err := c.driver.Update(ctx, probeName, base, second)
	if err != nil {
		return err
	}
	*last = driver.Secret{Payload: second, Version: version}
	third, err := c.probe()
	if err != nil {
		return err
	}
	if _, err := c.driver.Update(ctx, probeName, base, third); !errors.Is(err, driver.ErrConflict) {
		return passed(err, "the server wrote twice over one state")
	}
	if err := c.driver.Delete(ctx, probeName, base); !errors.Is(err, driver.ErrConflict) {
		return passed(err, "the server deleted a state that was replaced")
	}
	now, err := c.driver.Fresh(ctx, probeName, *last)
	if errors.Is(err, driver.ErrNotFound) || err == nil && !bytes.Equal(now.Data, second.Data) {
		return lapse{"the server reported a write as done and does not hold it"}
	}
	return err
}

// passed returns a lapse if err is nil, and otherwise the error of a call that was
// refused for another reason than it should be.
func passed(err error, text string) error {
	if err == nil {
		return lapse{text}
	}
	return err
}
