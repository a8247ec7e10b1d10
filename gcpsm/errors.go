package gcpsm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// The refusals of an access to a version. An errGone is about the version: it is
// disabled or destroyed. An errKey is about the key that it is encrypted with.
var (
	errGone = fmt.Errorf("%w: the version cannot be accessed", driver.ErrRefused)
	errKey  = fmt.Errorf("%w: the key of the version cannot be used", driver.ErrRefused)
)

// conditional are the methods that carry an etag. Their FAILED_PRECONDITION says
// that the etag is not the current one, unless the text names another cause.
var conditional = map[string]bool{"UpdateSecret": true, "DeleteSecret": true, "DestroySecretVersion": true}

// The causes that a text of the service names. The texts are all there is where the
// service gives no reason in the details of an error.
var (
	namesSetUp = regexp.MustCompile(`(?i)constraint|org(anization('s)?)?[ _-]?policy|billing|has not been used|api .*disabled|vpcServiceControls`)
	namesKey   = regexp.MustCompile(`(?i)\bkms\b|cloudkms|cryptokey`)
	namesPlace = regexp.MustCompile(`(?i)^(the )?(consumer )?(project|location|parent)\b`)
	namesTLS   = regexp.MustCompile(`x509:|does not look like a TLS handshake|malformed HTTP response`)
	namesSum   = regexp.MustCompile(`(?i)checksum|crc32c`)

	// A token of Google's was asked for and did not come, which may pass.
	namesNetwork = regexp.MustCompile(`(?i)dial tcp|timeout|deadline exceeded|connection (refused|reset)|no such host|\bEOF\b|(fetch token|status code):? (5\d\d|429)`)
	namesNoCreds = regexp.MustCompile(`(?i)could not find default credentials|(cannot|could not) fetch token|oauth2:|auth: `)
)

// reasons are the classes of the reasons that Google's services share, where the
// code alone does not tell (google.api.ErrorReason).
var reasons = map[string]error{
	"SERVICE_DISABLED":              driver.ErrRefused,
	"SERVICE_NOT_VISIBLE":           driver.ErrRefused,
	"BILLING_DISABLED":              driver.ErrRefused,
	"CONSUMER_INVALID":              driver.ErrRefused,
	"CONSUMER_SUSPENDED":            driver.ErrRefused,
	"GCP_SUSPENDED":                 driver.ErrRefused,
	"RESOURCE_PROJECT_INVALID":      driver.ErrRefused,
	"RESOURCE_QUOTA_EXCEEDED":       driver.ErrRefused,
	"LOCATION_ORG_POLICY_VIOLATED":  driver.ErrRefused,
	"LOCATION_POLICY_VIOLATED":      driver.ErrRefused,
	"LOCATION_TAX_POLICY_VIOLATED":  driver.ErrRefused,
	"ORG_RESTRICTION_VIOLATION":     driver.ErrRefused,
	"SECURITY_POLICY_VIOLATED":      driver.ErrRefused,
	"ACCESS_TOKEN_EXPIRED":          driver.ErrCredentials,
	"ACCESS_TOKEN_TYPE_UNSUPPORTED": driver.ErrCredentials,
	"ACCOUNT_STATE_INVALID":         driver.ErrCredentials,
	"API_KEY_INVALID":               driver.ErrCredentials,
	"CREDENTIALS_MISSING":           driver.ErrCredentials,
}

// class returns the class of an error of a method. It matches ErrCredentials too
// if it is the credentials that are not accepted.
func class(method string, err error) error {
	reason, text := reasonOf(err), text(err)
	switch given := reasons[reason]; {
	case errors.Is(given, driver.ErrCredentials):
		return errCredentials
	case given != nil:
		return given
	}
	if of := byCode[code(err)]; of != nil {
		return of(method, text, err)
	}
	return driver.ErrUnavailable // of the service's state, or the connection's
}

// byCode are the classes of the codes that are not of the service's state.
var byCode = map[codes.Code]func(method, text string, err error) error{
	codes.NotFound:           func(method, text string, _ error) error { return absent(method, text) },
	codes.AlreadyExists:      func(string, string, error) error { return driver.ErrExists },
	codes.FailedPrecondition: func(method, text string, _ error) error { return precondition(method, text) },
	codes.PermissionDenied: func(_, text string, _ error) error {
		return either(namesSetUp, text, driver.ErrRefused, driver.ErrDenied)
	},
	codes.Unauthenticated: func(_, text string, _ error) error {
		return either(namesNetwork, text, errNoCredentials, errCredentials)
	},
	codes.InvalidArgument: func(_, text string, _ error) error { return argument(text) },
	codes.OutOfRange:      func(_, text string, _ error) error { return argument(text) },
	codes.Unimplemented:   func(_, text string, _ error) error { return argument(text) },
	codes.Unavailable: func(_, text string, _ error) error {
		return either(namesTLS, text, driver.ErrRefused, driver.ErrUnavailable)
	},
	codes.ResourceExhausted: func(_, _ string, err error) error { return exhausted(err) },
	codes.Unknown:           func(_, text string, _ error) error { return unknown(text) },
}

// either returns yes if the pattern is in text, and no otherwise.
func either(pattern *regexp.Regexp, text string, yes, no error) error {
	if pattern.MatchString(text) {
		return yes
	}
	return no
}

// absent returns the class of a NOT_FOUND. A call that makes a secret, and a list,
// name only what there must be already.
func absent(method, text string) error {
	if method == "CreateSecret" || method == "ListSecrets" || namesKey.MatchString(text) {
		return driver.ErrRefused
	}
	return either(namesPlace, text, driver.ErrRefused, driver.ErrNotFound)
}

// argument returns the class of a call that the service does not understand. A
// payload may have been damaged on its way.
func argument(text string) error {
	return either(namesSum, text, driver.ErrUnavailable, driver.ErrRefused)
}

// exhausted returns the class of a quota. One of nothing never recovers.
func exhausted(err error) error {
	if details, ok := apierror.FromError(err); ok && details.Metadata()["quota_limit_value"] == "0" {
		return driver.ErrRefused
	}
	return driver.ErrUnavailable
}

// unknown returns the class of an error without a code. It may be none of the
// service's, but of the connection or of the credentials.
func unknown(text string) error {
	if namesNoCreds.MatchString(text) {
		return either(namesNetwork, text, errNoCredentials, errCredentials)
	}
	return driver.ErrUnavailable
}

// precondition returns the class of a FAILED_PRECONDITION.
func precondition(method, text string) error {
	switch key := namesKey.MatchString(text); {
	case method == "AccessSecretVersion" && key:
		return errKey
	case method == "AccessSecretVersion" && !namesSetUp.MatchString(text):
		return errGone
	case conditional[method] && !key && !namesSetUp.MatchString(text):
		return driver.ErrConflict
	}
	return driver.ErrRefused
}

// The classes of credentials that are not accepted, and of those that could not
// be fetched.
var (
	errCredentials   = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)
	errNoCredentials = fmt.Errorf("%w: %w", driver.ErrUnavailable, driver.ErrCredentials)
)

// reasonOf returns the reason in the details of an error, or "".
func reasonOf(err error) string {
	if details, ok := apierror.FromError(err); ok {
		return details.Reason()
	}
	return ""
}

// text returns what an error says, without its code if it has one.
func text(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	var answer *googleapi.Error
	if errors.As(err, &answer) && answer.Message != "" {
		return answer.Message
	}
	return err.Error()
}

// code returns the code of an error. Over REST several codes share a status of
// HTTP, and the body tells which it is.
func code(err error) codes.Code {
	var answer *googleapi.Error
	if errors.As(err, &answer) {
		var body struct {
			Error struct {
				Status json.RawMessage `json:"status"`
			} `json:"error"`
		}
		var c codes.Code
		if json.Unmarshal([]byte(answer.Body), &body) == nil && c.UnmarshalJSON(body.Error.Status) == nil && c != codes.OK {
			return c
		}
	}
	return status.Code(err)
}

// failed makes the error of a call out of the client's: an error of ctx if ctx is
// done, else one of its class. What was sent is not repeated in it.
func failed(ctx context.Context, method, id string, err error, sent []byte) error {
	if repeats(err.Error(), sent) {
		err = status.Error(code(err), "(text not shown)")
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%w: %s %q: %w", cause, method, id, err)
	}
	c := class(method, err)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		// The client's own time-out has run out, and not the caller's. The error
		// is not wrapped, or it would be taken for that.
		return fmt.Errorf("%w: %s %q: %v", c, method, id, err)
	}
	return fmt.Errorf("%w: %s %q: %w", c, method, id, err)
}

// longest is how much of what was sent a text may repeat.
const longest = 12

// repeats reports whether text holds a piece of what was sent.
func repeats(text string, sent []byte) bool {
	for i := 0; i+longest <= len(text); i++ {
		if bytes.Contains(sent, []byte(text[i:i+longest])) {
			return true
		}
	}
	return len(sent) > 0 && len(sent) < longest && strings.Contains(text, string(sent))
}
