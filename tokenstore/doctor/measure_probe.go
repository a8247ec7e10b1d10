package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

const (
	// probeLife is the age at which a probe of a measurement counts as left behind: see
	// leftBehind. The probes of a running measurement are younger, because the measurement
	// rewrites its probes at intervals that are not much longer than longestWithin.
	probeLife = longestWithin + 5*time.Minute

	// removeTimeout bounds the removal of a probe, which continues after the caller's
	// context is done.
	removeTimeout = 30 * time.Second
)

// A probeState is the content of a probe of a measurement. The content is not encrypted, so
// that every store recognizes a probe.
type probeState struct {
	Probe  string         `json:"tokenkeep_probe"` // ID of the measurement that wrote the probe
	Nonce  string         `json:"nonce"`           // makes the data of each write different
	At     int64          `json:"at"`              // time of the write in Unix milliseconds
	Labels []driver.Label `json:"labels,omitempty"`
}

// parseProbe returns the content of a probe. It returns the zero value if data is not the JSON
// text of a probeState.
func parseProbe(data []byte) (s probeState) {
	if json.Unmarshal(data, &s) != nil {
		return probeState{}
	}
	return s
}

// leftBehind reports whether the time of the write in s differs from the current time by at least
// probeLife. It returns true for content without a time.
func (s probeState) leftBehind(now time.Time) bool {
	return now.Sub(time.UnixMilli(s.At)).Abs() >= probeLife
}

// errSpent ends a measurement before it exceeds the maximum number of calls.
var errSpent = errors.New("the calls are used up")

// A measuring is the state of one call of Measure.
type measuring struct {
	o       MeasureOptions
	drivers []driver.Secrets
	id      string // random, for one measurement
	writes  *pace.Pacer

	mu    sync.Mutex
	calls int
	kept  int // number of calls reserved for the removal of the probes

	state driver.Secret // the current state of ProbeUpdate
	wrote time.Time     // when state was written

	known map[string]driver.Version // versions that the latest writes returned, by the name of the probe
}

func newMeasuring(d driver.Secrets, o MeasureOptions) *measuring {
	return &measuring{
		o: o, drivers: append([]driver.Secrets{d}, o.Others...), id: ledger.Nonce(), writes: newPacer(), kept: 2 * removeCalls,
		known: map[string]driver.Version{},
	}
}

// driver returns the driver of the i-th racer.
func (m *measuring) driver(i int) driver.Secrets { return m.drivers[i%len(m.drivers)] }

// reader returns the driver with which poll looks for the writes of the first driver.
func (m *measuring) reader() driver.Secrets { return m.driver(1) }

// take counts a call that is about to be made. If the call would exceed the maximum number of
// calls, take counts nothing and returns errSpent.
func (m *measuring) take() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls+m.kept >= m.o.Calls {
		return errSpent
	}
	m.count()
	return nil
}

// count counts a call. The caller of count must hold m.mu, unless no call is in progress.
func (m *measuring) count() {
	m.calls++
	if m.o.Progress != nil {
		m.o.Progress(m.calls)
	}
}

// call runs the function do, and runs it again while the service throttles the call. It returns
// errSpent if another call would exceed the maximum number of calls.
func (m *measuring) call(ctx context.Context, p *pace.Pacer, do func(context.Context) error) error {
	return p.Each(ctx, 1, func(ctx context.Context, _ int) error {
		if err := m.take(); err != nil {
			return err
		}
		return do(ctx)
	})
}

func (m *measuring) payload(labels ...driver.Label) (driver.Payload, error) {
	s := probeState{Probe: m.id, Nonce: ledger.Nonce(), At: time.Now().UnixMilli(), Labels: labels}
	data, err := json.Marshal(s)
	return driver.Payload{Data: data, Labels: labels, Incarnation: m.id}, err
}

// claim creates ProbeUpdate. If another measurement left the probe behind, claim first removes
// the old probe. The error is errBusy if another measurement may be using the probe.
func (m *measuring) claim(ctx context.Context) error {
	p, err := m.payload()
	if err != nil {
		return err
	}
	var v driver.Version
	create := func(ctx context.Context) (err error) {
		v, err = m.drivers[0].Create(ctx, ledger.ProbeUpdate, p)
		return err
	}
	if err = m.call(ctx, m.writes, create); errors.Is(err, driver.ErrExists) {
		now, err := m.newest(ctx, ledger.ProbeUpdate)
		switch {
		case err != nil && !errors.Is(err, driver.ErrNotFound):
			return err
		case err == nil && bytes.Equal(now.Data, p.Data):
			v = now.Version // the service applied a call that it reported as throttled
		default:
			if err := m.evict(ctx, ledger.ProbeUpdate, now); err != nil {
				return err
			}
			if err := m.call(ctx, m.writes, create); err != nil {
				return err
			}
		}
	} else if err != nil {
		return err
	}
	m.written(driver.Secret{Payload: p, Version: v})
	return nil
}

// written sets the current state of ProbeUpdate to the parameter now, and the time of the write
// to the current time.
func (m *measuring) written(now driver.Secret) {
	m.state, m.wrote, m.known[ledger.ProbeUpdate] = now, time.Now(), now.Version
}

// errBusy means that a probe exists and may be in use.
var errBusy = fmt.Errorf("%w: another measurement is in progress, or was killed less than %v ago", driver.ErrConflict, probeLife)

// evict removes the named probe of an earlier measurement. The parameter now is the newest state
// of the probe, or the zero Secret if the probe does not exist. The error is errBusy if the
// probe may be in use.
func (m *measuring) evict(ctx context.Context, name string, now driver.Secret) error {
	switch {
	case now.Version == "":
		return nil
	case !parseProbe(now.Data).leftBehind(time.Now()):
		return errBusy
	}
	return m.call(ctx, m.writes, func(ctx context.Context) error { return m.drivers[0].Delete(ctx, name, now) })
}

// newest returns the newest state of the named probe, with its labels.
func (m *measuring) newest(ctx context.Context, name string) (now driver.Secret, err error) {
	err = m.call(ctx, m.writes, func(ctx context.Context) (err error) {
		now, err = m.drivers[0].Fresh(ctx, name, driver.Secret{Version: m.known[name]})
		return err
	})
	now.Labels = parseProbe(now.Data).Labels
	return now, err
}

// update writes the next state of ProbeUpdate, with the given labels.
func (m *measuring) update(ctx context.Context, labels ...driver.Label) error {
	p, err := m.payload(labels...)
	if err != nil {
		return err
	}
	var v driver.Version
	err = m.call(ctx, m.writes, func(ctx context.Context) (err error) {
		v, err = m.drivers[0].Update(ctx, ledger.ProbeUpdate, m.state, p)
		return err
	})
	if errors.Is(err, driver.ErrConflict) {
		// The service may have applied a call that it reported as throttled.
		now, unread := m.newest(ctx, ledger.ProbeUpdate)
		if unread != nil || !bytes.Equal(now.Data, p.Data) {
			return errors.Join(err, unread)
		}
		v, err = now.Version, nil
	}
	if err == nil {
		m.written(driver.Secret{Payload: p, Version: v})
	}
	return err
}

// remove removes the named probe if this measurement wrote the probe. It makes at most
// removeTries attempts.
func (m *measuring) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var err error
	for range removeTries {
		m.kept-- // no other call is in progress, so remove does not need m.mu
		m.count()
		var now driver.Secret
		now, err = m.drivers[0].Fresh(ctx, name, driver.Secret{Version: m.known[name]})
		state := parseProbe(now.Data)
		switch {
		case errors.Is(err, driver.ErrNotFound), err == nil && state.Probe != m.id:
			return nil
		case err != nil:
			continue
		}
		now.Labels = state.Labels
		m.kept--
		m.count()
		if err = m.drivers[0].Delete(ctx, name, now); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the probe %q is left, and Check with Repair removes it: %w", name, err)
}
