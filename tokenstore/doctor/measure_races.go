package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// The values of Races.Of.
const (
	RaceUpdate = "update" // concurrent Updates of one state
	RaceCreate = "create" // concurrent Creates of one name
)

// Races holds the rounds of one kind of race, in order.
type Races struct {
	Of     string  `json:"of"`     // RaceUpdate or RaceCreate
	Racers int     `json:"racers"` // number of concurrent writes
	Rounds []Round `json:"rounds"`
}

// A Round is the outcome of one race.
type Round struct {
	Winners int  `json:"winners"`        // writes that succeeded, by their result or by the stored state
	Refused int  `json:"refused"`        // writes that failed because another write came first
	Failed  int  `json:"failed"`         // writes that failed for another reason
	Lost    bool `json:"lost,omitempty"` // a write succeeded, but the stored state is not that of a winner
}

// Decided reports whether the round shows how many writes the service accepts. It returns false if
// Winners is 0 and Failed is positive.
func (r Round) Decided() bool { return r.Winners > 0 || r.Failed == 0 }

// deviations returns a Deviation for each kind of wrong outcome among the rounds: several
// winners, no winner, or a stored state that is not the winner's.
func (r Races) deviations() (found []Deviation) {
	texts := []string{"several writes succeeded", "no write succeeded", "a write succeeded, and the service does not hold it"}
	counts := make([]int, len(texts))
	for _, round := range r.Rounds {
		switch {
		case round.Winners > 1:
			counts[0]++
		case round.Winners == 0 && round.Decided():
			counts[1]++
		case round.Lost:
			counts[2]++
		}
	}
	for i, n := range counts {
		if n > 0 {
			found = append(found, Deviation{KindNotOneWinner, fmt.Sprintf("%s: in %d of %d rounds, %s", r.Of, n, len(r.Rounds), texts[i])})
		}
	}
	return found
}

// races appends a Races of the given kind, without rounds, to r.Races. It returns the added
// element.
func (r *Measurement) races(of string, racers int) *Races {
	r.Races = append(r.Races, Races{Of: of, Racers: racers, Rounds: []Round{}})
	return &r.Races[len(r.Races)-1]
}

// races lets the racers concurrently update one state, once for each round.
func (m *measuring) races(ctx context.Context, r *Measurement) error {
	if m.o.Rounds == 0 {
		return nil
	}
	races := r.races(RaceUpdate, m.o.Racers)
	sure := true // the base is certainly the current state
	for len(races.Rounds) < m.o.Rounds {
		base := m.state
		round, now, err := m.race(ctx, ledger.ProbeUpdate, func(ctx context.Context, d driver.Secrets, p driver.Payload) (driver.Version, error) {
			return d.Update(ctx, ledger.ProbeUpdate, base, p)
		})
		if err != nil {
			return err
		}
		if now.Version == "" {
			return errTaken
		}
		if round.Winners > 0 || sure {
			races.Rounds = append(races.Rounds, round)
		}
		sure = round.Decided()
		m.written(now)
	}
	return nil
}

// creations lets the racers concurrently create one name, once for each round.
func (m *measuring) creations(ctx context.Context, r *Measurement) error {
	if m.o.Rounds == 0 {
		return nil
	}
	now, err := m.newest(ctx, ledger.ProbeCreate)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	if err := m.evict(ctx, ledger.ProbeCreate, now); err != nil {
		return err
	}
	races, deleted := r.races(RaceCreate, m.o.Racers), time.Now()
	pause := driverkit.Backoff{Pause: 100 * time.Millisecond, Longest: 3 * time.Second}
	for len(races.Rounds) < m.o.Rounds {
		round, now, err := m.creation(ctx)
		switch {
		case err != nil:
			return err
		case round.Winners == 0 && m.o.lags && time.Since(deleted) < m.o.Within:
			// Reads lag, so the racers may have found the deleted probe.
			err = driverkit.Sleep(ctx, pause.Next())
		default:
			races.Rounds = append(races.Rounds, round)
			deleted, err = m.uncreate(ctx, now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// creation runs one race of Creates. It first updates ProbeUpdate if the last write of that
// probe is old.
func (m *measuring) creation(ctx context.Context) (Round, driver.Secret, error) {
	if time.Since(m.wrote) > longestWithin/2 {
		if err := m.update(ctx); err != nil { // so that ProbeUpdate does not count as left behind
			return Round{}, driver.Secret{}, err
		}
	}
	return m.race(ctx, ledger.ProbeCreate, func(ctx context.Context, d driver.Secrets, p driver.Payload) (driver.Version, error) {
		return d.Create(ctx, ledger.ProbeCreate, p)
	})
}

// uncreate deletes ProbeCreate after a race, and returns the time of the deletion. The parameter
// now is the state of ProbeCreate. If that state is the zero Secret, uncreate deletes nothing. If
// reads lag, uncreate waits up to Within until a read shows the deletion.
func (m *measuring) uncreate(ctx context.Context, now driver.Secret) (deleted time.Time, err error) {
	if now.Version == "" {
		return time.Now(), nil
	}
	err = m.call(ctx, m.writes, func(ctx context.Context) error { return m.drivers[0].Delete(ctx, ledger.ProbeCreate, now) })
	if err != nil {
		return time.Time{}, err
	}
	delete(m.known, ledger.ProbeCreate)
	deleted = time.Now()
	if m.o.lags {
		_, err = m.poll(ctx, m.writes, deleted, m.isGone)
	}
	return deleted, err
}

// isGone makes one read, and reports whether the read shows that ProbeCreate does not exist.
func (m *measuring) isGone(ctx context.Context) (bool, error) {
	_, err := m.reader().Get(ctx, ledger.ProbeCreate)
	if errors.Is(err, driver.ErrNotFound) {
		return true, nil
	}
	return false, err
}

var errTaken = fmt.Errorf("%w: another process has written or removed a probe", driver.ErrConflict)

// An attempt is the write of one racer.
type attempt struct {
	payload  driver.Payload
	version  driver.Version
	err      error
	repeated bool // the service reported an earlier call as throttled, but may have applied it
}

// refused reports whether the write certainly failed because another write came first.
func (a attempt) refused() bool {
	return !a.repeated && (errors.Is(a.err, driver.ErrConflict) || errors.Is(a.err, driver.ErrExists) || errors.Is(a.err, driver.ErrNotFound))
}

// race makes the concurrent writes of one round on the named probe. It returns the state
// after the race, or the zero Secret if the probe does not exist.
func (m *measuring) race(
	ctx context.Context, name string, write func(context.Context, driver.Secrets, driver.Payload) (driver.Version, error),
) (Round, driver.Secret, error) {
	attempts := make([]attempt, m.o.Racers)
	for i := range attempts {
		var err error
		if attempts[i].payload, err = m.payload(); err != nil {
			return Round{}, driver.Secret{}, err
		}
	}
	err := m.writes.Each(ctx, m.o.Racers, func(ctx context.Context, i int) error {
		if err := m.take(); err != nil {
			return err
		}
		a := &attempts[i]
		a.version, a.err = write(ctx, m.driver(i), a.payload)
		if throttled(a.err) {
			a.repeated = true
			return a.err
		}
		if errors.Is(a.err, driver.ErrDenied) || errors.Is(a.err, driver.ErrRefused) {
			return a.err
		}
		return nil
	})
	for _, a := range attempts {
		if a.err == nil && a.version != "" {
			m.known[name] = a.version
		}
	}
	if err != nil {
		return Round{}, driver.Secret{}, err
	}
	now, err := m.newest(ctx, name)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		err = nil
	case err == nil && parseProbe(now.Data).Probe != m.id:
		err = errTaken
	}
	return outcome(attempts, now), now, err
}

// outcome compares the results of the racers with the stored state.
func outcome(attempts []attempt, now driver.Secret) (r Round) {
	held := false
	for _, a := range attempts {
		mine := bytes.Equal(now.Data, a.payload.Data)
		held = held || mine
		switch {
		case a.err == nil || mine: // the service may have applied a call that it reported as throttled
			r.Winners++
		case a.refused():
			r.Refused++
		default:
			r.Failed++
		}
	}
	r.Lost = r.Winners > 0 && !held
	return r
}
