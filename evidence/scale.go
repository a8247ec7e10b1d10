package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// few is the number of tokens that larger ones are compared with.
const few = 10

// A scaled is one operation among few and among many tokens.
type scaled struct {
	Service, Operation string
	Few, Many          int      // calls
	Ratio              interval // of the times among many to those among few; zero if it was not timed
}

// A listed is a list of many tokens.
type listed struct {
	Service string
	Tokens  int
	Calls   int
	Budget  int // of calls
	Took    time.Duration
	Grew    int // bytes that All has in use after the last record more than after the first tenth
	Held    int // bytes of what GetTokens returns
}

// measureScale compares finding and saving among ten tokens and among many, and lists the
// many. Without rounds nothing is timed.
func measureScale(ctx context.Context, service string, many int, delay time.Duration, rounds int) ([]scaled, listed, error) {
	small, err := newWorld(ctx, service, worldOptions{users: few, alone: true})
	if err != nil {
		return nil, listed{}, err
	}
	defer small.close()
	large, err := newWorld(ctx, service, worldOptions{users: many, alone: true})
	if err != nil {
		return nil, listed{}, err
	}
	defer large.close()
	var all []scaled
	for _, op := range comparedBy {
		if op == listAll {
			continue
		}
		s, err := scale(ctx, small, large, op, delay, rounds)
		if err != nil {
			return nil, listed{}, fmt.Errorf("%s: %s: %w", service, op, err)
		}
		all = append(all, s)
	}
	listed, err := large.list(ctx)
	return all, listed, err
}

func scale(ctx context.Context, small, large *world, op string, delay time.Duration, rounds int) (s scaled, err error) {
	worlds := []*world{small, large}
	s = scaled{Service: small.name, Operation: op}
	for i, calls := range []*int{&s.Few, &s.Many} {
		if *calls, err = worlds[i].count(ctx, worlds[i].tokenkeep(), op); err != nil {
			return s, err
		}
	}
	times := make([][]time.Duration, len(worlds))
	for round := range rounds {
		for at := range worlds {
			i := (round + at) % len(worlds)
			w := worlds[i]
			w.meter.delay.Store(int64(delay))
			took, err := w.timed(ctx, w.tokenkeep(), op)
			w.meter.delay.Store(0)
			if err != nil {
				return s, err
			}
			times[i] = append(times[i], took)
		}
	}
	if rounds > 0 {
		s.Ratio = ratioOf(times[1], times[0])
	}
	return s, nil
}

// listBudget is how many calls a list of n takes at most.
func listBudget(service string, n int) int {
	up := func(of int) int { return (n + of - 1) / of }
	switch service {
	case "aws":
		return up(20)
	case "gcp":
		return up(25_000) + n
	}
	return 1 + n
}

// list lists what there is, and finds out how much memory that takes.
func (w *world) list(ctx context.Context) (listed, error) {
	l := listed{Service: w.name, Tokens: w.users, Budget: listBudget(w.name, w.users)}
	w.meter.take()
	began := time.Now()
	tokens, err := w.store.GetTokens(ctx)
	l.Took = time.Since(began)
	if err = w.complete(len(tokens), err); err != nil {
		return l, err
	}
	l.Calls = total(w.meter.take())
	full := w.live()
	runtime.KeepAlive(tokens)
	tokens = nil
	l.Held = full - w.live()

	n, first := 0, 0
	for _, err := range w.store.All(ctx) {
		if err != nil {
			return l, err
		}
		switch n++; n {
		case max(1, w.users/10):
			first = w.live()
		case w.users:
			l.Grew = w.live() - first
		}
	}
	return l, w.complete(n, nil)
}

// live returns how many bytes are in use, without what the service remembers of
// requests.
func (w *world) live() int {
	w.forget()
	for range 2 { // what is in pools survives one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
