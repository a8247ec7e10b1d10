package main

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// countCalls returns a context under which n counts the requests that are sent to
// a service, those that are repeated included. Clients that speak HTTP by
// themselves need nothing more; others call countCall.
func countCalls(ctx context.Context) (_ context.Context, n *atomic.Int64) {
	n = new(atomic.Int64)
	ctx = context.WithValue(ctx, callsKey{}, n)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { n.Add(1) },
	}), n
}

type callsKey struct{}
