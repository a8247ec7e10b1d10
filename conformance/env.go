package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// caseTimeout is the default timeout of a case.
	caseTimeout = time.Minute

	// patience is the longest lag for which the suite waits.
	patience = time.Minute

	// prompt is the time within which a method must return once its context is done.
	prompt = 5 * time.Second
)

// An env is the environment of one case. Errorf and Fatalf quote the clause of the case.
type env struct {
	testing.TB
	control
	ctx    context.Context
	settle func() // makes lags pass; nil means to wait for them
}

// newEnv returns the environment of a case with the given timeout; 0 means caseTimeout. If
// the case does not end within caseTimeout after its timeout, a timer panics with the title of
// the case.
func newEnv(c control, timeout time.Duration) env {
	if timeout == 0 {
		timeout = caseTimeout
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), timeout)
	watchdog := time.AfterFunc(timeout+caseTimeout, func() {
		panic(fmt.Sprintf("conformance: %q does not end", c.title))
	})
	c.t.Cleanup(func() {
		watchdog.Stop()
		cancel()
	})
	return env{TB: c.t, control: c, ctx: ctx}
}

// Errorf reports a failure and quotes the broken clause.
func (e *env) Errorf(format string, args ...any) {
	e.TB.Helper()
	e.TB.Errorf("%s\n\t%s", fmt.Sprintf(format, args...), quote(e.clause))
}

// Fatalf reports a failure, quotes the broken clause, and ends the case.
func (e *env) Fatalf(format string, args ...any) {
	e.TB.Helper()
	e.TB.Fatalf("%s\n\t%s", fmt.Sprintf(format, args...), quote(e.clause))
}

// after fails the case if wait returns an error.
func (e *env) after(lag time.Duration, check func() error) {
	e.TB.Helper()
	if err := e.wait(lag, check); err != nil {
		e.Errorf("%v", err)
	}
}

// wait calls the function check until check returns nil, the lag has passed or e.ctx is done.
// Afterwards, wait returns the last result of check. If e.settle is set and the lag is positive,
// wait makes the lag pass and calls check only once. If e.settle is nil and the lag exceeds
// patience, wait also calls check only once, but logs the error from check and returns nil.
func (e *env) wait(lag time.Duration, check func() error) error {
	e.TB.Helper()
	if lag > 0 && e.settle != nil {
		e.settle()
		return check()
	}
	err := check()
	if lag > patience && err != nil {
		e.TB.Logf("left unchecked, because a lag of %v may be why: %v", lag, err)
		e.sum.unchecked.Add(1)
		return nil
	}
	deadline := time.Now().Add(lag)
	for pause := time.Millisecond; err != nil; pause = min(2*pause, time.Second) {
		last := !time.Now().Before(deadline)
		if err = check(); last || !e.pause(pause) {
			break
		}
	}
	return err
}

// lags makes the lag pass if e.settle is set, and otherwise waits for the lag. lags does not
// wait for a lag that exceeds patience.
func (e *env) lags(lag time.Duration) {
	switch {
	case lag <= 0:
	case e.settle != nil:
		e.settle()
	case lag <= patience:
		e.pause(lag)
	}
}

// pause waits for d, and reports whether d passed before the context of the case was done.
func (e *env) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.ctx.Done():
		return false
	}
}

// promptly runs f in a goroutine, and reports whether f returned within the time prompt. If f did
// not return in that time, promptly fails the case.
func (e *env) promptly(what string, f func()) bool {
	e.TB.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(prompt)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		e.Errorf("%s has not returned %v after its context was done", what, prompt)
		return false
	}
}

// together runs f(0) to f(n-1) concurrently, and waits until all n calls have returned.
func together(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

// A fuse of length n is a context that cancels itself in call n+1 of its methods Done and Err.
// Fuses of different lengths interrupt an operation at each point where the operation checks its
// context.
type fuse struct {
	context.Context
	cancel context.CancelFunc
	left   atomic.Int64
}

func newFuse(ctx context.Context, looks int) *fuse {
	f := &fuse{}
	f.Context, f.cancel = context.WithCancel(ctx)
	f.left.Store(int64(looks))
	return f
}

func (f *fuse) look() {
	if f.left.Add(-1) < 0 {
		f.cancel()
	}
}

// Done implements context.Context.
func (f *fuse) Done() <-chan struct{} {
	f.look()
	return f.Context.Done()
}

// Err implements context.Context.
func (f *fuse) Err() error {
	f.look()
	return f.Context.Err()
}

func (f *fuse) blown() bool { return f.left.Load() < 0 }

// fuses calls f with fuses of increasing length, up to 47. fuses stops after a call of f in which
// the fuse is not canceled, and after half of the remaining time of the case.
func (e *env) fuses(f func(ctx context.Context)) {
	e.TB.Helper()
	deadline, _ := e.ctx.Deadline()
	half := time.Now().Add(time.Until(deadline) / 2)
	for looks := 0; looks < 48 && time.Now().Before(half); looks += 1 + looks/8 {
		ctx := newFuse(e.ctx, looks)
		f(ctx)
		ctx.cancel()
		if !ctx.blown() {
			return
		}
	}
}

// text returns n random characters of the lower-case base32 alphabet.
func text(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(strings.ToLower(rand.Text()))
	}
	return b.String()[:n]
}
