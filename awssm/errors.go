package awssm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// Texts that Secrets Manager tells apart by nothing else.
const (
	textVersion = " VersionId"     // of a version that is not there, when the secret may be
	textCurrent = " staging label" // of a label that no version has, when the secret is there
)

// deletionTexts are in an InvalidRequestException about a secret that is being deleted,
// or about its name. A KMS key may be pending deletion too.
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

// errCredentials is the class of an error about the credentials themselves, whatever
// they would permit.
var errCredentials = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)

// codes are the classes of error codes: those that the service documents, and those
// that AWS documents for all services. The SDK lists more of throttling. Any other code
// with a status of 4xx is a refusal.
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

// credentialCodes are the error codes of errCredentials.
var credentialCodes = []string{
	"ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidAccessKeyId",
	"InvalidClientTokenId", "InvalidSignatureException", "InvalidToken", "MissingAuthenticationToken",
	"MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
}

// textFetch is in the SDK's error if its credentials could not be fetched. That error
// has no type.
const textFetch = "get credentials: "

// classify returns the class of an error of the client, or nil if it has none.
func classify(err error) error {
	var (
		answer    smithy.APIError
		transport *url.Error
		network   net.Error
		quota     ratelimit.QuotaExceededError
	)
	fetched := err == nil || !strings.Contains(err.Error(), textFetch) // the credentials
	switch {
	case errors.As(err, &answer):
		return classifyAnswer(err, answer)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return driver.ErrUnavailable
	case errors.Is(err, errUnreadable), errors.As(err, &quota), errors.As(err, &transport),
		errors.As(err, &network), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if !fetched {
			return fmt.Errorf("%w: %w", driver.ErrUnavailable, driver.ErrCredentials)
		}
		return driver.ErrUnavailable
	case !fetched:
		return errCredentials
	}
	return nil
}

// classifyAnswer is classify for an error that the service has answered with.
func classifyAnswer(err error, answer smithy.APIError) error {
	code, text := answer.ErrorCode(), strings.Join(strings.Fields(answer.ErrorMessage()), " ")
	says := func(t string) bool { return strings.Contains(text, t) }
	class := codes[code]
	switch {
	case slices.Contains(credentialCodes, code):
		return errCredentials
	case errors.Is(class, driver.ErrNotFound) && says(textVersion):
		return fmt.Errorf("%w: %w", class, errNoVersion)
	case errors.Is(class, driver.ErrNotFound) && says(textCurrent):
		return fmt.Errorf("%w: %w", class, errNoCurrent)
	case code == "InvalidRequestException" && slices.ContainsFunc(deletionTexts, says):
		return driver.ErrNotFound
	case errors.As(err, new(quotaError)):
		return driver.ErrRefused
	case (code == "EncryptionFailure" || code == "DecryptionFailure") && slices.ContainsFunc(keyTexts, says):
		return driver.ErrRefused
	case class != nil:
		return class
	}
	return classifyStatus(code, statusOf(err))
}

// classifyStatus is classifyAnswer for a code that is not in codes.
func classifyStatus(code string, status int) error {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	_, transient := retry.DefaultRetryableErrorCodes[code]
	switch {
	case throttled, transient, status >= http.StatusInternalServerError, status == http.StatusTooManyRequests:
		return driver.ErrUnavailable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return driver.ErrDenied
	case status >= http.StatusBadRequest:
		return driver.ErrRefused
	}
	return nil
}

// statusOf returns the status of the answer that err is about, or 0.
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

// callError returns the error of a call for the client's: see driverkit.CallError. It
// repeats nothing of what was sent.
func callError(ctx context.Context, call string, err error, sent []byte) error {
	if call == "CreateSecret" && errors.As(err, new(*types.LimitExceededException)) {
		err = quotaError{err} // of the secrets of an account, which only an operator raises
	}
	err = presentable(call, err, sent)
	return driverkit.CallError(ctx, err, classify(err))
}

// errUnreadable means that something other than the service has answered.
var errUnreadable = errors.New("the answer is not in Secrets Manager's form")

// presentable returns err without what was sent, and without an answer that could not
// be read: errors of decoders quote their input.
func presentable(call string, err error, sent []byte) error {
	var answer smithy.APIError
	var response *smithyhttp.ResponseError
	var decoding *smithy.DeserializationError
	isAnswer := errors.As(err, &answer)
	switch {
	case !isAnswer && broken(err) != nil:
		return fmt.Errorf("%s: %w", call, broken(err))
	case isAnswer && driverkit.Repeats(err.Error(), sent):
		code := answer.ErrorCode()
		if driverkit.Repeats(code, sent) {
			code = "UnknownError"
		}
		return fmt.Errorf("%s: %w", call, &smithy.GenericAPIError{Code: code, Message: "(text not shown)", Fault: answer.ErrorFault()})
	case !isAnswer && errors.As(err, &response) && !strings.Contains(err.Error(), textFetch):
		return fmt.Errorf("%s: status %d: %w", call, response.HTTPStatusCode(), errUnreadable)
	case !isAnswer && (errors.As(err, &decoding) || driverkit.Repeats(err.Error(), sent)):
		return fmt.Errorf("%s: %w", call, errUnreadable)
	}
	return &shown{err}
}

// broken returns the transport's own error if the connection broke while the answer was
// read, and nil otherwise. It quotes nothing of the answer, as an error of the decoder
// around it may.
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
func (s *shown) Error() string { return strings.Join(strings.Fields(s.err.Error()), " ") }

// Unwrap returns the client's own error.
func (s *shown) Unwrap() error { return s.err }

// unfit reports whether the service has refused tags for what they are, or for how many.
func unfit(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrDenied) {
		return false
	}
	return slices.Contains([]string{
		"InvalidParameterException", "InvalidRequestException", "LimitExceededException", "ValidationException",
	}, answer.ErrorCode())
}

var tooMany = regexp.MustCompile(`(?i)\b(more than|at most|exceed\w*|limit\w*|maximum|quota|too many)\b`)

// full reports whether a refusal of tags says that there are too many.
func full(err error) bool {
	if errors.As(err, new(*types.LimitExceededException)) {
		return true
	}
	var answer smithy.APIError
	return errors.As(err, &answer) && tooMany.MatchString(answer.ErrorMessage()) && strings.Contains(strings.ToLower(answer.ErrorMessage()), "tag")
}
