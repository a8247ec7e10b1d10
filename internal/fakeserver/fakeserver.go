// Package fakeserver contains the parts that the fake servers share: the clock, the log of
// requests, fault injection, quotas, and the socket.
package fakeserver

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Clock is the clock of a server. Tests can advance the clock. The zero Clock is the real
// clock.
type Clock struct {
	mu     sync.Mutex
	base   func() time.Time
	offset time.Duration
}

// SetClock bases the clock on now. A nil now means time.Now. SetClock must be called before the
// server serves requests.
func (c *Clock) SetClock(now func() time.Time) { c.base = now }

// Advance moves the clock forward by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// Now returns the time by the server's clock, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == nil {
		return time.Now().Add(c.offset).UTC()
	}
	return c.base().Add(c.offset).UTC()
}

// A Log records the requests of type R that a server receives, and chooses a fault of type F for
// each request. The zero Log is empty, and chooses no faults. Its methods are safe for concurrent
// use.
type Log[R, F any] struct {
	mu       sync.Mutex
	inject   func(*R) *F
	requests []R
}

// Inject makes f choose the fault of each following request. f may be called concurrently. If f
// is nil or returns nil, the request has no fault.
func (l *Log[R, F]) Inject(f func(*R) *F) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inject = f
}

// Receive records a request, and returns the fault of the request, or nil.
func (l *Log[R, F]) Receive(r *R) *F {
	l.mu.Lock()
	l.requests = append(l.requests, *r)
	inject := l.inject
	l.mu.Unlock()
	if inject == nil {
		return nil
	}
	return inject(r)
}

// Requests returns the requests since the last Reset, in order of arrival.
func (l *Log[R, F]) Requests() []R {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// CountBy returns the number of requests since the last Reset for each value of key.
func (l *Log[R, F]) CountBy(key func(R) string) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[string]int{}
	for _, r := range l.requests {
		n[key(r)]++
	}
	return n
}

// Reset discards the recorded requests.
func (l *Log[R, F]) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = nil
}

// Await waits until c is closed or ctx is done. It reports whether c was closed. A nil c counts
// as closed.
func Await(ctx context.Context, c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

// Serve starts a server for h on a free port of the loopback interface, and returns the base URL,
// such as "http://127.0.0.1:8080". stop stops the server and closes all connections.
func Serve(h http.Handler) (url string, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server, done := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	return "http://" + listener.Addr().String(), func() { _ = server.Close(); <-done }, nil
}
