package conformance

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A mutant is a deliberately broken backend. A case of the clause that the mutant breaks
// must fail.
type mutant[B any] struct {
	name   string
	peer   string // an existing program with this bug, if any is known
	clause string
	b      B
}

// recorder is a testing.TB that records the outcome of a case.
type recorder struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex
	failures []string
	skipped  bool
	cleanups []func()
}

func (r *recorder) fail(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

// failed returns the failures so far. A goroutine that outlives its case may report failures
// later.
func (r *recorder) failed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failures)
}

func (r *recorder) Helper()                  {}
func (r *recorder) Log(...any)               {}
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Context() context.Context { return r.ctx }
func (r *recorder) Fail()                    { r.fail("") }
func (r *recorder) Error(args ...any)        { r.fail(fmt.Sprint(args...)) }

func (r *recorder) Errorf(format string, args ...any) { r.fail(fmt.Sprintf(format, args...)) }

func (r *recorder) FailNow() {
	r.fail("")
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.fail(fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (r *recorder) Skip(...any)          { r.Skipf("") }
func (r *recorder) Skipf(string, ...any) { r.SkipNow() }

func (r *recorder) SkipNow() {
	r.mu.Lock()
	r.skipped = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

func (r *recorder) Skipped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// record runs a case and returns the recorder of its outcome.
func record[E any](t *testing.T, c testCase[E], newEnv func(control) E) *recorder {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &recorder{TB: t, ctx: ctx}
	var done sync.WaitGroup
	done.Go(func() { runCase(r, new(summary), c, newEnv) })
	done.Wait()
	cancel()
	done.Go(func() {
		for _, f := range slices.Backward(r.cleanups) {
			f()
		}
	})
	done.Wait()
	return r
}

// hunt checks that, for each mutant, a case of the broken clause fails and the failure quotes
// the clause. hunt also checks that each clause has a mutant.
func hunt[B, E any](t *testing.T, mutants []mutant[B], cases []testCase[E], newEnv func(control, B) E) {
	t.Helper()
	names, bitten := map[string]bool{}, map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("two mutants are called %q", m.name)
		}
		names[m.name], bitten[m.clause] = true, true
		t.Run(m.clause+" "+m.name, func(t *testing.T) {
			t.Parallel()
			var caught, tried []string
			for _, c := range cases {
				if c.clause != m.clause {
					continue
				}
				tried = append(tried, c.title())
				r := record(t, c, func(c control) E { return newEnv(c, m.b) })
				for _, failure := range r.failed() {
					if strings.Contains(failure, quote(m.clause)) {
						caught = append(caught, c.title())
						break
					}
				}
			}
			if caught == nil {
				t.Errorf("%q survives %q", m.name, tried)
			}
			t.Logf("%s: caught by %q", m.peer, caught)
		})
	}
	for _, c := range cases {
		if !bitten[c.clause] {
			bitten[c.clause] = true
			t.Errorf("no mutant breaks %s", quote(c.clause))
		}
	}
	t.Logf("%d mutants of %d clauses", len(mutants), len(slices.Collect(maps.Keys(bitten))))
}

// gap waits a millisecond between two steps that should be atomic.
func gap(ctx context.Context) {
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
