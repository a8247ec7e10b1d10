package fakegcp

import (
	"context"
	"fmt"
	"path"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Invoke executes one call in the caller's goroutine. The call is recorded and subject to faults,
// permissions and quotas, like a call over the socket. method is the full name of a method. Invoke
// merges the response into reply, which must be empty. Clients in a testing/synctest bubble need
// Invoke, because the clock of a bubble does not advance while a goroutine waits for a socket.
func (s *Server) Invoke(ctx context.Context, method string, req, reply any) error {
	in, inOK := req.(proto.Message)
	out, outOK := reply.(proto.Message)
	if !inOK || !outOK {
		return status.Error(codes.Internal, "the request or the reply is no message")
	}
	for _, m := range secretmanagerpb.SecretManagerService_ServiceDesc.Methods {
		if m.MethodName != path.Base(method) {
			continue
		}
		decode := func(into any) error {
			message, ok := into.(proto.Message)
			if !ok {
				return status.Error(codes.Internal, "the request is no message")
			}
			proto.Merge(message, in)
			return nil
		}
		answer, err := m.Handler(s, ctx, decode, s.intercept)
		if err != nil {
			return err
		}
		if message, ok := answer.(proto.Message); ok {
			proto.Merge(out, message)
		}
		return nil
	}
	return status.Error(codes.Unimplemented, fmt.Sprintf("there is no method %q", method))
}

// Direct returns an interceptor for clients. The interceptor calls Invoke instead of sending a
// request over the socket.
func (s *Server) Direct() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
		return s.Invoke(ctx, method, req, reply)
	}
}
