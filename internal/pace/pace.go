// Package pace makes many concurrent calls to a service, as fast as the service accepts the
// calls.
//
// A Pacer detects the rate that the service accepts: the number of calls in progress grows
// until a call is throttled. From then on, the Pacer spaces the calls out at the rate that
// the service has sustained, and keeps trying a slightly higher rate.
package pace

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"
)

const (
	firstWidth = 16 // maximum number of calls in progress at the beginning
	mostWidth  = 64 // default maximum number of calls in progress

	decrease = 0.9  // factor of the sustained rate, after a throttled call
	least    = 0.5  // minimum of the new rate, as a factor of the average rate
	increase = 0.05 // calls a second, added for each accepted call
	slowest  = 0.05 // minimum rate, in calls a second

	firstPause = 100 * time.Millisecond // pause after the first throttled call
	lastPause  = 10 * time.Second       // maximum pause

	// patience is the maximum time for which Each retries while the service accepts no call. It is
	// longer than two minutes, because services count quotas by the minute.
	patience = 150 * time.Second
)

// A Pacer paces the calls to one service. It is safe for concurrent use, and keeps the detected
// rate between calls of Each.
type Pacer struct {
	throttled func(error) bool
	most      float64

	mu      sync.Mutex
	width   float64 // maximum number of calls in progress
	running int
	changed chan struct{} // closed when a call might have become possible; nil if no caller waits

	rate  float64       // calls a second; 0 means as many as width allows
	next  time.Time     // when the next call may begin
	pause time.Duration // after the last throttled call; 0 if a call was accepted since
	epoch int           // number of reductions of rate

	began, since time.Time // the start of Each, and of the epoch
	all, done    int       // accepted calls since the start of Each, and since the start of the epoch
	throttling   time.Time // when a call was first throttled after the last accepted call; else zero
}

// New returns a Pacer that makes at most the given number of concurrent calls; 0 means 64.
// throttled reports whether an error means that the service is throttling, and that the call can be
// repeated.
func New(throttled func(error) bool, most int) *Pacer {
	if most == 0 {
		most = mostWidth
	}
	return &Pacer{throttled: throttled, most: float64(most), width: float64(min(firstWidth, most))}
}

// Each calls the function do for each i from 0 to n-1, several at a time, and returns when all
// calls have returned. It repeats a call that is throttled. Any other error ends the iteration: no
// further call begins, the context of running calls is canceled, and Each returns the error. If ctx
// is done, Each returns the cause.
//
// If the service accepts no call for two and a half minutes, Each returns an error that wraps the
// error of a throttled call.
func (p *Pacer) Each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	return p.All(ctx, func(yield func(func(context.Context) error, error) bool) {
		for i := range n {
			if !yield(func(ctx context.Context) error { return do(ctx, i) }, nil) {
				return
			}
		}
	})
}

// All is like Each for a sequence of calls. An error from the sequence ends the iteration, as an
// error from a call does. All takes at most one call from the sequence before that call may begin.
func (p *Pacer) All(ctx context.Context, calls iter.Seq2[func(context.Context) error, error]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.begin(time.Now())
	var running sync.WaitGroup
	for call, err := range calls {
		if err != nil {
			cancel(err)
			break
		}
		epoch, err := p.acquire(ctx)
		if err != nil {
			break
		}
		running.Go(func() {
			if err := p.repeat(ctx, epoch, func() error { return call(ctx) }); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// Speed returns the estimated rate that the service allows, in calls a second, or 0 if that rate
// is unknown.
func (p *Pacer) Speed() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// begin starts the period over which the rate is measured.
func (p *Pacer) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began, p.since, p.throttling = now, now, time.Time{}
	p.all, p.done = 0, 0
}

// repeat makes a call that the method acquire admitted in the given epoch. It repeats the call
// until the call is not throttled.
func (p *Pacer) repeat(ctx context.Context, epoch int, call func() error) error {
	for {
		again, err := p.release(epoch, call(), time.Now())
		if !again {
			return err
		}
		if epoch, err = p.acquire(ctx); err != nil {
			return err
		}
	}
}

// acquire waits until a call may begin, and begins the call.
func (p *Pacer) acquire(ctx context.Context) (epoch int, err error) {
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		epoch, wait, changed := p.enter(time.Now())
		if changed == nil {
			return epoch, nil
		}
		if err := pause(ctx, wait, changed); err != nil {
			return 0, err
		}
	}
}

// enter begins a call and returns a nil channel if a call may begin now. Otherwise, a call may
// begin when changed is closed or, if wait is positive, after wait.
func (p *Pacer) enter(now time.Time) (epoch int, wait time.Duration, changed chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	width := p.width
	if p.pause > 0 {
		width = 1 // a single call tests whether the service accepts calls again
	}
	early := p.next.Sub(now)
	if float64(p.running) < width && early <= 0 {
		p.running++
		if p.rate > 0 {
			p.next = now.Add(time.Duration(float64(time.Second) / p.rate))
		}
		return p.epoch, 0, nil
	}
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return 0, max(early, 0), p.changed
}

// release ends a call that began in the given epoch, and reports whether the call must be repeated.
// If the call must not be repeated, release returns err, or an error that wraps err.
func (p *Pacer) release(epoch int, err error, now time.Time) (again bool, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	if err == nil || !p.throttled(err) {
		p.succeed(now)
		return false, err
	}
	if p.throttling.IsZero() {
		p.throttling = now
	}
	switch since := now.Sub(p.throttling); {
	case since > patience:
		return false, fmt.Errorf("the service has throttled every call for %v: %w", since.Round(time.Second), err)
	case epoch == p.epoch: // a call of an earlier epoch does not show that the current rate is too high
		p.reduce(now)
	}
	return true, nil
}

// succeed records that the service did not throttle a call.
func (p *Pacer) succeed(now time.Time) {
	p.throttling, p.pause = time.Time{}, 0
	p.done++
	p.all++
	p.width = min(p.width+1/p.width, p.most)
	if p.rate > 0 {
		p.rate += increase
	}
}

// reduce lowers the rate to a fraction of the rate that the service sustained in the epoch, and
// begins another epoch.
func (p *Pacer) reduce(now time.Time) {
	shown := speed(p.done, now.Sub(p.since))
	if p.rate > 0 {
		shown = max(min(shown, p.rate), p.rate/2)
	}
	// A quota that is counted by the minute stays exhausted until the end of the minute. The
	// next minute allows as many calls as this minute, so the new rate is at least half the
	// average rate.
	if p.rate > 0 || p.done > 0 { // otherwise no call was accepted yet, and the rate is unknown
		p.rate = max(shown*decrease, speed(p.all, now.Sub(p.began))*least, slowest)
	}
	p.width = max(p.width/2, 1)
	p.pause = min(max(2*p.pause, firstPause), lastPause)
	p.next = now.Add(p.pause)
	p.since, p.done = now, 0
	p.epoch++
}

// speed returns the rate of n calls in the given time, in calls a second.
func speed(n int, in time.Duration) float64 {
	return float64(n) / max(in, time.Millisecond).Seconds()
}

// pause waits until changed is closed or, if wait is positive, until wait has passed. If ctx is
// done first, it returns the cause.
func pause(ctx context.Context, wait time.Duration, changed <-chan struct{}) error {
	var passed <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		passed = t.C
	}
	select {
	case <-passed:
	case <-changed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
