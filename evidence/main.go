// Evidence proves what the documentation promises, and measures what it claims. It
// writes docs/evidence.md from its results:
//
//	go -C evidence run . -out ../docs
//
// Everything runs in this process, on the servers that stand for the services in
// the tests of the adapters: they enforce the documented rules and quotas, keep a
// clock of their own, and break on purpose. Nothing here was measured on the
// services themselves; the document says so.
//
//   - matrix breaks every call of every operation in every way, one at a time and
//     two at a time, and reads the store cold afterwards.
//   - histories checks what concurrent clients saw with porcupine, and that broken
//     services are found out by it.
//   - month lets the servers' clock run through thirty days of hourly refreshes.
//   - compare runs what a user would write instead beside the store, behind the
//     same delay, and counts; and starts a hundred cold instances with one expired
//     token.
//   - scale compares the calls among ten records with those among ten thousand.
//   - inprocess measures what costs no call at all.
//
// Without other flags it runs the sizes that a release is to have, which takes
// hours; the document names the flags it was made with. If anything is found that
// must not be, it is in the document, and the program fails.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sizes are what the flags say.
type sizes struct {
	doubles, histories, mistakes int
	seed                         uint64
	records                      int
	tokens                       []int
	delay                        time.Duration
	rounds, long, instances      int
	many, scaleRounds, local     int
}

// results are what was measured.
type results struct {
	sizes
	args  []string
	load  string // of the machine, before
	began time.Time
	took  []part

	cells     map[string][]cell
	doubled   map[string][]double
	history   map[string]histories
	mistaken  map[string]int
	usage     map[string]usage
	measured  map[string][]measurement
	stampedes map[string][]stampeded
	scaled    map[string][]scaled
	listed    map[string]listed
	locals    []localCost
	fresh     interval
}

// A part is a part of the run, and how long it took.
type part struct {
	name string
	took time.Duration
}

// histories are what was checked by porcupine.
type histories struct {
	operations int
	unsound    []unsound
}

func main() {
	out := flag.String("out", "", "the `folder` that evidence.md is written to")
	var s sizes
	var tokens string
	flag.IntVar(&s.doubles, "doubles", 100_000, "pairs of faults for each service")
	flag.IntVar(&s.histories, "histories", 1000, "histories of each service for the check of linearizability")
	flag.IntVar(&s.mistakes, "mistakes", 50, "histories in which a service with a mistake has to be found out")
	flag.Uint64Var(&s.seed, "seed", 1, "the first seed of what is drawn at random")
	flag.IntVar(&s.records, "records", 1000, "records that are refreshed for a month")
	flag.StringVar(&tokens, "tokens", "10,1000,10000", "how many tokens there are where contenders are compared")
	flag.DurationVar(&s.delay, "delay", 20*time.Millisecond, "how long each call is held up where times are compared")
	flag.IntVar(&s.rounds, "rounds", 30, "rounds in which each contender has its turn")
	flag.IntVar(&s.long, "long", 3, "rounds of what takes over a second")
	flag.IntVar(&s.instances, "instances", 100, "instances that find one token expired")
	flag.IntVar(&s.many, "many", 10_000, "tokens that finding and saving are done among, and that are listed")
	flag.IntVar(&s.scaleRounds, "scale-rounds", 20, "rounds of that")
	flag.IntVar(&s.local, "local-rounds", 40, "rounds of what makes no call")
	flag.Parse()
	if err := run(*out, s, tokens); err != nil {
		fmt.Fprintln(os.Stderr, "evidence:", err)
		os.Exit(1)
	}
}

func run(out string, s sizes, tokens string) error {
	if out == "" || flag.NArg() > 0 {
		return fmt.Errorf("usage: evidence -out folder [flags]")
	}
	for field := range strings.SplitSeq(tokens, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("-tokens: %q is no number of tokens", field)
		}
		s.tokens = append(s.tokens, n)
	}
	slices.Sort(s.tokens)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := &results{sizes: s, args: os.Args[1:], load: load(), began: time.Now().UTC()}
	if err := r.measure(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "evidence.md"), r.document(), 0o600); err != nil {
		return err
	}
	return r.verdict()
}

// measure runs everything. What is timed runs when nothing else does, but for the
// other services.
func (r *results) measure(ctx context.Context) error {
	type step struct {
		name string
		do   func() error
	}
	for _, s := range []step{
		{"in-process cost", func() (err error) {
			r.locals, r.fresh, err = measureLocal(ctx, r.local)
			return err
		}},
		{"scale", func() error { return r.scale(ctx) }},
		{"comparison", func() error {
			return onAll(&r.measured, func(service string) ([]measurement, error) {
				return compareAll(ctx, service, compareOptions{Tokens: r.tokens, Delay: r.delay, Rounds: r.rounds, Long: r.long})
			})
		}},
		{"stampede", func() error {
			return onAll(&r.stampedes, func(service string) ([]stampeded, error) {
				return stampedes(ctx, service, r.instances, r.delay)
			})
		}},
		{"month", func() error {
			return onAll(&r.usage, func(service string) (usage, error) { return month(ctx, service, r.records) })
		}},
		{"faults at every call", func() error {
			return onAll(&r.cells, func(service string) ([]cell, error) { return matrix(ctx, service) })
		}},
		{"two faults", func() error {
			return onAll(&r.doubled, func(service string) ([]double, error) {
				return doubles(ctx, service, r.doubles, r.seed)
			})
		}},
		{"linearizability", func() error {
			return onAll(&r.history, func(service string) (histories, error) { return r.linearize(ctx, service) })
		}},
		{"services with mistakes", func() (err error) {
			r.mistaken, err = findMistakes(ctx, r.mistakes)
			return err
		}},
	} {
		began := time.Now()
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		p := part{s.name, time.Since(began)}
		r.took = append(r.took, p)
		fmt.Fprintf(os.Stderr, "%-24s %v\n", p.name, p.took.Round(time.Second))
	}
	return nil
}

// scale runs one service after the other, because it looks at the heap.
func (r *results) scale(ctx context.Context) error {
	r.scaled, r.listed = map[string][]scaled{}, map[string]listed{}
	for _, service := range services {
		var err error
		if r.scaled[service], r.listed[service], err = measureScale(ctx, service, r.many, r.delay, r.scaleRounds); err != nil {
			return err
		}
	}
	return nil
}

func (r *results) linearize(ctx context.Context, service string) (h histories, err error) {
	h.operations, h.unsound, err = runHistories(ctx, service, plain, r.sizes.histories, r.seed)
	return h, err
}

// onAll calls f for all services at once.
func onAll[T any](into *map[string]T, f func(service string) (T, error)) error {
	all := map[string]T{}
	var mu sync.Mutex
	var first error
	var work sync.WaitGroup
	for _, service := range services {
		work.Go(func() {
			v, err := f(service)
			mu.Lock()
			defer mu.Unlock()
			all[service], first = v, cmp.Or(first, err)
		})
	}
	work.Wait()
	*into = all
	return first
}

// verdict returns an error if something was found that must not be.
func (r *results) verdict() error {
	var wrong []string
	add := func(n int, what string) {
		if n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, service := range services {
		_, failures := matrixRuns(r.cells[service])
		add(failures, service+" runs with one fault failed")
		add(len(r.doubled[service]), service+" runs with two faults failed")
		add(len(r.history[service].unsound), service+" histories have no explanation")
		add(r.usage[service].Refused, service+" calls were over a quota")
		add(max(0, r.listed[service].Calls-r.listed[service].Budget), service+" calls of a list were over the budget")
		for _, s := range r.scaled[service] {
			if s.Few != s.Many {
				add(1, service+" operation depends on how many tokens there are")
			}
		}
		for _, s := range r.stampedes[service] {
			if s.Contender == tokenkeep && (s.Requests != 1 || s.Failed > 0 || !s.Usable) {
				add(1, service+" stampede went wrong")
			}
		}
	}
	for mistake, at := range r.mistaken {
		if at == 0 {
			add(1, "mistake was not found: "+mistake)
		}
	}
	if r.fresh.Low > 1.5 {
		add(1, "fresh-token path takes over 1.5 times as long as oauth2.ReuseTokenSource")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("see the document: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// matrixRuns returns how many runs with one fault there were, and how many of them
// went wrong.
func matrixRuns(cells []cell) (runs, failures int) {
	for _, c := range cells {
		runs += c.Calls
		failures += len(c.Failures)
	}
	return runs, failures
}
