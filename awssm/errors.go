package awssm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// Texts that distinguish errors from Secrets Manager with the same code.
const (
	textVersion = " VersionId"     // the version does not exist; the secret may exist
	textCurrent = " staging label" // no version has the label; the secret exists
)

// deletionTexts are the texts by which an InvalidRequestException shows that the secret, or another
// secret with the same name, is marked for deletion. An error about a KMS key that is pending
// deletion contains none of these texts.
var deletionTexts = []string{
	"because it was marked for deletion",
	"because a secret with this name is already scheduled for deletion",
	"on a secret that's currently marked deleted",
}

// errNoVersion means that the version does not exist. The secret itself may exist. errNoCurrent
// means that the secret exists but has no current version.
var (
	errNoVersion = errors.New("no such version")
	errNoCurrent = errors.New("no current version")
)

// errCredentials is the class of an error about the credentials themselves, rather than about a
// missing permission.
var errCredentials = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)

// codes maps error codes to classes. The codes in credentialCodes have the class errCredentials.
// classifyStatus classifies all other codes.
var codes = map[string]error{
	"ResourceNotFoundException": driver.ErrNotFound,
	"ResourceExistsException":   driver.ErrExists,

	// Missing permissions, and refusals because of a policy.
	"AccessDeniedException":            driver.ErrDenied,
	"AccessDenied":                     driver.ErrDenied,
	"NotAuthorized":                    driver.ErrDenied,
	"MalformedPolicyDocumentException": driver.ErrRefused,
	"OptInRequired":                    driver.ErrDenied,
	"PublicPolicyException":            driver.ErrRefused,

	// Refusals because of the form of the request, or because of the secret's state, tags or key.
	// Examples are a replica, a managed secret, system tags and a key that is pending deletion.
	// InvalidRequestException is also the error for a deleted secret: see deletionTexts.
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

	// Temporary failures. LimitExceededException means that the secret has too many versions from
	// the last day; callError handles the permanent limit on CreateSecret.
	// InvalidNextTokenException means that the list has changed. EncryptionFailure and
	// DecryptionFailure may be due to throttling, unless the text contains one of keyTexts.
	"DecryptionFailure":         driver.ErrUnavailable,
	"EncryptionFailure":         driver.ErrUnavailable,
	"InternalFailure":           driver.ErrUnavailable,
	"InternalServiceError":      driver.ErrUnavailable,
	"InternalServiceFailure":    driver.ErrUnavailable,
	"InvalidNextTokenException": driver.ErrUnavailable,
	"KMSInternalException":      driver.ErrUnavailable,
	"KMSThrottlingException":    driver.ErrThrottled,
	"LimitExceededException":    driver.ErrUnavailable,
	"RequestAbortedException":   driver.ErrUnavailable,
	"ServiceUnavailable":        driver.ErrUnavailable,
}

// keyTexts are the texts of errors about keys that only an operator can make usable.
var keyTexts = []string{"is disabled", "pending deletion", "pending import", "pending replica deletion", "does not exist", "unavailable key store"}

// A quotaError is a LimitExceededException about a permanent limit.
type quotaError struct{ error }

// Unwrap returns the client's own error.
func (q quotaError) Unwrap() error { return q.error }

// credentialCodes are the error codes of class errCredentials.
var credentialCodes = []string{
	"ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidAccessKeyId",
	"InvalidClientTokenId", "InvalidSignatureException", "InvalidToken", "MissingAuthenticationToken",
	"MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
}

// textFetch is part of the text of the error that the SDK returns if it cannot fetch credentials.
// That error has no specific type.
const textFetch = "get credentials: "

// classify returns the class of an error from the client, or nil if the error has no class.
func classify(err error) error {
	var (
		answer    smithy.APIError
		transport *url.Error
		network   net.Error
		quota     ratelimit.QuotaExceededError
	)
	fetched := err == nil || !strings.Contains(err.Error(), textFetch) // whether the SDK has fetched the credentials
	switch {
	case errors.As(err, &answer):
		return classifyAnswer(err, answer)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return driver.ErrUnavailable
	case fetched && isTLS(err):
		return driver.ErrRefused // the address or the certificate is wrong; nothing was sent
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

// isTLS reports whether err means that the client and the server do not agree on TLS, or that the
// client does not trust the server's certificate.
func isTLS(err error) bool {
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError))
}

// classifyAnswer returns the class of err, or nil if err has no class. The parameter answer is the
// error response that err wraps.
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

// classifyStatus returns the class of an error response whose code is not in codes, or nil if the
// response has no class.
func classifyStatus(code string, status int) error {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	_, transient := retry.DefaultRetryableErrorCodes[code]
	switch {
	case throttled, status == http.StatusTooManyRequests:
		return driver.ErrThrottled
	case transient, status >= http.StatusInternalServerError:
		return driver.ErrUnavailable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return driver.ErrDenied
	case status >= http.StatusBadRequest:
		return driver.ErrRefused
	}
	return nil
}

// statusOf returns the HTTP status in err, or 0 if err contains no HTTP status.
func statusOf(err error) int {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// refusal reports whether err, the error of one attempt, is a refusal by the service. A
// refused attempt was not applied.
func refusal(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return false
	}
	code, status := answer.ErrorCode(), statusOf(err)
	_, transient := retry.DefaultRetryableErrorCodes[code]
	internal := strings.HasPrefix(code, "Internal") || code == "RequestAbortedException" // some internal errors have status 400
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError && !transient && !internal
}

// callError converts a client error into a driver error, as driverkit.CallError does. The parameter
// sent is the data in the request, which the result does not quote.
func callError(ctx context.Context, call string, err error, sent []byte) error {
	if call == "CreateSecret" && errors.As(err, new(*types.LimitExceededException)) {
		err = quotaError{err} // only an operator can raise this limit on the number of secrets
	}
	err = presentable(call, err, sent)
	return driverkit.CallError(ctx, err, classify(err))
}

// errUnreadable means that a response is not in Secrets Manager's format, for example because a
// proxy sent it.
var errUnreadable = errors.New("the answer is not in Secrets Manager's form")

// presentable returns a replacement for err. The parameter sent is the data in the request. The
// replacement quotes neither that data nor a response that could not be parsed. An error from a
// decoder may quote the response.
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

// broken returns the transport's own error if the connection broke during the response, and nil
// otherwise. The transport's error does not quote the response. The decoder's error, which wraps
// the transport's error, may quote the response.
func broken(err error) error {
	var response *smithyhttp.ResponseError
	var network net.Error
	switch {
	case !errors.As(err, &response):
		return nil // there was no response
	case errors.As(err, &network):
		return network
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return nil
}

// A shown wraps an error from the client. The text of a shown is a single line.
type shown struct{ err error }

// Error returns the text of the client's error as a single line.
func (s *shown) Error() string { return strings.Join(strings.Fields(s.err.Error()), " ") }

// Unwrap returns the client's own error.
func (s *shown) Unwrap() error { return s.err }

// unfit reports whether err may mean that the service refused tags because of their form or their
// number.
func unfit(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrDenied) {
		return false
	}
	return slices.Contains([]string{
		"InvalidParameterException", "InvalidRequestException", "LimitExceededException", "ValidationException",
	}, answer.ErrorCode())
}

var tooMany = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b(more than|at most|exceed\w*|limit\w*|maximum|quota|too many)\b`)
})

// full reports whether err, a refusal of tags, means that the secret has too many tags.
func full(err error) bool {
	if errors.As(err, new(*types.LimitExceededException)) {
		return true
	}
	var answer smithy.APIError
	return errors.As(err, &answer) && tooMany().MatchString(answer.ErrorMessage()) && strings.Contains(strings.ToLower(answer.ErrorMessage()), "tag")
}
