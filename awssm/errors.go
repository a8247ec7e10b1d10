package awssm

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Texts that Secrets Manager tells apart by nothing else.
const (
	textVersion = " VersionId"     // of a version that is not there, when the secret may be
	textCurrent = " staging label" // of a label that no version has, when the secret is there
)

// deletionTexts are in an InvalidRequestException about a secret that is deleted, or
// whose name is one's that is. A KMS key may be pending deletion too.
var deletionTexts = []string{
	"because it was marked for deletion",
	"because a secret with this name is already scheduled for deletion",
	"on a secret that's currently marked deleted",
}

// errNoVersion means that the secret is there and the version is not; errNoCurrent
// that no version is the current one.
var (
	errNoVersion = errors.New("no such version")
	errNoCurrent = errors.New("no current version")
)

// codes are the error codes that have a class: those that the service documents,
// and those that AWS documents for all services. Throttling has more of them, which
// the SDK lists. A code that is not here, with a status of 4xx, is a refusal.
var codes = map[string]error{
	"ResourceNotFoundException": driver.ErrNotFound,
	"ResourceExistsException":   driver.ErrExists,

	// What the caller or the resource is allowed.
	"AccessDeniedException":            driver.ErrDenied,
	"AccessDenied":                     driver.ErrDenied,
	"NotAuthorized":                    driver.ErrDenied,
	"MalformedPolicyDocumentException": driver.ErrRefused,
	"OptInRequired":                    driver.ErrDenied,
	"PublicPolicyException":            driver.ErrRefused,

	// What the state of the secret, its tags, a policy on tags or the form of the
	// request forbids: a replica, a managed secret, system tags, a key that is
	// disabled. InvalidRequestException is also that of a deleted secret.
	"InvalidAction":                  driver.ErrRefused,
	"InvalidParameterException":      driver.ErrRefused,
	"InvalidRequestException":        driver.ErrRefused,
	"MalformedHttpRequestException":  driver.ErrRefused,
	"PreconditionNotMetException":    driver.ErrRefused,
	"RequestEntityTooLargeException": driver.ErrRefused,
	"SerializationException":         driver.ErrRefused,
	"UnknownOperationException":      driver.ErrRefused,
	"ValidationError":                driver.ErrRefused,
	"ValidationException":            driver.ErrRefused,

	// What passes. A limit is that of the versions of a day (create has the one that
	// does not pass); a page is of a list that has changed; a key that
	// does not encrypt may be throttled, unless the text says more.
	"DecryptionFailure":         driver.ErrUnavailable,
	"EncryptionFailure":         driver.ErrUnavailable,
	"InternalFailure":           driver.ErrUnavailable,
	"InternalServiceError":      driver.ErrUnavailable,
	"InternalServiceFailure":    driver.ErrUnavailable,
	"InvalidNextTokenException": driver.ErrUnavailable,
	"KMSInternalException":      driver.ErrUnavailable,
	"KMSThrottlingException":    driver.ErrUnavailable,
	"LimitExceededException":    driver.ErrUnavailable,
	"RequestAbortedException":   driver.ErrUnavailable,
	"ServiceUnavailable":        driver.ErrUnavailable,
}

// keyTexts are in the error of a key that only an operator makes usable.
var keyTexts = []string{"is disabled", "pending deletion", "pending import", "pending replica deletion", "does not exist", "unavailable key store"}

// A quotaError is a LimitExceededException about a limit that time does not raise.
type quotaError struct{ error }

// Unwrap returns the client's own error.
func (q quotaError) Unwrap() error { return q.error }

// credentialCodes are the error codes about the credentials themselves, whatever
// they would permit.
var credentialCodes = []string{
	"ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidAccessKeyId",
	"InvalidClientTokenId", "InvalidSignatureException", "InvalidToken", "MissingAuthenticationToken",
	"MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
}

// textFetch is in the SDK's error if its credentials could not be fetched. There is
// no type for that.
const textFetch = "get credentials: "

// classify gives an error of the client its class. An error that fits none is
// returned as it came.
func classify(err error) error {
	var (
		answer    smithy.APIError
		transport *url.Error
		network   net.Error
		quota     ratelimit.QuotaExceededError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		return classifyAnswer(err, answer)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// The caller's context is not done (see failed): the client's own time-out
		// has run out. The error is not wrapped, or it would be taken for the
		// caller's.
		return fmt.Errorf("%w: the client's time-out has run out: %s", driver.ErrUnavailable, line(err))
	case errors.Is(err, errUnreadable), errors.As(err, &quota), errors.As(err, &transport),
		errors.As(err, &network), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if strings.Contains(err.Error(), textFetch) {
			return fmt.Errorf("%w: %w: %w", driver.ErrUnavailable, driver.ErrCredentials, err)
		}
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	case strings.Contains(err.Error(), textFetch):
		return fmt.Errorf("%w: %w: %w", driver.ErrDenied, driver.ErrCredentials, err)
	}
	return err
}

// classifyAnswer is classify for an error that a service has answered with.
func classifyAnswer(err error, answer smithy.APIError) error {
	code, text, status := answer.ErrorCode(), strings.Join(strings.Fields(answer.ErrorMessage()), " "), statusOf(err)
	says := func(t string) bool { return strings.Contains(text, t) }
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	_, transient := retry.DefaultRetryableErrorCodes[code]
	class := codes[code]
	switch {
	case slices.Contains(credentialCodes, code):
		return fmt.Errorf("%w: %w: %w", driver.ErrDenied, driver.ErrCredentials, err)
	case class == driver.ErrNotFound && says(textVersion):
		return fmt.Errorf("%w: %w: %w", class, errNoVersion, err)
	case class == driver.ErrNotFound && says(textCurrent):
		return fmt.Errorf("%w: %w: %w", class, errNoCurrent, err)
	case code == "InvalidRequestException" && slices.ContainsFunc(deletionTexts, says):
		class = driver.ErrNotFound
	case errors.As(err, new(quotaError)):
		class = driver.ErrRefused
	case code == "EncryptionFailure" || code == "DecryptionFailure":
		if slices.ContainsFunc(keyTexts, says) {
			class = driver.ErrRefused
		}
	case class != nil:
	case throttled, transient, status >= http.StatusInternalServerError, status == http.StatusTooManyRequests:
		class = driver.ErrUnavailable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		class = driver.ErrDenied
	case status >= http.StatusBadRequest:
		class = driver.ErrRefused
	}
	if class == nil {
		return err
	}
	return fmt.Errorf("%w: %w", class, err)
}

// statusOf returns the status of the answer that err came of, or 0.
func statusOf(err error) int {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// refusal reports whether the error of one attempt is a refusal by the service, so
// that the attempt has changed nothing.
func refusal(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return false
	}
	code, status := answer.ErrorCode(), statusOf(err)
	_, transient := retry.DefaultRetryableErrorCodes[code]
	internal := strings.HasPrefix(code, "Internal") || code == "RequestAbortedException" // of which some have status 400
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError && !transient && !internal
}

// failed makes the error of a call out of the client's: an error of ctx if ctx is
// done, else a classified one.
func failed(ctx context.Context, call string, err error, sent []byte) error {
	err = presentable(call, err, sent)
	if cause := ctx.Err(); cause != nil {
		if errors.Is(err, cause) {
			return err
		}
		return fmt.Errorf("%w: %w", cause, err)
	}
	return classify(err)
}

// errUnreadable means that something other than the service has answered.
var errUnreadable = errors.New("the answer is not in Secrets Manager's form")

// presentable returns err without what was sent and without what came back and
// could not be read: errors of decoders quote their input.
func presentable(call string, err error, sent []byte) error {
	var answer smithy.APIError
	var response *smithyhttp.ResponseError
	var decoding *smithy.DeserializationError
	isAnswer := errors.As(err, &answer)
	switch {
	case !isAnswer && broken(err) != nil:
		return fmt.Errorf("%s: %w", call, broken(err))
	case isAnswer && repeats(err.Error(), sent):
		code := answer.ErrorCode()
		if repeats(code, sent) {
			code = "UnknownError"
		}
		return fmt.Errorf("%s: %w", call, &smithy.GenericAPIError{Code: code, Message: "(text not shown)", Fault: answer.ErrorFault()})
	case !isAnswer && errors.As(err, &response) && !strings.Contains(err.Error(), textFetch):
		return fmt.Errorf("%s: status %d: %w", call, response.HTTPStatusCode(), errUnreadable)
	case !isAnswer && (errors.As(err, &decoding) || repeats(err.Error(), sent)):
		return fmt.Errorf("%s: %w", call, errUnreadable)
	}
	return &shown{err}
}

// broken returns the transport's own error if err came of an answer that broke off
// while it was read, and nil otherwise. It quotes nothing of the answer, as an error
// of the decoder around it may.
func broken(err error) error {
	var response *smithyhttp.ResponseError
	var network net.Error
	switch {
	case !errors.As(err, &response):
		return nil // there was no answer
	case errors.As(err, &network):
		return network
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return nil
}

// shown is an error of the client that prints in one line.
type shown struct{ err error }

// Error returns the text.
func (s *shown) Error() string { return line(s.err) }

// Unwrap returns the client's own error.
func (s *shown) Unwrap() error { return s.err }

func line(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// longest is how much of what was sent a text may repeat.
const longest = 12

// repeats reports whether text holds a piece of what was sent, as it is or as it
// goes over the wire.
func repeats(text string, sent []byte) bool {
	if len(sent) == 0 {
		return false
	}
	wire := []byte(base64.StdEncoding.EncodeToString(sent))
	for i := 0; i+longest <= len(text); i++ {
		piece := []byte(text[i : i+longest])
		if bytes.Contains(sent, piece) || bytes.Contains(wire, piece) {
			return true
		}
	}
	return len(sent) < longest && strings.Contains(text, string(sent))
}
