package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// MeasureOptions configures Measure. The zero value is valid.
type MeasureOptions struct {
	// Others are further drivers for the same secrets, opened as another process would open its
	// driver. The concurrent writes of a race use all drivers in turn. The first of Others makes
	// the reads that measure lags, because a driver may return its own writes before other
	// processes can read these writes. Without Others, one driver makes all calls.
	Others []driver.Secrets

	// Rounds is the number of races of each kind; 0 means 20, and a negative number means
	// none. Racers is the number of concurrent writes in a race: from 2 to 16; 0 means 8.
	Rounds, Racers int

	// Samples is the number of writes whose lag is measured; 0 means 20, and a negative
	// number means none. Within is how long Measure waits for each write to become
	// visible: from a millisecond to 10 minutes; 0 means a minute.
	Samples int
	Within  time.Duration

	// Calls is the maximum number of calls of the drivers; 0 means the result of Most. If more
	// calls are needed, Measure stops early and returns the results so far.
	Calls int

	// Progress, if it is not nil, is called before each call of a driver with the number of
	// calls, including that call. The calls of Progress do not overlap.
	Progress func(calls int)

	lags bool // the reads of the driver lag
}

const (
	defaultRounds, defaultRacers, defaultSamples = 20, 8, 20
	defaultWithin                                = time.Minute

	// mostRacers is the maximum of MeasureOptions.Racers. A new Pacer allows this many
	// concurrent calls, so that no write of a race waits for another write.
	mostRacers = 16

	// mostSecrets is the maximum number of secrets, besides the probes, for which Measure
	// measures the lag of List. Each call of List reads all secrets.
	mostSecrets = 20
)

// Complete returns a copy of o with defaults in place of zero values. A nil o counts as the
// zero value. If p.DailyWrites is positive, Complete reduces Rounds and Samples to at most a
// quarter of p.DailyWrites each. The error matches tokenstore.ErrInvalidToken if o is invalid.
func (o *MeasureOptions) Complete(p driver.Properties) (MeasureOptions, error) {
	var c MeasureOptions
	if o != nil {
		c = *o
	}
	for n, value := range map[*int]int{&c.Rounds: defaultRounds, &c.Racers: defaultRacers, &c.Samples: defaultSamples} {
		if *n == 0 {
			*n = value
		}
	}
	if c.Within == 0 {
		c.Within = defaultWithin
	}
	c.Rounds, c.Samples, c.lags = max(c.Rounds, 0), max(c.Samples, 0), p.ReadLag > 0
	if p.DailyWrites > 0 {
		c.Rounds, c.Samples = min(c.Rounds, p.DailyWrites/4), min(c.Samples, p.DailyWrites/4)
	}
	if c.Calls == 0 {
		c.Calls = c.Most()
	}
	return c, c.check()
}

// check returns an error that matches rules.ErrInvalidToken if o is invalid. Complete must have
// set the defaults in o.
func (o MeasureOptions) check() error {
	switch {
	case o.Racers < 2 || o.Racers > mostRacers:
		return fmt.Errorf("%w: the number of racers is not from 2 to %d", rules.ErrInvalidToken, mostRacers)
	case o.Within < time.Millisecond || o.Within > longestWithin:
		return fmt.Errorf("%w: Within is not from a millisecond to %v", rules.ErrInvalidToken, longestWithin)
	case o.Rounds == 0 && o.Samples == 0:
		return fmt.Errorf("%w: there is nothing to measure without rounds and samples", rules.ErrInvalidToken)
	case o.Calls < o.least():
		return fmt.Errorf("%w: the number of calls is below %d, which creating and removing the probes may take", rules.ErrInvalidToken, o.least())
	}
	return nil
}

const (
	claimCalls  = 4               // calls to create ProbeUpdate, and to remove an old one
	freeCalls   = 2               // calls to look for an old ProbeCreate, and to remove it
	removeTries = 3               // attempts to remove a probe whose state changes meanwhile
	removeCalls = 2 * removeTries // calls to remove a probe
)

// least returns the minimum of Calls: the number of calls that creating and removing the
// probes may take.
func (o MeasureOptions) least() int { return claimCalls + freeCalls + 2*removeCalls }

// Most returns the maximum number of calls that a measurement with the options o makes, if
// the service throttles no call. Complete must have returned o.
func (o MeasureOptions) Most() int {
	const names = 1
	updates := o.Rounds * (o.Racers + 1)
	creations := o.Rounds * (o.Racers + 3) // a read, a deletion, and an update of ProbeUpdate
	if o.lags {
		creations += o.Rounds * len(polls(o.Within)) // reads until the deletion is visible
	}
	samples := o.Samples * (2 + int(lags)*len(polls(o.Within)))
	return o.least() + names + updates + creations + samples
}

// A Measurement is the result of Measure. It contains no secrets, and no names except those of the
// probes.
type Measurement struct {
	Version int       `json:"version"` // version of this JSON form: 1
	Driver  string    `json:"driver"`  // Properties.Name
	Began   time.Time `json:"began"`
	TookMS  int64     `json:"took_ms"`

	Drivers   int `json:"drivers"`    // number of drivers
	Calls     int `json:"calls"`      // number of calls, including those that remove the probes
	MostCalls int `json:"most_calls"` // maximum number of calls

	// Stopped is the reason why the measurement ended early: StoppedCalls, StoppedContext
	// or StoppedError. It is empty if the measurement is complete.
	Stopped string `json:"stopped,omitempty"`

	// Left lists the names of probes that could not be removed.
	Left []string `json:"left,omitempty"`

	Races    []Races     `json:"races"`
	Lags     []Lag       `json:"lags"`
	Findings []Deviation `json:"findings"`
}

// The reasons why a measurement ended early.
const (
	StoppedCalls   = "calls"   // the maximum number of calls was reached
	StoppedContext = "context" // the context was done
	StoppedError   = "error"   // a driver failed
)

// A Deviation is a difference between a measurement and a promise of package driver.
type Deviation struct {
	Kind   Kind   `json:"kind"` // KindNotOneWinner or KindLag
	Detail string `json:"detail"`
}

// Measure measures the service behind d with two probes, which are secrets that are not
// records. It removes the probes at the end, even if ctx is done, and changes no other
// secret. It measures:
//
//   - how many of several concurrent Updates of one state, or Creates of one name, succeed:
//     package driver promises exactly one
//   - how long a write stays invisible to Get, to Lookup by a new label, and to List: package
//     driver promises at most ReadLag for Get, and at most ListLag for the others
//
// A List reads all secrets, so Measure does not measure the lag of List if d has more than 20
// other secrets.
//
// The error matches tokenstore.ErrInvalidToken if opts is invalid. It matches driver.ErrConflict if
// another process changes a probe, or if another measurement of the same secrets is in progress. A
// measurement that was killed in the last 15 minutes counts as in progress. Check with Repair
// removes the probes of a killed measurement. Other errors come from the drivers. If ctx is done,
// the error matches the cause of ctx instead. If Measure returns an error, the Measurement holds
// the results so far. Reaching the maximum number of calls is not an error: see
// Measurement.Stopped. Measure repeats throttled calls at a lower rate, and counts each repetition.
func Measure(ctx context.Context, d driver.Secrets, opts *MeasureOptions) (Measurement, error) {
	p := d.Properties()
	o, err := opts.Complete(p)
	if err != nil {
		return Measurement{}, err
	}
	m := newMeasuring(d, o)
	r := Measurement{
		Version: 1, Driver: p.Name, Began: time.Now().UTC().Truncate(time.Second), Drivers: len(m.drivers), MostCalls: o.Calls,
		Races: []Races{}, Lags: []Lag{}, Findings: []Deviation{},
	}
	began := time.Now()
	err = m.run(ctx, &r)
	var left []error
	for _, name := range []string{ledger.ProbeCreate, ledger.ProbeUpdate} {
		if err := m.remove(ctx, name); err != nil {
			left, r.Left = append(left, err), append(r.Left, name)
		}
	}
	r.TookMS, r.Calls = time.Since(began).Milliseconds(), m.calls
	r.deviations()
	switch {
	case ctx.Err() != nil:
		r.Stopped, err = StoppedContext, context.Cause(ctx)
	case errors.Is(err, errSpent):
		r.Stopped, err = StoppedCalls, nil
	case err != nil:
		r.Stopped = StoppedError
	}
	return r, errors.Join(append(left, err)...)
}

func (m *measuring) run(ctx context.Context, r *Measurement) error {
	if err := m.claim(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *Measurement) error{m.races, m.samples, m.creations} {
		if err := step(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (r *Measurement) deviations() {
	for _, races := range r.Races {
		r.Findings = append(r.Findings, races.deviations()...)
	}
	for _, lag := range r.Lags {
		r.Findings = append(r.Findings, lag.deviations()...)
	}
}
