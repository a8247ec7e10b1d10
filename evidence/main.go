// Evidence tests the promises that the documentation makes, and measures the numbers that the
// documentation gives. Evidence writes the results to docs/evidence.md and docs/evidence/:
//
//	go -C evidence run . -out ../docs
//
// All parts except inprocess use the fakes that the tests of the adapters use. The parts
// coldstart and virtual start other processes. The fakes enforce the documented rules and quotas,
// have their own clocks, and inject faults. Evidence does not measure the real services. The
// document states this limit.
//
//   - matrix injects each fault at each call of each operation. Afterwards, matrix checks the
//     records with a new store, like a new process. TestTwoFaults does the same with random pairs
//     of faults.
//   - histories checks with porcupine that the results of concurrent clients are
//     linearizable, and that the check detects broken services.
//   - TestMonth runs the fakes' clock through thirty days of hourly refreshes.
//   - compare runs tokenkeep and its alternatives with the same delay for each call, and counts
//     the calls. compare also starts many instances that find the same token expired.
//   - scale compares operations in a store of ten records with operations in a store of ten
//     thousand, by their calls and times.
//   - virtual runs the tests of quotas and peers, TestTwoFaults and TestMonth, and reads their
//     results. These measurements are tests, because only a test can use the virtual clock of
//     testing/synctest.
//   - inprocess measures parts of operations that make no calls to a service.
//   - coldstart compares a process that gets one token with this module to a process that
//     uses the SDK alone.
//
// The flag -results names a file that keeps the results of each finished part. A run with the
// same flags continues after the last part in the file. If the file contains all parts, the
// run only writes the document.
//
// By default, evidence runs all parts at the size for a release, which takes hours. The document
// shows the flags of the run, and names the parts that are smaller than for a release. If evidence
// finds a failure, the document reports the failure, and the program exits with status 1.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type sizes struct {
	doubles, histories, mistakes int
	seed                         uint64
	records                      int
	tokens                       []int
	delay                        time.Duration
	rounds, long, instances      int
	many, scaleRounds, local     int
	starts                       int
}

// results holds the results of a run. The file that -results names contains the exported
// fields.
type results struct {
	sizes
	Args    []string // flags that set the sizes
	Machine string
	Load    string // load of the machine before the run
	Began   time.Time
	Took    []part

	Cells     map[string][]cell
	Doubled   map[string][]double
	History   map[string]histories
	Mistaken  map[string]int
	Usage     map[string]usage
	Measured  map[string][]measurement
	Stampedes map[string][]stampeded
	Virtual   virtual
	Scaled    map[string][]scaled
	Listed    map[string]listed
	Locals    []localCost
	Fresh     interval
	Started   map[string]startCost
}

type part struct {
	Name string
	Took time.Duration
}

// histories holds the results of checking histories with porcupine.
type histories struct {
	Operations int
	Unsound    []unsound
}

func main() {
	out := flag.String("out", "", "the `folder` that evidence.md and the pages of evidence/ are written to")
	kept := flag.String("results", "", "the `file` that keeps the results after each part; a run continues after the parts in it")
	var s sizes
	var tokens string
	flag.IntVar(&s.doubles, "doubles", 25_000, "pairs of faults for each service")
	flag.IntVar(&s.histories, "histories", 1000, "histories of each service for the check of linearizability")
	flag.IntVar(&s.mistakes, "mistakes", 400, "maximum number of histories until the bug of a broken service is found")
	flag.Uint64Var(&s.seed, "seed", 1, "the first seed of the random choices")
	flag.IntVar(&s.records, "records", 1000, "records that are refreshed for a month")
	flag.StringVar(&tokens, "tokens", "10,1000,10000", "numbers of tokens for which the contenders are compared")
	flag.DurationVar(&s.delay, "delay", 20*time.Millisecond, "delay of each call in the comparisons of times")
	flag.IntVar(&s.rounds, "rounds", 30, "rounds of the comparison of contenders")
	flag.IntVar(&s.long, "long", 3, "rounds for a contender that takes over a second")
	flag.IntVar(&s.instances, "instances", 100, "instances that find one token expired")
	flag.IntVar(&s.many, "many", 10_000, "tokens of the large store whose searches, saves and list are measured")
	flag.IntVar(&s.scaleRounds, "scale-rounds", 20, "rounds of the comparison with the large store")
	flag.IntVar(&s.local, "local-rounds", 40, "rounds of the operations that make no call")
	flag.IntVar(&s.starts, "starts", 100, "starts of each program that gets one token")
	flag.Parse()
	if err := run(*out, *kept, s, tokens); err != nil {
		fmt.Fprintln(os.Stderr, "evidence:", err)
		os.Exit(1)
	}
}

func run(out, kept string, s sizes, tokens string) error {
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
	r, err := resume(kept, &results{sizes: s, Args: sizeFlags(), Machine: machine(), Load: load(), Began: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := r.measure(ctx, kept); err != nil {
		return err
	}
	if err := r.write(out); err != nil {
		return err
	}
	return r.verdict()
}

// sizeFlags returns the flags that were given, except the flags that name files.
func sizeFlags() []string {
	args := []string{}
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "out" && f.Name != "results" {
			args = append(args, "-"+f.Name, f.Value.String())
		}
	})
	return args
}

// resume returns the results in the file named by kept, or r if kept is empty or the file does not
// exist. resume returns an error if the file cannot be read, or if a run with other size flags
// wrote the file.
func resume(kept string, r *results) (*results, error) {
	data, err := os.ReadFile(kept)
	if kept == "" || errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	earlier := &results{sizes: r.sizes}
	if err := json.Unmarshal(data, earlier); err != nil {
		return nil, fmt.Errorf("%s: %w", kept, err)
	}
	if !slices.Equal(earlier.Args, r.Args) {
		return nil, fmt.Errorf("%s has the results of a run with the flags %q", kept, earlier.Args)
	}
	return earlier, nil
}

// keep writes the results to the file named by kept, unless kept is empty. An interruption leaves
// the old file intact.
func (r *results) keep(kept string) error {
	if kept == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(kept+".new", data, 0o600)
	}
	if err != nil {
		return err
	}
	return os.Rename(kept+".new", kept)
}

func (r *results) write(out string) error {
	if err := os.MkdirAll(filepath.Join(out, "evidence"), 0o750); err != nil {
		return err
	}
	for name, page := range r.pages() {
		if err := os.WriteFile(filepath.Join(out, name), page, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// measure runs the steps whose results r lacks, one after another. After each step, measure
// calls r.keep.
func (r *results) measure(ctx context.Context, kept string) error {
	type step struct {
		name string
		do   func() error
	}
	for _, s := range []step{
		{"in-process cost", func() (err error) {
			r.Locals, r.Fresh, err = measureLocal(ctx, r.local)
			return err
		}},
		{"cold start", func() (err error) {
			r.Started, err = coldStarts(ctx, r.starts)
			return err
		}},
		{"scale", func() error { return r.scale(ctx) }},
		{"comparison", func() error {
			return onAll(&r.Measured, func(service string) ([]measurement, error) {
				return compareAll(ctx, service, compareOptions{Tokens: r.tokens, Delay: r.delay, Rounds: r.rounds, Long: r.long})
			})
		}},
		{"stampede", func() error {
			return onAll(&r.Stampedes, func(service string) ([]stampeded, error) {
				return stampedes(ctx, service, r.instances, r.delay)
			})
		}},
		{"quotas and peers", func() (err error) {
			r.Virtual, err = measureVirtual(ctx)
			return err
		}},
		{"month", func() (err error) {
			r.Usage, err = measureMonth(ctx, r.records)
			return err
		}},
		{"faults at every call", func() error {
			return onAll(&r.Cells, func(service string) ([]cell, error) { return matrix(ctx, service) })
		}},
		{"two faults", func() (err error) {
			r.Doubled, err = measureDoubles(ctx, r.doubles, r.seed)
			return err
		}},
		{"linearizability", func() error {
			return onAll(&r.History, func(service string) (histories, error) { return r.linearize(ctx, service) })
		}},
		{"services with mistakes", func() (err error) {
			r.Mistaken, err = findMistakes(ctx, r.mistakes)
			return err
		}},
	} {
		if slices.ContainsFunc(r.Took, func(p part) bool { return p.Name == s.name }) {
			continue
		}
		began := time.Now()
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		p := part{s.name, time.Since(began)}
		r.Took = append(r.Took, p)
		if err := r.keep(kept); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%-24s %v\n", p.Name, p.Took.Round(time.Second))
	}
	return nil
}

// scale measures one service at a time, because a measurement of the heap must not include other
// services.
func (r *results) scale(ctx context.Context) error {
	r.Scaled, r.Listed = map[string][]scaled{}, map[string]listed{}
	for _, service := range services {
		var err error
		if r.Scaled[service], r.Listed[service], err = measureScale(ctx, service, r.many, r.delay, r.scaleRounds); err != nil {
			return err
		}
	}
	return nil
}

func (r *results) linearize(ctx context.Context, service string) (h histories, err error) {
	h.Operations, h.Unsound, err = runHistories(ctx, service, plain, r.sizes.histories, r.seed)
	return h, err
}

// onAll calls f for all services concurrently, sets *into to the results, and returns the first
// error, if any.
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

// verdict returns an error that lists the failures in r, or nil if r has no failures.
func (r *results) verdict() error {
	var wrong []string
	add := func(n int, what string) {
		if n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, service := range services {
		_, failures := matrixRuns(r.Cells[service])
		add(failures, service+" runs with one fault failed")
		add(len(r.Doubled[service]), service+" runs with two faults failed")
		add(len(r.History[service].Unsound), service+" histories have no explanation")
		add(r.Usage[service].Refused, service+" calls were over a quota")
		add(max(0, r.Listed[service].Calls-r.Listed[service].Budget), service+" calls of a list were over the budget")
		for _, s := range r.Scaled[service] {
			if s.Few != s.Many {
				add(1, service+" operation depends on how many tokens there are")
			}
		}
		for _, s := range r.Stampedes[service] {
			if s.Contender == tokenkeep && (s.Requests != 1 || s.Failed > 0 || !s.Usable) {
				add(1, service+" stampede went wrong")
			}
		}
	}
	add(len(r.Virtual.Failed), "tests of quotas and peers failed: "+strings.Join(r.Virtual.Failed, ", "))
	for mistake, at := range r.Mistaken {
		if at == 0 {
			add(1, "mistake was not found: "+mistake)
		}
	}
	if r.Fresh.Low > 1.5 {
		add(1, "fresh-token path takes over 1.5 times as long as oauth2.ReuseTokenSource")
	}
	for _, service := range coldServices {
		if r.Started[service].CPU.Low > mostCold {
			add(1, fmt.Sprintf("cold start on %s takes over %v times the CPU time of the SDK alone", service, mostCold))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("see the document: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// matrixRuns returns the number of runs with one fault, and the number of failed runs.
func matrixRuns(cells []cell) (runs, failures int) {
	for _, c := range cells {
		runs += c.Calls
		failures += len(c.Failures)
	}
	return runs, failures
}
