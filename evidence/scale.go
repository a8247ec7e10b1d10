package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// few is the number of tokens in the small store.
const few = 10

// A scaled compares one operation in a small store and in a large store.
type scaled struct {
	Service, Operation string
	Few, Many          int      // number of calls
	Ratio              interval // ratio of the time in the large store to the time in the small store; zero if not timed
}

type listed struct {
	Service string
	Tokens  int
	Calls   int
	Budget  int // maximum number of calls
	Took    time.Duration
	Grew    int // growth of the heap in bytes while All runs, after the first tenth of the records
	Held    int // size in bytes of the result of GetTokens
}

// measureScale compares searches and saves in a store with few tokens and in a store with
// many tokens, and lists the large store. If rounds is 0, measureScale only counts calls.
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

// ownListBudget returns the maximum number of calls that tokenkeep may make to list n tokens. On
// AWS, a long list is read in concurrent batches, and takes one more call for each hundred secrets.
func ownListBudget(service string, n int) int {
	if service == "aws" && n > 40 {
		return listBudget(service, n) + (n+99)/100
	}
	return listBudget(service, n)
}

// listBudget returns the maximum number of sequential calls to list n tokens.
func listBudget(service string, n int) int {
	up := func(of int) int { return (n + of - 1) / of }
	switch service {
	case "aws":
		return up(20)
	case "gcp":
		return up(25_000) + n
	case "k8s":
		return up(500)
	}
	return 1 + n
}

// list lists the tokens of w with GetTokens and with All. list counts the calls that GetTokens
// makes, and measures the size of the result. While All runs, list measures the growth of the
// heap.
func (w *world) list(ctx context.Context) (listed, error) {
	l := listed{Service: w.name, Tokens: w.users, Budget: ownListBudget(w.name, w.users)}
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

// live returns the size in bytes of the live heap, without the service's log of requests.
func (w *world) live() int {
	w.forget()
	for range 2 { // a sync.Pool keeps its items through one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
