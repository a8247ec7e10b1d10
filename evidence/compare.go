package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

type compareOptions struct {
	Tokens []int         // numbers of tokens in the stores to compare
	Delay  time.Duration // delay of each call to the service
	Rounds int           // number of rounds in which each contender runs once; if 0, nothing is timed
	Long   int           // number of rounds for an operation whose calls take over a second in total
}

// A measurement holds the calls and times of one operation of one contender.
type measurement struct {
	Service, Operation, Contender string
	Tokens                        int

	Missing string          // why the operation cannot be measured; empty if it can be measured
	Calls   int             // number of calls in one run of the operation
	Times   []time.Duration `json:"-"`
	Ratio   interval        // ratio to the time of tokenkeep; zero if the operation was not timed
}

// timedScan is the only search of listScan that is timed. The other searches of listScan make
// the same calls.
const timedScan = byUser

// timedList is the maximum number of tokens in a list that is timed. The time of a longer
// list is proportional to its calls.
const timedList = 1000

// compareAll measures each operation of all contenders on a service, for each number of
// tokens.
func compareAll(ctx context.Context, service string, opts compareOptions) ([]measurement, error) {
	var all []measurement
	for _, n := range opts.Tokens {
		w, err := newWorld(ctx, service, worldOptions{users: n})
		if err != nil {
			return nil, err
		}
		for _, op := range comparedBy {
			measured, err := w.compare(ctx, op, opts)
			if err != nil {
				w.close()
				return nil, fmt.Errorf("%s, %d tokens: %w", service, n, err)
			}
			all = append(all, measured...)
		}
		w.close()
	}
	return all, nil
}

// compare measures the operation op of all contenders.
func (w *world) compare(ctx context.Context, op string, opts compareOptions) ([]measurement, error) {
	contenders := w.contenders()
	measured := make([]measurement, len(contenders))
	for i, c := range contenders {
		var err error
		if measured[i], err = w.counted(ctx, c, op); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c.name, op, err)
		}
	}
	if err := w.race(ctx, contenders, measured, opts); err != nil {
		return nil, err
	}
	for i := range measured {
		if m := &measured[i]; len(m.Times) > 0 && len(measured[0].Times) > 0 {
			m.Ratio = ratioOf(m.Times, measured[0].Times)
		}
	}
	return measured, nil
}

// counted returns a measurement of the operation op. The measurement contains the number of calls
// or, if c does not support op, the reason.
func (w *world) counted(ctx context.Context, c contender, op string) (measurement, error) {
	m := measurement{Service: w.name, Operation: op, Contender: c.name, Tokens: w.users}
	switch {
	case c.do[op] == nil && c.name == oneBlob && w.noBlob && op != byID:
		m.Missing = "does not fit"
		return m, nil
	case c.do[op] == nil:
		m.Missing = "no"
		return m, nil
	}
	var err error
	m.Calls, err = w.count(ctx, c, op)
	return m, err
}

// race times the contenders in rounds, and adds the times to measured. The order of the
// contenders rotates by one position in each round.
func (w *world) race(ctx context.Context, contenders []contender, measured []measurement, opts compareOptions) error {
	var turns []int
	for i, m := range measured {
		if m.Missing == "" && w.isTimed(m) {
			turns = append(turns, i)
		}
	}
	w.meter.delay.Store(int64(opts.Delay))
	defer w.meter.delay.Store(0)
	for round := range opts.Rounds {
		for at := range turns {
			i := turns[(round+at)%len(turns)]
			m := &measured[i]
			if time.Duration(m.Calls)*opts.Delay > time.Second && round >= opts.Long {
				continue
			}
			took, err := w.timed(ctx, contenders[i], m.Operation)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", m.Contender, m.Operation, err)
			}
			m.Times = append(m.Times, took)
		}
	}
	return nil
}

// isTimed reports whether the operation of m is timed. The only timed operation of listScan is
// timedScan. Lists of more than timedList tokens are not timed.
func (w *world) isTimed(m measurement) bool {
	scans := m.Contender == listScan
	return m.Operation == timedScan || !scans && (m.Operation != listAll || w.users <= timedList)
}

// warmUps is the number of times that count runs an operation that has a reset function. Only the
// last run is counted, so that the count includes the cleanup after earlier runs.
const warmUps = 3

// count returns the number of calls in the last run of an operation. An operation that has a reset
// function runs warmUps times, and any other operation runs once.
func (w *world) count(ctx context.Context, c contender, op string) (int, error) {
	times := warmUps
	if c.reset[op] == nil {
		times = 1
	}
	for range times {
		w.meter.take()
		if _, err := w.timed(ctx, c, op); err != nil {
			return 0, err
		}
	}
	return total(w.meter.take()), nil
}

// timed runs the reset function of an operation, if any, and then the operation. timed returns
// the duration of the operation alone.
func (w *world) timed(ctx context.Context, c contender, op string) (time.Duration, error) {
	if reset := c.reset[op]; reset != nil {
		if err := w.meter.free(func() error { return reset(ctx) }); err != nil {
			return 0, fmt.Errorf("reset: %w", err)
		}
	}
	w.forget()
	began := time.Now()
	err := c.do[op](ctx)
	return time.Since(began), err
}

// stampeded is the outcome of a stampede, in which many instances find the same token expired.
type stampeded struct {
	Service, Contender string
	Strict             bool // the authorization server rotates refresh tokens
	Instances          int

	Requests int  // token requests
	Failed   int  // instances without a token
	Calls    int  // calls to the service
	Usable   bool // the stored token can be refreshed afterwards
	Took     time.Duration
}

// endpointTime is the response time of the authorization server.
const endpointTime = 200 * time.Millisecond

// stampedes runs two stampedes, one of tokenkeep and one of perUser, with each of two authorization
// servers. One server follows Zoho's rules, and the other server rotates refresh tokens.
func stampedes(ctx context.Context, service string, instances int, delay time.Duration) ([]stampeded, error) {
	var all []stampeded
	for _, strict := range []bool{false, true} {
		for _, contender := range []string{tokenkeep, perUser} {
			s, err := stampede(ctx, service, contender, strict, instances, delay)
			if err != nil {
				return nil, fmt.Errorf("%s: stampede of %s: %w", service, contender, err)
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func stampede(ctx context.Context, service, name string, strict bool, instances int, delay time.Duration) (stampeded, error) {
	s := stampeded{Service: service, Contender: name, Strict: strict, Instances: instances}
	w, err := newWorld(ctx, service, worldOptions{users: 10, strict: strict})
	if err != nil {
		return s, err
	}
	defer w.close()
	all := w.contenders()
	c := all[slices.IndexFunc(all, func(c contender) bool { return c.name == name })]
	if err := c.reset[renewToken](ctx); err != nil {
		return s, err
	}
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &zohoaccounts.Fault{Delay: endpointTime} })
	w.meter.take()
	w.meter.delay.Store(int64(delay))
	failed := make([]bool, instances)
	var work sync.WaitGroup
	began := time.Now()
	for i := range instances {
		work.Go(func() { failed[i] = c.do[renewToken](ctx) != nil })
	}
	work.Wait()
	s.Took = time.Since(began)
	w.meter.delay.Store(0)
	s.Calls = total(w.meter.take())
	s.Requests = w.zoho.Count(zohoaccounts.Refresh)
	for _, f := range failed {
		if f {
			s.Failed++
		}
	}
	s.Usable, err = w.usable(ctx, name)
	return s, err
}

// usable reports whether the authorization server accepts the refresh token that the named
// contender stored.
func (w *world) usable(ctx context.Context, name string) (bool, error) {
	w.zoho.Inject(nil)
	w.zoho.Advance(betweenWrites)
	r, err := w.getRow(ctx)
	if name == tokenkeep {
		t, e := w.store.FindTokenByID(ctx, w.wanted.ID)
		r, err = rowOf(t), e
	}
	if err != nil {
		return false, err
	}
	r.Expiry = time.UnixMilli(1000)
	_, renewed, err := w.fresh(ctx, r)
	return err == nil && renewed, nil
}
