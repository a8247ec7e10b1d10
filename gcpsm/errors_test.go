package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// classes are the sentinels of package driver.
var classes = []error{
	driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrUnavailable, driver.ErrCorrupt,
}

func TestErrorsGetTheirClass(t *testing.T) {
	t.Parallel()
	rpc := func(c codes.Code) error { return status.Error(c, "the service's text") }
	rest := func(code int, body string) error { return &googleapi.Error{Code: code, Body: body} }
	for _, c := range []struct {
		name   string
		method string
		err    error
		want   error // nil: no class
	}{
		{"no such secret", "GetSecret", rpc(codes.NotFound), driver.ErrNotFound},
		{"no such version", "AccessSecretVersion", rpc(codes.NotFound), driver.ErrNotFound},
		{"a secret that exists", "CreateSecret", rpc(codes.AlreadyExists), driver.ErrExists},
		{"an etag of an update", "UpdateSecret", rpc(codes.FailedPrecondition), driver.ErrConflict},
		{"an etag of a deletion", "DeleteSecret", rpc(codes.FailedPrecondition), driver.ErrConflict},
		{"an etag of a destruction", "DestroySecretVersion", rpc(codes.FailedPrecondition), driver.ErrConflict},
		{"a version that is destroyed", "AccessSecretVersion", rpc(codes.FailedPrecondition), driver.ErrUnavailable},
		{"a key that is disabled", "AddSecretVersion", rpc(codes.FailedPrecondition), nil},
		{"an organization that allows no such location", "CreateSecret", rpc(codes.FailedPrecondition), nil},
		{"a role that lacks something", "GetSecret", rpc(codes.PermissionDenied), driver.ErrDenied},
		{"no credentials", "GetSecret", rpc(codes.Unauthenticated), driver.ErrDenied},
		{"a quota", "UpdateSecret", rpc(codes.ResourceExhausted), driver.ErrUnavailable},
		{"a service that is down", "UpdateSecret", rpc(codes.Unavailable), driver.ErrUnavailable},
		{"an internal error", "UpdateSecret", rpc(codes.Internal), driver.ErrUnavailable},
		{"an aborted call", "UpdateSecret", rpc(codes.Aborted), driver.ErrUnavailable},
		{"lost data", "AccessSecretVersion", rpc(codes.DataLoss), driver.ErrUnavailable},
		{"a time-out of the service", "UpdateSecret", rpc(codes.DeadlineExceeded), driver.ErrUnavailable},
		{"a call that the service canceled", "UpdateSecret", rpc(codes.Canceled), driver.ErrUnavailable},
		{"an unknown error", "UpdateSecret", rpc(codes.Unknown), driver.ErrUnavailable},
		{"an argument that is not valid", "CreateSecret", rpc(codes.InvalidArgument), nil},
		{"a range", "ListSecrets", rpc(codes.OutOfRange), nil},
		{"a method that there is not", "UpdateSecret", rpc(codes.Unimplemented), nil},
		{"a connection that failed", "GetSecret", errors.New("connection refused"), driver.ErrUnavailable},
		{"the client's own time-out", "GetSecret", context.DeadlineExceeded, driver.ErrUnavailable},
		{"an etag, over REST", "UpdateSecret", rest(http.StatusBadRequest, `{"error":{"code":400,"status":"FAILED_PRECONDITION"}}`), driver.ErrConflict},
		{"an argument, over REST", "UpdateSecret", rest(http.StatusBadRequest, `{"error":{"code":400,"status":"INVALID_ARGUMENT"}}`), nil},
		{"a secret that exists, over REST", "CreateSecret", rest(http.StatusConflict, `{"error":{"code":409,"status":"ALREADY_EXISTS"}}`), driver.ErrExists},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := failed(t.Context(), c.method, "crm-u2", c.err, nil)
			for _, class := range classes {
				if errors.Is(got, class) != errors.Is(class, c.want) {
					t.Errorf("%v becomes %v; it matches %q: %v", c.err, got, class, errors.Is(got, class))
				}
			}
			if errors.Is(c.err, context.DeadlineExceeded) {
				if errors.Is(got, context.DeadlineExceeded) {
					t.Errorf("%v matches the error of a context that is not done", got)
				}
			} else if !errors.Is(got, c.err) {
				t.Errorf("%v does not wrap %v", got, c.err)
			}
			if !strings.Contains(got.Error(), c.method+` "crm-u2"`) {
				t.Errorf("%q does not say what was done to which secret", got)
			}
		})
	}
}

func TestErrorsOfADoneContextAreTheContexts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		err := failed(ctx, "UpdateSecret", "crm-u2", status.Error(c, "text"), nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v does not match context.Canceled", c, err)
		}
		for _, class := range classes {
			if errors.Is(err, class) {
				t.Errorf("%v: %v matches %q", c, err, class)
			}
		}
	}
}

func TestErrorsDoNotRepeatWhatWasSent(t *testing.T) {
	t.Parallel()
	const secret = `{"refresh_token":"1000.canary.canary"}`
	for text, kept := range map[string]bool{
		"The etag does not match.":       true,
		"invalid: " + secret:             false,
		"bad byte after 1000.canary.can": false,
		"bad byte after 1000.":           true,
	} {
		err := failed(t.Context(), "AddSecretVersion", "crm-u2", status.Error(codes.Internal, text), []byte(secret))
		all := fmt.Sprintf("%v %+v", err, errors.Unwrap(err))
		if got := strings.Contains(all, text); got != kept {
			t.Errorf("the error is %q", all)
		}
		if status.Code(err) != codes.Internal || !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("%v has lost its code or its class", err)
		}
	}
}
