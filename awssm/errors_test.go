package awssm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

var classes = []error{
	driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrThrottled, driver.ErrCorrupt,
}

// answered returns the client's error for a response with the given HTTP status.
func answered(status int, err error) error {
	return &smithy.OperationError{ServiceID: "Secrets Manager", OperationName: "GetSecretValue", Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err,
	}}
}

func TestErrorsGetTheirClass(t *testing.T) {
	t.Parallel()
	saying := func(code, text string) error {
		return answered(400, &smithy.GenericAPIError{Code: code, Message: text})
	}
	code := func(code string) error { return saying(code, "no") }
	for _, c := range []struct {
		name string
		err  error
		want error // nil if the error has no class
	}{
		// Error types that the service documents.
		{"no secret", answered(400, &types.ResourceNotFoundException{Message: aws.String("Secrets Manager can't find the specified secret.")}), driver.ErrNotFound},
		{"no version", answered(400, &types.ResourceNotFoundException{Message: aws.String("Secrets Manager can't find the specified secret value for VersionId: x")}), driver.ErrNotFound},
		{"a secret that exists", answered(400, &types.ResourceExistsException{}), driver.ErrExists},
		{"a secret marked for deletion", answered(400, &types.InvalidRequestException{Message: aws.String("You can't perform this operation on the secret because it was marked for deletion.")}), driver.ErrNotFound},
		{"a name scheduled for deletion", answered(400, &types.InvalidRequestException{Message: aws.String("You can't create this secret because a secret with this name is already scheduled for deletion.")}), driver.ErrNotFound},
		{"a secret that is being deleted", saying("InvalidRequestException", "You tried to perform the operation on a secret that's currently marked deleted."), driver.ErrNotFound},
		{"the same, as LocalStack has it", saying("InvalidRequestException", "An error occurred (InvalidRequestException) when calling the GetSecretValue operation: You tried to                 perform the operation on a secret that's currently marked deleted."), driver.ErrNotFound},
		{"a certificate of others", &url.Error{Op: "Post", URL: "https://aws", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, driver.ErrRefused},
		{"a certificate of others, of the server of credentials", fmt.Errorf("get credentials: %w", &url.Error{Op: "Post", URL: "https://sts", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}), driver.ErrUnavailable},
		{"a server without TLS", &url.Error{Op: "Post", URL: "https://aws", Err: http.ErrSchemeMismatch}, driver.ErrRefused},
		{"a key that is pending deletion", saying("InvalidRequestException", "You can't use the KMS key because it is pending deletion."), driver.ErrRefused},
		{"the same, in the words of KMS", saying("KMSInvalidStateException", "key/1 is pending deletion."), driver.ErrRefused},
		{"a replica", saying("InvalidParameterException", "Operation not permitted on a replica secret. Call must be made in primary secret's region."), driver.ErrRefused},
		{"a managed secret", saying("InvalidRequestException", "You can't perform this operation on the secret because it is managed by another service."), driver.ErrRefused},
		{"a policy on tags", saying("TagPolicyException", "The tag policy does not allow the specified value"), driver.ErrRefused},
		{"a key that is disabled", saying("DecryptionFailure", "Secrets Manager can't decrypt: key/1 is disabled."), driver.ErrRefused},
		{"a key to encrypt with that is pending deletion", saying("EncryptionFailure", "key/1 is pending deletion."), driver.ErrRefused},
		{"a key of which nothing is said", saying("EncryptionFailure", "Check that the KMS key is available, enabled, and not in an invalid state."), driver.ErrUnavailable},
		{"a key whose requests are throttled", saying("EncryptionFailure", "The request to KMS was throttled."), driver.ErrUnavailable},
		{"KMS throttles", saying("KMSThrottlingException", "no"), driver.ErrThrottled},
		{"a limit that an operator raises", quotaError{answered(400, &types.LimitExceededException{})}, driver.ErrRefused},
		{"an internal error with status 400", saying("InternalServiceError", "no"), driver.ErrUnavailable},
		{"another state that does not fit", answered(400, &types.InvalidRequestException{Message: aws.String("no")}), driver.ErrRefused},
		{"an invalid parameter", answered(400, &types.InvalidParameterException{}), driver.ErrRefused},
		{"an invalid page", answered(400, &types.InvalidNextTokenException{}), driver.ErrUnavailable},
		{"a precondition", answered(400, &types.PreconditionNotMetException{}), driver.ErrRefused},
		{"a policy that is malformed", answered(400, &types.MalformedPolicyDocumentException{}), driver.ErrRefused},
		{"a policy that is public", answered(400, &types.PublicPolicyException{}), driver.ErrRefused},
		{"a limit", answered(400, &types.LimitExceededException{}), driver.ErrUnavailable},
		{"a key that does not decrypt", answered(400, &types.DecryptionFailure{}), driver.ErrUnavailable},
		{"a key that does not encrypt", answered(400, &types.EncryptionFailure{}), driver.ErrUnavailable},
		{"an internal error", answered(500, &types.InternalServiceError{}), driver.ErrUnavailable},

		// Error codes that are common to AWS services.
		{"an action that is not allowed", code("AccessDeniedException"), driver.ErrDenied},
		{"a token that has expired", code("ExpiredTokenException"), driver.ErrDenied},
		{"a signature that is incomplete", code("IncompleteSignature"), driver.ErrDenied},
		{"a key that is not known", code("InvalidClientTokenId"), driver.ErrDenied},
		{"a token that is not known", code("UnrecognizedClientException"), driver.ErrDenied},
		{"a signature that is wrong", code("InvalidSignatureException"), driver.ErrDenied},
		{"a request without a token", code("MissingAuthenticationTokenException"), driver.ErrDenied},
		{"a caller that is not authorized", code("NotAuthorized"), driver.ErrDenied},
		{"an account without the service", code("OptInRequired"), driver.ErrDenied},
		{"a request that is too old", code("RequestExpired"), driver.ErrDenied},
		{"a request that is not valid", code("ValidationException"), driver.ErrRefused},
		{"a failure inside", code("InternalFailure"), driver.ErrUnavailable},
		{"a service that is away", code("ServiceUnavailable"), driver.ErrUnavailable},
		{"throttling", code("ThrottlingException"), driver.ErrThrottled},
		{"throttling by another name", code("TooManyRequestsException"), driver.ErrThrottled},
		{"a request that took too long", code("RequestTimeout"), driver.ErrUnavailable},
		{"a code that is not known", code("SomethingElse"), driver.ErrRefused},
		{"a code that is not known, with status 503", answered(503, &smithy.GenericAPIError{Code: "UnknownError"}), driver.ErrUnavailable},
		{"a code that is not known, with status 429", answered(429, &smithy.GenericAPIError{Code: "UnknownError"}), driver.ErrThrottled},
		{"a proxy that refuses", answered(403, &smithy.GenericAPIError{Code: "UnknownError"}), driver.ErrDenied},

		// Failures in transit.
		{"the quota of retries", errors.Join(errors.New("slow"), fmt.Errorf("no token: %w", ratelimit.QuotaExceededError{})), driver.ErrUnavailable},
		{"a refused connection", &smithyhttp.RequestSendError{Err: &url.Error{Op: "Post", URL: "https://x", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}}, driver.ErrUnavailable},
		{"a connection that was closed", &smithyhttp.RequestSendError{Err: io.EOF}, driver.ErrUnavailable},
		{"an answer that was cut off", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), driver.ErrUnavailable},
		{"an interrupted connection", &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}, driver.ErrUnavailable},
		{"a connection that is closed", net.ErrClosed, driver.ErrUnavailable},
		{"the client's own time-out", &url.Error{Op: "Post", URL: "https://x", Err: context.DeadlineExceeded}, driver.ErrUnavailable},
		{"an answer that is none", fmt.Errorf("x: %w", errUnreadable), driver.ErrUnavailable},
		{"anything else", errors.New("no credentials"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := driverkit.CallError(t.Context(), c.err, classify(c.err))
			for _, class := range classes {
				if errors.Is(got, class) != errors.Is(c.want, class) {
					t.Errorf("classify(%v) = %v; it matches %q: %v", c.err, got, class, errors.Is(got, class))
				}
			}
			if errors.Is(c.err, context.DeadlineExceeded) {
				if errors.Is(got, context.DeadlineExceeded) {
					t.Errorf("classify(%v) = %v matches the error of a context that is not done", c.err, got)
				}
			} else if !errors.Is(got, c.err) {
				t.Errorf("classify(%v) = %v does not wrap it", c.err, got)
			}
			if c.want == nil && got != c.err {
				t.Errorf("classify(%v) = %v, want it as it came", c.err, got)
			}
			// The store assigns ErrUnavailable to an error without a class.
			if err := tokenstore.NewError("save", "awssm", "", got); c.want == nil && !errors.Is(err, tokenstore.ErrUnavailable) {
				t.Errorf("the store's error %v does not match ErrUnavailable", err)
			}
		})
	}
	if err := classify(nil); err != nil {
		t.Errorf("classify(nil) = %v", err)
	}
}

func TestClassifyMissingVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"Secrets Manager can't find the specified secret value for VersionId: x":              true,
		"Secrets Manager can't find the specified secret.":                                    false,
		"Secrets Manager can't find the specified secret value for staging label: AWSCURRENT": false,
	} {
		if err := classify(&types.ResourceNotFoundException{Message: &text}); errors.Is(err, errNoVersion) != want {
			t.Errorf("%q: the version is missing and the secret is not: %v, want %v", text, !want, want)
		}
	}
}

func TestCredentialsAreToldFromPermissions(t *testing.T) {
	t.Parallel()
	code := func(code string) error { return answered(400, &smithy.GenericAPIError{Code: code, Message: "no"}) }
	fetched := func(err error) error {
		return &smithy.OperationError{
			ServiceID: "Secrets Manager", OperationName: "GetSecretValue",
			Err: fmt.Errorf("get identity: %w", fmt.Errorf("get credentials: %w", err)),
		}
	}
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no route to host")}
	for _, c := range []struct {
		name        string
		err         error
		class       error
		credentials bool
	}{
		{"expired", code("ExpiredTokenException"), driver.ErrDenied, true},
		{"unknown", code("UnrecognizedClientException"), driver.ErrDenied, true},
		{"signed wrongly, or long ago", code("InvalidSignatureException"), driver.ErrDenied, true},
		{"left out", code("MissingAuthenticationTokenException"), driver.ErrDenied, true},
		{"without a permission", code("AccessDeniedException"), driver.ErrDenied, false},
		{"refused by a proxy", answered(403, &smithy.GenericAPIError{Code: "UnknownError"}), driver.ErrDenied, false},
		{"absent", fetched(errors.New("static credentials are empty")), driver.ErrDenied, true},
		{"absent from the instance", fetched(answered(404, errors.New("no role"))), driver.ErrDenied, true},
		{"out of reach", fetched(dial), driver.ErrUnavailable, true},
		{"good, of a service that is out of reach", &smithyhttp.RequestSendError{Err: dial}, driver.ErrUnavailable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := callError(t.Context(), "GetSecretValue", c.err, nil)
			if !errors.Is(err, c.class) || errors.Is(err, driver.ErrCredentials) != c.credentials {
				t.Errorf("callError(%v) = %v, want %q, about the credentials: %v", c.err, err, c.class, c.credentials)
			}
		})
	}
}

func TestErrorsKeepTheClientsOwnType(t *testing.T) {
	t.Parallel()
	in := answered(400, &types.ResourceNotFoundException{Message: aws.String("Secrets Manager can't find\nthe specified secret.")})
	err := callError(t.Context(), "GetSecretValue", in, nil)
	var out *types.ResourceNotFoundException
	if !errors.As(err, &out) || out.Message == nil {
		t.Errorf("errors.As finds %+v in %v", out, err)
	}
	const want = "not found: operation error Secrets Manager: GetSecretValue, http response error StatusCode: 400, ResourceNotFoundException: Secrets Manager can't find the specified secret."
	if err.Error() != want {
		t.Errorf("the text is %q, want %q", err, want)
	}
}

func TestErrorsOfADoneContextAreTheContexts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, in := range []error{
		&aws.RequestCanceledError{Err: context.Canceled},
		&smithyhttp.RequestSendError{Err: io.EOF},
		answered(400, &types.ResourceExistsException{}),
		answered(400, &types.ResourceNotFoundException{}),
		answered(200, errors.New("unexpected character")),
	} {
		err := callError(ctx, "GetSecretValue", in, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("callError(%v) = %v does not match context.Canceled", in, err)
		}
		if slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) }) {
			t.Errorf("callError(%v) = %v matches a class", in, err)
		}
	}
}

func TestCallErrorTruncatedAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		cause error
		text  string
	}{
		{"closed by this side", &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}, "unavailable: GetSecretValue: read tcp: use of closed network connection"},
		{"closed under a wrapper of TLS", net.ErrClosed, "unavailable: GetSecretValue: use of closed network connection"},
		{"cut off", io.ErrUnexpectedEOF, "unavailable: GetSecretValue: unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := answered(200, &smithy.DeserializationError{
				Err: fmt.Errorf("failed to decode %q: %w", `{"SecretString":"canary`, c.cause), Snapshot: []byte("canary"),
			})
			err := callError(t.Context(), "GetSecretValue", in, nil)
			if !errors.Is(err, driver.ErrUnavailable) || !errors.Is(err, c.cause) {
				t.Errorf("failed returned %v", err)
			}
			if !strings.HasSuffix(err.Error(), c.text) {
				t.Errorf("the text is %q, want %q", err, c.text)
			}
		})
	}
}

func TestCallErrorHidesPayload(t *testing.T) {
	t.Parallel()
	const secret = `{"refresh_token":"1000.canary.canary"}`
	wire := base64.StdEncoding.EncodeToString([]byte(secret))[20:40]
	for _, c := range []struct {
		name string
		err  error
		text string
		kept bool
		want error
	}{
		{"a text of the service's", answered(400, &types.ResourceExistsException{Message: aws.String("already in use")}), "already in use", true, driver.ErrExists},
		{"a text with what was sent", answered(400, &types.ResourceExistsException{Message: aws.String("bad: " + secret)}), "canary", false, driver.ErrExists},
		{"a text with a part of it", answered(400, &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "at 1000.canary."}), "canary", false, driver.ErrDenied},
		{"a text as it went over the wire", answered(500, &types.InternalServiceError{Message: aws.String("near " + wire)}), wire, false, driver.ErrUnavailable},
		{"a code with what was sent", answered(400, &smithy.GenericAPIError{Code: "1000.canary.canary"}), "canary", false, nil},
		{"an answer that cannot be read", answered(200, errors.New("invalid character in canary")), "canary", false, driver.ErrUnavailable},
		{"an answer that cannot be decoded", &smithy.DeserializationError{Err: errors.New("canary"), Snapshot: []byte("canary")}, "canary", false, driver.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := callError(t.Context(), "PutSecretValue", c.err, []byte(secret))
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("failed returned %v, want %v", err, c.want)
			}
			for err := err; err != nil; err = unwrap(err) {
				if strings.Contains(err.Error(), c.text) != c.kept && c.kept == false {
					t.Errorf("an error in the chain is %q", err)
				}
			}
			if c.kept && !strings.Contains(err.Error(), c.text) {
				t.Errorf("the error is %q", err)
			}
		})
	}
}

// unwrap returns the last of the errors that err directly wraps.
func unwrap(err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()[len(many.Unwrap())-1]
	}
	return errors.Unwrap(err)
}
