// Package calls counts the requests that an operation sends to a service.
package calls

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync/atomic"
)

// Count returns a copy of ctx, and a counter of the requests that are sent with that copy,
// including retries. Requests of package net/http are counted automatically. Add counts other
// requests.
func Count(ctx context.Context) (_ context.Context, n *atomic.Int64) {
	n = new(atomic.Int64)
	return counting(ctx, func() { n.Add(1) }), n
}

// ErrSpent is the cause with which Limit cancels a context.
var ErrSpent = errors.New("the requests are used up")

// Limit is like Count, but cancels the returned context with the cause ErrSpent as soon as the
// number of requests reaches the parameter most, which must be positive. Operations in progress
// may still send requests. The caller must call the function stop.
func Limit(ctx context.Context, most int64) (_ context.Context, n *atomic.Int64, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	n = new(atomic.Int64)
	ctx = counting(ctx, func() {
		if n.Add(1) == most {
			cancel(ErrSpent)
		}
	})
	return ctx, n, func() { cancel(nil) }
}

// counting returns a copy of ctx. The function add is called for each request that is sent with
// that copy.
func counting(ctx context.Context, add func()) context.Context {
	ctx = context.WithValue(ctx, key{}, add)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { add() },
	})
}

type key struct{}

// Add counts a request that is sent with ctx. If ctx has no counter, Add does nothing. Add is
// safe for concurrent use.
func Add(ctx context.Context) {
	if add, ok := ctx.Value(key{}).(func()); ok {
		add()
	}
}
