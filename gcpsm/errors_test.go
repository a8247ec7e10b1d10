package gcpsm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/api/googleapi"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var classes = []error{
	driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrThrottled, driver.ErrCorrupt,
}

func TestErrorsGetTheirClass(t *testing.T) {
	t.Parallel()
	rpc := func(c codes.Code) error { return status.Error(c, "the service's text") }
	rest := func(code int, body string) error { return &googleapi.Error{Code: code, Body: body} }
	because := func(c codes.Code, reason string, metadata map[string]string) error {
		s, err := status.New(c, "the service's text").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "googleapis.com", Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, c := range []struct {
		name   string
		method string
		err    error
		want   error
	}{
		{"no such secret", "GetSecret", rpc(codes.NotFound), driver.ErrNotFound},
		{"no such version", "AccessSecretVersion", rpc(codes.NotFound), driver.ErrNotFound},
		{"a secret that exists", "CreateSecret", rpc(codes.AlreadyExists), driver.ErrExists},
		{"an etag of an update", "UpdateSecret", rpc(codes.FailedPrecondition), driver.ErrConflict},
		{"an etag of a deletion", "DeleteSecret", rpc(codes.FailedPrecondition), driver.ErrConflict},
		{"an etag of a destruction", "DestroySecretVersion", rpc(codes.FailedPrecondition), driver.ErrConflict},
		{"a version that is destroyed", "AccessSecretVersion", rpc(codes.FailedPrecondition), driver.ErrRefused},
		{"a key that is disabled", "AddSecretVersion", rpc(codes.FailedPrecondition), driver.ErrRefused},
		{"an organization that allows no such location", "CreateSecret", rpc(codes.FailedPrecondition), driver.ErrRefused},
		{"a role that lacks something", "GetSecret", rpc(codes.PermissionDenied), driver.ErrDenied},
		{"no credentials", "GetSecret", rpc(codes.Unauthenticated), driver.ErrCredentials},
		{"a quota", "UpdateSecret", rpc(codes.ResourceExhausted), driver.ErrThrottled},
		{"a service that is down", "UpdateSecret", rpc(codes.Unavailable), driver.ErrUnavailable},
		{"an internal error", "UpdateSecret", rpc(codes.Internal), driver.ErrUnavailable},
		{"an aborted call", "UpdateSecret", rpc(codes.Aborted), driver.ErrUnavailable},
		{"lost data", "AccessSecretVersion", rpc(codes.DataLoss), driver.ErrUnavailable},
		{"a time-out of the service", "UpdateSecret", rpc(codes.DeadlineExceeded), driver.ErrUnavailable},
		{"a call that the service canceled", "UpdateSecret", rpc(codes.Canceled), driver.ErrUnavailable},
		{"an unknown error", "UpdateSecret", rpc(codes.Unknown), driver.ErrUnavailable},
		{"an argument that is not valid", "CreateSecret", rpc(codes.InvalidArgument), driver.ErrRefused},
		{"a range", "ListSecrets", rpc(codes.OutOfRange), driver.ErrRefused},
		{"a method that there is not", "UpdateSecret", rpc(codes.Unimplemented), driver.ErrRefused},
		{"a payload that was damaged in transit", "AddSecretVersion", status.Error(codes.InvalidArgument, "The payload's checksum does not match."), driver.ErrUnavailable},

		{"no such project, in a list", "ListSecrets", rpc(codes.NotFound), driver.ErrRefused},
		{"no such project, for a new secret", "CreateSecret", rpc(codes.NotFound), driver.ErrRefused},
		{"no such project", "GetSecret", status.Error(codes.NotFound, "Project 'projects/p' not found or deleted."), driver.ErrRefused},
		{"no such key", "AddSecretVersion", status.Error(codes.NotFound, "CryptoKey projects/p/locations/global/keyRings/r/cryptoKeys/k not found."), driver.ErrRefused},
		{"an organization's policy on an update", "UpdateSecret", status.Error(codes.FailedPrecondition, "Operation denied by custom org policy on resource."), driver.ErrRefused},
		{"a key on an update", "UpdateSecret", status.Error(codes.FailedPrecondition, "Cloud KMS key k is not enabled."), driver.ErrRefused},
		{"a key on an access", "AccessSecretVersion", status.Error(codes.FailedPrecondition, "Cloud KMS key k is not enabled."), driver.ErrRefused},
		{"a key that the service may not use", "AccessSecretVersion", status.Error(codes.PermissionDenied, "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource k."), driver.ErrDenied},
		{"a perimeter", "GetSecret", status.Error(codes.PermissionDenied, "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: x"), driver.ErrRefused},
		{"an API that is not enabled, by its text", "CreateSecret", status.Error(codes.PermissionDenied, "Secret Manager API has not been used in project 1 before or it is disabled."), driver.ErrRefused},
		{"an API that is not enabled", "CreateSecret", because(codes.PermissionDenied, "SERVICE_DISABLED", nil), driver.ErrRefused},
		{"a project without billing", "AddSecretVersion", because(codes.PermissionDenied, "BILLING_DISABLED", nil), driver.ErrRefused},
		{"a project that is suspended", "GetSecret", because(codes.PermissionDenied, "CONSUMER_SUSPENDED", nil), driver.ErrRefused},
		{"a reason of permissions", "GetSecret", because(codes.PermissionDenied, "IAM_PERMISSION_DENIED", nil), driver.ErrDenied},
		{"an access token that has expired", "GetSecret", because(codes.PermissionDenied, "ACCESS_TOKEN_EXPIRED", nil), driver.ErrCredentials},
		{"a rate", "GetSecret", because(codes.ResourceExhausted, "RATE_LIMIT_EXCEEDED", map[string]string{"quota_limit_value": "600"}), driver.ErrThrottled},
		{"a quota of nothing", "GetSecret", because(codes.ResourceExhausted, "RATE_LIMIT_EXCEEDED", map[string]string{"quota_limit_value": "0"}), driver.ErrRefused},
		{"credentials that are refused", "GetSecret", status.Error(codes.Unauthenticated, `transport: per-RPC creds failed due to error: auth: "invalid_grant" "Bad Request"`), driver.ErrCredentials},
		{"credentials that are out of reach", "GetSecret", status.Error(codes.Unauthenticated, "transport: per-RPC creds failed due to error: auth: cannot fetch token: 503"), driver.ErrUnavailable},
		{"no credentials, over REST", "GetSecret", errors.New("credentials: could not find default credentials"), driver.ErrCredentials},
		{"a certificate of others", "GetSecret", status.Error(codes.Unavailable, "connection error: desc = \"transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority\""), driver.ErrRefused},
		{"a connection that failed", "GetSecret", errors.New("connection refused"), driver.ErrUnavailable},
		{"the client's own time-out", "GetSecret", context.DeadlineExceeded, driver.ErrUnavailable},
		{"an etag, over REST", "UpdateSecret", rest(http.StatusBadRequest, `{"error":{"code":400,"status":"FAILED_PRECONDITION"}}`), driver.ErrConflict},
		{"an argument, over REST", "UpdateSecret", rest(http.StatusBadRequest, `{"error":{"code":400,"status":"INVALID_ARGUMENT"}}`), driver.ErrRefused},
		{"a secret that exists, over REST", "CreateSecret", rest(http.StatusConflict, `{"error":{"code":409,"status":"ALREADY_EXISTS"}}`), driver.ErrExists},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := callError(t.Context(), c.method, "crm-u2", c.err, nil)
			want := c.want
			if want == driver.ErrCredentials {
				want = driver.ErrDenied
			}
			if theirs := c.want == driver.ErrCredentials || strings.Contains(c.name, "out of reach"); errors.Is(got, driver.ErrCredentials) != theirs {
				t.Errorf("%v becomes %v; it matches ErrCredentials: %v", c.err, got, !theirs)
			}
			for _, class := range classes {
				if errors.Is(got, class) != errors.Is(want, class) {
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
		err := callError(ctx, "UpdateSecret", "crm-u2", status.Error(c, "text"), nil)
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
		err := callError(t.Context(), "AddSecretVersion", "crm-u2", status.Error(codes.Internal, text), []byte(secret))
		all := fmt.Sprintf("%v %+v", err, errors.Unwrap(err))
		if got := strings.Contains(all, text); got != kept {
			t.Errorf("the error is %q", all)
		}
		if status.Code(err) != codes.Internal || !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("%v has lost its code or its class", err)
		}
	}
}
