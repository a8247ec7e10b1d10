package doctor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

// longestWithin is the longest time for which Measure waits for a write to become visible.
const longestWithin = 10 * time.Minute

// bounds returns the upper limits of the buckets of a histogram.
func bounds() []time.Duration {
	return []time.Duration{
		time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
		time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 3 * time.Minute, longestWithin,
	}
}

// polls returns the times after a write at which reads look for the write: 0, each bucket limit
// below the given duration, and that duration.
func polls(within time.Duration) []time.Duration {
	at := []time.Duration{0}
	for _, b := range bounds() {
		if b < within {
			at = append(at, b)
		}
	}
	return append(at, within)
}

// The ways to look for a write, in the order of Measurement.Lags.
const (
	LagRead   = "read"   // Get by name
	LagSearch = "search" // Lookup by a label that the write added
	LagList   = "list"   // List
)

// A look is a way to look for a write. It is an index in Measurement.Lags.
type look int

const (
	byName look = iota
	byLabel
	byList
	lags // number of ways
)

// A Lag is a histogram of the times until writes became visible. Each time runs from the
// return of the write to the start of the first read that sees the write.
type Lag struct {
	Of string `json:"of"` // LagRead, LagSearch or LagList

	// PromisedMS is the maximum lag that the driver promises. It is nil if the driver
	// promises no bound.
	PromisedMS *float64 `json:"promised_ms"`

	Samples int      `json:"samples"`   // number of writes
	Buckets []Bucket `json:"buckets"`   // with limits up to Within, in increasing order
	Later   int      `json:"later"`     // number of writes that were not yet visible after Within
	Within  float64  `json:"within_ms"` // MeasureOptions.Within, in milliseconds

	// LongestMS is the longest time after a write at which a read still missed the write.
	// LongestMS is 0 if no read missed a write.
	LongestMS float64 `json:"longest_ms"`

	// Above is the number of writes that a read missed at or after PromisedMS.
	Above int `json:"above"`

	// Skipped is the reason why nothing was measured, or "".
	Skipped string `json:"skipped,omitempty"`
}

// A Bucket counts the writes that became visible within WithinMS, but not within the WithinMS
// of the previous bucket.
type Bucket struct {
	WithinMS float64 `json:"within_ms"`
	Count    int     `json:"count"`
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func newLag(of string, promised, within time.Duration) Lag {
	l := Lag{Of: of, Within: milliseconds(within), Buckets: []Bucket{}}
	if promised != driver.Unbounded {
		ms := milliseconds(promised)
		l.PromisedMS = &ms
	}
	for _, at := range polls(within)[1:] {
		l.Buckets = append(l.Buckets, Bucket{WithinMS: milliseconds(at)})
	}
	return l
}

// A sight is the outcome of looking for one write. The times are measured from the return of
// the write.
type sight struct {
	seen   bool
	at     time.Duration // start of the first read that saw the write
	missed time.Duration // start of the last read that missed the write
	misses int           // number of reads that missed the write
}

func (l *Lag) add(s sight) {
	l.Samples++
	l.LongestMS = max(l.LongestMS, milliseconds(s.missed))
	if l.PromisedMS != nil && s.misses > 0 && milliseconds(s.missed) >= *l.PromisedMS {
		l.Above++
	}
	for i := range l.Buckets {
		if s.seen && milliseconds(s.at) <= l.Buckets[i].WithinMS {
			l.Buckets[i].Count++
			return
		}
	}
	l.Later++
}

// deviations returns a Deviation if a lag exceeds the promise, and otherwise nil.
func (l Lag) deviations() []Deviation {
	if l.Above == 0 {
		return nil
	}
	return []Deviation{{KindLag, fmt.Sprintf("%s: %d of %d writes were invisible for longer than the promised %v, one of them for %v",
		l.Of, l.Above, l.Samples, fromMS(*l.PromisedMS), fromMS(l.LongestMS).Round(time.Microsecond))}}
}

func fromMS(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// samples measures how long new states stay invisible. It writes each state with a new label.
func (m *measuring) samples(ctx context.Context, r *Measurement) error {
	if m.o.Samples == 0 {
		return nil
	}
	p := m.drivers[0].Properties()
	r.Lags = append(r.Lags, newLag(LagRead, p.ReadLag, m.o.Within), newLag(LagSearch, p.ListLag, m.o.Within), newLag(LagList, p.ListLag, m.o.Within))
	small, err := m.small(ctx)
	if err != nil {
		return err
	}
	looks := []look{byName, byLabel, byList}
	if !small {
		r.Lags[byList].Skipped = fmt.Sprintf("a list reads all secrets, and there are more than %d", mostSecrets)
		looks = looks[:byList]
	}
	pacers := make([]*pace.Pacer, lags)
	for i := range pacers {
		pacers[i] = newPacer()
	}
	for range m.o.Samples {
		label := driver.Label{Key: "probe", Value: ledger.Digest(nil, "probe", ledger.Nonce()), Nonce: ledger.Nonce()}
		if err := m.update(ctx, label); err != nil {
			return err
		}
		sights, err := m.watch(ctx, looks, pacers, label)
		if err != nil {
			return err
		}
		for i, s := range sights {
			r.Lags[looks[i]].add(s)
		}
	}
	return nil
}

// small reports whether the driver has at most mostSecrets secrets besides the probes.
func (m *measuring) small(ctx context.Context) (bool, error) {
	n := 0
	err := m.call(ctx, m.writes, func(ctx context.Context) error {
		n = 0
		for name, err := range m.drivers[0].Names(ctx) {
			if err != nil {
				return err
			}
			if !ledger.Measures(name) {
				n++
			}
			if n > mostSecrets {
				break
			}
		}
		return nil
	})
	return n <= mostSecrets, err
}

// watch looks for the last write of ProbeUpdate in all given ways, concurrently.
func (m *measuring) watch(ctx context.Context, looks []look, pacers []*pace.Pacer, label driver.Label) ([]sight, error) {
	sights, errs := make([]sight, len(looks)), make([]error, len(looks))
	began := m.wrote
	var wait sync.WaitGroup
	for i, l := range looks {
		wait.Go(func() {
			sights[i], errs[i] = m.poll(ctx, pacers[l], began, func(ctx context.Context) (bool, error) { return m.sees(ctx, l, label) })
		})
	}
	wait.Wait()
	return sights, cmp.Or(errs...)
}

// poll looks for a write until a read sees the write or Within has passed. The parameter began is
// the time at which the write returned.
func (m *measuring) poll(ctx context.Context, p *pace.Pacer, began time.Time, look func(context.Context) (bool, error)) (s sight, err error) {
	times := polls(m.o.Within)
	for i, at := range times {
		passed := time.Since(began)
		if i > 0 && i+1 < len(times) && passed >= times[i+1] {
			continue // the earlier reads took so long that the next read is due
		}
		if err := driverkit.Sleep(ctx, at-passed); err != nil {
			return s, err
		}
		var seen bool
		var start time.Duration
		err := m.call(ctx, p, func(ctx context.Context) (err error) {
			start = time.Since(began)
			seen, err = look(ctx)
			return err
		})
		switch {
		case err == nil && seen:
			s.seen, s.at = true, start
			return s, nil
		case err == nil:
			s.misses, s.missed = s.misses+1, start
		case ctx.Err() != nil:
			return s, ctx.Err()
		case !errors.Is(err, driver.ErrUnavailable) || throttled(err):
			return s, err
		} // a read that fails because the service is unavailable shows nothing
	}
	return s, nil
}

// sees makes one read of the kind l, and reports whether the read shows the current state of
// ProbeUpdate.
func (m *measuring) sees(ctx context.Context, l look, label driver.Label) (bool, error) {
	d, want := m.reader(), m.state.Data
	if l == byName {
		now, err := d.Get(ctx, ledger.ProbeUpdate)
		if errors.Is(err, driver.ErrNotFound) {
			return false, nil
		}
		return err == nil && bytes.Equal(now.Data, want), err
	}
	find := d.List
	if l == byLabel {
		find = func(ctx context.Context) iter.Seq2[driver.Named, error] { return d.Lookup(ctx, []driver.Label{label}) }
	}
	for named, err := range find(ctx) {
		switch {
		case err != nil && named.Name == "":
			return false, err
		case named.Name == ledger.ProbeUpdate:
			return err == nil && bytes.Equal(named.Data, want), nil
		}
	}
	return false, nil
}
