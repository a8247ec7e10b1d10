package main

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"

	"google.golang.org/grpc"
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

// countCall counts a call of a gRPC client, as an interceptor.
func countCall(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if n, ok := ctx.Value(callsKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}
