package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A counted is a driver that counts its calls. It passes the number of each call to the function
// before.
type counted struct {
	driver.Secrets
	calls  *atomic.Int64
	before func(call int64) error // may be nil; the call returns the error of this function
}

func newCounted(d driver.Secrets) counted { return counted{Secrets: d, calls: new(atomic.Int64)} }

func (c counted) call() error {
	n := c.calls.Add(1)
	if c.before == nil {
		return nil
	}
	return c.before(n)
}

func (c counted) Get(ctx context.Context, name string) (driver.Secret, error) {
	if err := c.call(); err != nil {
		return driver.Secret{}, err
	}
	return c.Secrets.Get(ctx, name)
}

func (c counted) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if err := c.call(); err != nil {
		return driver.Secret{}, err
	}
	return c.Secrets.Fresh(ctx, name, than)
}

func (c counted) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := c.call(); err != nil {
		return "", err
	}
	return c.Secrets.Create(ctx, name, p)
}

func (c counted) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if err := c.call(); err != nil {
		return "", err
	}
	return c.Secrets.Update(ctx, name, base, p)
}

func (c counted) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := c.call(); err != nil {
		return err
	}
	return c.Secrets.Delete(ctx, name, base)
}

func (c counted) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return c.counting(c.Secrets.Lookup(ctx, any))
}

func (c counted) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return c.counting(c.Secrets.List(ctx))
}

func (c counted) counting(seq iter.Seq2[driver.Named, error]) iter.Seq2[driver.Named, error] {
	if err := c.call(); err != nil {
		return func(yield func(driver.Named, error) bool) { yield(driver.Named{}, err) }
	}
	return seq
}

func (c counted) Names(ctx context.Context) iter.Seq2[string, error] {
	if err := c.call(); err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return c.Secrets.Names(ctx)
}

// A lagging is a driver whose reads return earlier states.
type lagging struct {
	driver.Secrets
	read, list time.Duration // the lags
	promised   time.Duration // Properties.ReadLag and ListLag

	mu     *sync.Mutex
	states *[]written
}

type written struct {
	at time.Time
	driver.Named
}

func newLagging(d driver.Secrets, read, list, promised time.Duration) lagging {
	return lagging{d, read, list, promised, new(sync.Mutex), new([]written)}
}

func (l lagging) Properties() driver.Properties {
	p := l.Secrets.Properties()
	p.ReadLag, p.ListLag = l.promised, l.promised
	return p
}

func (l lagging) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := l.Secrets.Update(ctx, name, base, p)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		*l.states = append(*l.states, written{time.Now(), driver.Named{Name: name, Secret: driver.Secret{Payload: p, Version: v}}})
	}
	return v, err
}

// shown returns the last state that was written at least lag ago.
func (l lagging) shown(lag time.Duration) (driver.Named, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range slices.Backward(*l.states) {
		if time.Since(s.at) >= lag {
			return s.Named, true
		}
	}
	return driver.Named{}, false
}

func (l lagging) Get(context.Context, string) (driver.Secret, error) {
	if s, ok := l.shown(l.read); ok {
		return s.Secret, nil
	}
	return driver.Secret{}, driver.ErrNotFound
}

func (l lagging) List(context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		if s, ok := l.shown(l.list); ok {
			yield(s, nil)
		}
	}
}

func (l lagging) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for s := range l.List(ctx) {
			if slices.ContainsFunc(s.Labels, func(has driver.Label) bool { return has.Value == any[0].Value }) {
				yield(s, nil)
			}
		}
	}
}

// A careless is a driver that compares the base of an Update, and then waits before it
// writes. Several concurrent Updates therefore succeed.
type careless struct{ *memstore.Driver }

func (d careless) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	now, err := d.Get(ctx, name)
	if err != nil || now.Version != base.Version {
		return "", driver.ErrConflict
	}
	<-time.After(time.Millisecond) // the other racers compare meanwhile
	if now, err = d.Get(ctx, name); err != nil {
		return "", err
	}
	return d.Driver.Update(ctx, name, now, p)
}

// measured calls Measure for d, and checks that the measurement left no probe.
func measured(t *testing.T, d driver.Secrets, o *doctor.MeasureOptions) doctor.Measurement {
	t.Helper()
	m, err := doctor.Measure(t.Context(), d, o)
	if err != nil {
		t.Fatal(err)
	}
	noProbes(t, d)
	return m
}

func noProbes(t *testing.T, d driver.Secrets) {
	t.Helper()
	if names := namesOf(t, d); len(names) > 0 {
		t.Errorf("the secrets %q are left", names)
	}
}

// namesOf returns the names of the probes that d has.
func namesOf(t *testing.T, d driver.Secrets) (probes []string) {
	t.Helper()
	for name, err := range d.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "tokenkeepprobe") {
			probes = append(probes, name)
		}
	}
	return probes
}

// winners returns the number of winners of each round of the given kind.
func winners(m doctor.Measurement, of string) (n []int) {
	for _, races := range m.Races {
		for _, r := range races.Rounds {
			if races.Of == of {
				n = append(n, r.Winners)
			}
		}
	}
	return n
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := memstore.NewDriver()
		c := newCounted(d)
		m := measured(t, c, &doctor.MeasureOptions{Others: []driver.Secrets{counted{Secrets: d.Reopen(), calls: c.calls}}})
		one := slices.Repeat([]int{1}, 20)
		if got := winners(m, doctor.RaceUpdate); !slices.Equal(got, one) {
			t.Errorf("winners of updates: %v", got)
		}
		if got := winners(m, doctor.RaceCreate); !slices.Equal(got, one) {
			t.Errorf("winners of creations: %v", got)
		}
		for i, of := range []string{doctor.LagRead, doctor.LagSearch, doctor.LagList} {
			l := m.Lags[i]
			if l.Of != of || l.Samples != 20 || l.Buckets[0].Count != 20 || l.Later != 0 || l.LongestMS != 0 || *l.PromisedMS != 0 || l.Skipped != "" {
				t.Errorf("%+v", l)
			}
		}
		if m.Stopped != "" || len(m.Findings) != 0 || m.Driver != "memstore" || m.Drivers != 2 {
			t.Errorf("%+v", m)
		}
		if m.Calls != int(c.calls.Load())-1 || m.Calls > m.MostCalls { // namesOf made one call
			t.Errorf("%d calls are reported of at most %d, and %d were made", m.Calls, m.MostCalls, c.calls.Load()-1)
		}
	})
}

func TestMeasureOptions(t *testing.T) {
	t.Parallel()
	var none *doctor.MeasureOptions
	o, err := none.Complete(driver.Properties{})
	if err != nil || o.Rounds != 20 || o.Racers != 8 || o.Samples != 20 || o.Within != time.Minute || o.Calls != o.Most() {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := none.Complete(driver.Properties{DailyWrites: 40}); err != nil || o.Rounds != 10 || o.Samples != 10 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, o := range []doctor.MeasureOptions{
		{Racers: 1}, {Racers: 17}, {Within: time.Microsecond}, {Within: 11 * time.Minute}, {Rounds: -1, Samples: -1}, {Calls: -1}, {Calls: 17},
	} {
		if _, err := doctor.Measure(t.Context(), memstore.NewDriver(), &o); !errors.Is(err, tokenstore.ErrInvalidToken) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestMeasureFindsTwoWinners(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := measured(t, careless{memstore.NewDriver()}, &doctor.MeasureOptions{Rounds: 3, Racers: 4, Samples: -1})
		if got := winners(m, doctor.RaceUpdate); !slices.Equal(got, []int{4, 4, 4}) {
			t.Errorf("winners: %v", got)
		}
		if len(m.Findings) != 1 || m.Findings[0].Kind != doctor.KindNotOneWinner || !strings.Contains(m.Findings[0].Detail, "update: in 3 of 3 rounds, several") {
			t.Errorf("%+v", m.Findings)
		}
	})
}

// TestMeasureFindsNoWinner checks that Measure reports a service that refuses every write of
// a round.
func TestMeasureFindsNoWinner(t *testing.T) {
	t.Parallel()
	c := newCounted(memstore.NewDriver())
	c.before = func(n int64) error {
		if n == 2 || n == 3 { // the racers of the first round
			return driver.ErrConflict
		}
		return nil
	}
	m := measured(t, c, &doctor.MeasureOptions{Rounds: 2, Racers: 2, Samples: -1})
	if got := winners(m, doctor.RaceUpdate); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("winners: %v", got)
	}
	if len(m.Findings) != 1 || m.Findings[0].Detail != "update: in 1 of 2 rounds, no write succeeded" {
		t.Errorf("%+v", m.Findings)
	}
}

// TestMeasureUndecided checks that Measure does not report an outage as a race without
// winners.
func TestMeasureUndecided(t *testing.T) {
	t.Parallel()
	c := newCounted(memstore.NewDriver())
	c.before = func(n int64) error {
		if n == 2 || n == 3 {
			return driver.ErrUnavailable
		}
		return nil
	}
	m := measured(t, c, &doctor.MeasureOptions{Rounds: 2, Racers: 2, Samples: -1})
	if r := m.Races[0].Rounds[0]; r.Winners != 0 || r.Failed != 2 || r.Decided() || len(m.Findings) != 0 {
		t.Errorf("%+v, findings %+v", r, m.Findings)
	}
}

// A lossy is a driver whose Update succeeds without writing.
type lossy struct{ driver.Secrets }

func (lossy) Update(_ context.Context, _ string, base driver.Secret, _ driver.Payload) (driver.Version, error) {
	return base.Version, nil
}

func TestMeasureFindsALostWrite(t *testing.T) {
	t.Parallel()
	m := measured(t, lossy{memstore.NewDriver()}, &doctor.MeasureOptions{Rounds: 1, Racers: 2, Samples: -1})
	if r := m.Races[0].Rounds[0]; !r.Lost || len(m.Findings) != 1 {
		t.Errorf("%+v, findings %+v", r, m.Findings)
	}
}

func TestMeasureLags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		read, list, promised time.Duration
		findings             int
		later                int // writes that lists do not show within a minute
	}{
		"as promised":           {2 * time.Second, 20 * time.Second, 30 * time.Second, 0, 0},
		"above the promise":     {2 * time.Second, 20 * time.Second, 5 * time.Second, 2, 0},
		"nothing promised":      {2 * time.Second, 20 * time.Second, driver.Unbounded, 0, 0},
		"longer than is waited": {2 * time.Second, time.Hour, driver.Unbounded, 0, 4},
		"promised no lag":       {2 * time.Second, 0, 0, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newLagging(memstore.NewDriver(), test.read, test.list, test.promised)
				m := measured(t, d, &doctor.MeasureOptions{Rounds: -1, Samples: 4})
				if len(m.Findings) != test.findings {
					t.Errorf("%+v", m.Findings)
				}
				for _, f := range m.Findings {
					if f.Kind != doctor.KindLag {
						t.Errorf("%+v", f)
					}
				}
				read, list := m.Lags[0], m.Lags[2]
				if at := slices.IndexFunc(read.Buckets, func(b doctor.Bucket) bool { return b.Count == 4 }); at < 0 || read.Buckets[at].WithinMS != 3000 || read.LongestMS != 1000 {
					t.Errorf("%+v", read)
				}
				if list.Later != test.later {
					t.Errorf("%+v", list)
				}
				if bounded := test.promised != driver.Unbounded; (read.PromisedMS != nil) != bounded {
					t.Errorf("%+v", read)
				}
			})
		})
	}
}

// TestMeasureCalls checks that Measure does not exceed the maximum number of calls, and
// leaves no probe, for each possible maximum.
func TestMeasureCalls(t *testing.T) {
	t.Parallel()
	o := doctor.MeasureOptions{Rounds: 2, Racers: 2, Samples: 1, Within: time.Millisecond}
	complete, err := o.Complete(driver.Properties{})
	if err != nil {
		t.Fatal(err)
	}
	stopped, whole := 0, 0
	for most := 18; most <= complete.Most()+1; most++ {
		d := memstore.NewDriver()
		c := newCounted(d)
		o.Calls = most
		m, err := doctor.Measure(t.Context(), c, &o)
		if err != nil || m.Calls != int(c.calls.Load()) || m.Calls > most || m.MostCalls != most {
			t.Errorf("at most %d: %d calls are reported, and %d were made: %v", most, m.Calls, c.calls.Load(), err)
		}
		noProbes(t, d)
		switch {
		case m.Stopped == "" && len(winners(m, doctor.RaceCreate)) == 2:
			whole++
		case m.Stopped == doctor.StoppedCalls:
			stopped++
		default:
			t.Errorf("at most %d: %+v", most, m)
		}
	}
	if stopped == 0 || whole == 0 {
		t.Errorf("%d measurements were stopped, and %d were complete", stopped, whole)
	}
}

// TestMeasureThrottled checks that Measure repeats throttled calls and counts each
// repetition.
func TestMeasureThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := memstore.NewDriver()
		c := newCounted(d)
		c.before = func(n int64) error {
			if n%3 == 0 {
				return driver.ErrThrottled
			}
			return nil
		}
		o := &doctor.MeasureOptions{Rounds: 3, Racers: 3, Samples: 3, Within: time.Second, Calls: 1000}
		m, err := doctor.Measure(t.Context(), c, o)
		if err != nil || m.Stopped != "" || len(m.Findings) != 0 || m.Calls != int(c.calls.Load()) {
			t.Errorf("%+v, %v, %d calls", m, err, c.calls.Load())
		}
		noProbes(t, d)
	})
}

// TestMeasureCanceled checks that no probe is left if the context is canceled at any call.
func TestMeasureCanceled(t *testing.T) {
	t.Parallel()
	o := &doctor.MeasureOptions{Rounds: 2, Racers: 2, Samples: 2, Within: time.Millisecond}
	for n := int64(1); ; n++ {
		d := memstore.NewDriver()
		c := newCounted(d)
		ctx, cancel := context.WithCancel(t.Context())
		c.before = func(call int64) error {
			if call == n {
				cancel()
			}
			return nil
		}
		m, err := doctor.Measure(ctx, c, o)
		cancel()
		noProbes(t, d)
		if err == nil {
			if n < 20 {
				t.Errorf("a measurement takes %d calls", n)
			}
			return
		}
		if !errors.Is(err, context.Canceled) || m.Stopped != doctor.StoppedContext {
			t.Errorf("canceled at call %d: %+v, %v", n, m, err)
		}
	}
}

// TestMeasureFails checks that the error of a driver ends a measurement and leaves no probe.
func TestMeasureFails(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	c := newCounted(d)
	c.before = func(n int64) error {
		if n == 10 {
			return fmt.Errorf("%w: no", driver.ErrDenied)
		}
		return nil
	}
	m, err := doctor.Measure(t.Context(), c, nil)
	if !errors.Is(err, driver.ErrDenied) || m.Stopped != doctor.StoppedError {
		t.Errorf("%+v, %v", m, err)
	}
	noProbes(t, d)
}

// TestMeasureKilled checks that stores ignore the probes of a measurement that was killed at
// any of its calls. Until these probes are old, the next measurement must fail, and Check must
// not report the probes. Afterwards, a measurement or a Check with Repair must remove the
// probes.
func TestMeasureKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &doctor.MeasureOptions{Rounds: 2, Racers: 2, Samples: 2, Within: time.Millisecond}
		found := 0
		for n := int64(2); n < 60; n++ {
			d := memstore.NewDriver()
			s, err := tokenstore.New(d.Reopen(), nil)
			if err != nil {
				t.Fatal(err)
			}
			record, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "r"})
			if err != nil {
				t.Fatal(err)
			}
			c := newCounted(d)
			c.before = func(call int64) error {
				if call >= n {
					return driver.ErrUnavailable
				}
				return nil
			}
			_, _ = doctor.Measure(t.Context(), c, o)
			left := len(namesOf(t, d))
			if got, err := s.GetTokens(t.Context()); err != nil || len(got) != 1 || got[0] != record {
				t.Errorf("killed at call %d: %v, %v", n, got, err)
			}
			if left == 0 {
				continue
			}
			if _, err := doctor.Measure(t.Context(), d, o); !errors.Is(err, tokenstore.ErrConflict) {
				t.Errorf("killed at call %d, and again: %v", n, err)
			}
			if got := checked(t, s, false); len(got) != 0 {
				t.Errorf("a probe that may be in use is a finding: %+v", got)
			}
			<-time.After(16 * time.Minute)
			if got := checked(t, s, false); len(got) != left || got[0].Repaired || !got[0].Kind.Harmless() {
				t.Errorf("killed at call %d: %d are left, found %+v", n, left, got)
			}
			if n%2 == 0 {
				measured(t, d, o)
				continue
			}
			if got := checked(t, s, true); len(got) != left || !got[0].Repaired {
				t.Errorf("killed at call %d: %d are left, repaired %+v", n, left, got)
			}
			noProbes(t, d)
			found += left
		}
		if found < 10 {
			t.Errorf("only %d probes were left", found)
		}
	})
}

// checked returns the findings of Check about probes that a measurement left behind.
func checked(t *testing.T, s *tokenstore.Store, repair bool) (found []doctor.Finding) {
	t.Helper()
	for f, err := range s.Check(t.Context(), &doctor.CheckOptions{Repair: repair}) {
		switch {
		case err != nil:
			t.Fatal(err)
		case f.Kind == doctor.KindProbeLeftBehind:
			found = append(found, f)
		case f.Kind != doctor.KindStoreUnkeyed:
			t.Errorf("another finding: %+v", f)
		}
	}
	return found
}

// TestMeasureLeavesListsOut checks that Measure does not measure the lists of a store with
// many secrets.
func TestMeasureLeavesListsOut(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	for i := range 21 {
		if _, err := d.Create(t.Context(), fmt.Sprint("other", i), driver.Payload{Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	m := measured(t, d, &doctor.MeasureOptions{Rounds: -1, Samples: 2})
	if l := m.Lags[2]; l.Skipped == "" || l.Samples != 0 || m.Lags[1].Samples != 2 {
		t.Errorf("%+v", m.Lags)
	}
}

// TestMeasurementAsJSON checks that the JSON form of a Measurement does not change, because
// other programs may rely on the form.
func TestMeasurementAsJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newLagging(memstore.NewDriver(), 2*time.Millisecond, 0, 0)
		m := measured(t, d, &doctor.MeasureOptions{Rounds: 1, Racers: 2, Samples: 1, Within: 5 * time.Millisecond})
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile("testdata/measurement.json")
		if err != nil {
			t.Fatal(err)
		}
		if string(text)+"\n" != string(want) {
			t.Errorf("the form is\n%s", text)
		}
		var again doctor.Measurement
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&again); err != nil {
			t.Error(err)
		}
	})
}
