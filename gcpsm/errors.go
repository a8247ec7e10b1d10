package gcpsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sync"

	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// Refusals of access to a version. errGone means that the version is probably disabled or
// destroyed. errKey means that the key of the version cannot be used.
var (
	errGone = fmt.Errorf("%w: the version cannot be accessed", driver.ErrRefused)
	errKey  = fmt.Errorf("%w: the key of the version cannot be used", driver.ErrRefused)
)

// conditional contains the methods whose requests carry an etag. A FAILED_PRECONDITION error from
// such a method means that the etag is outdated, unless the text names another cause.
var conditional = map[string]bool{"UpdateSecret": true, "DeleteSecret": true, "DestroySecretVersion": true}

// Patterns for causes in the text of an error. If an error has no reason in its details, only the
// text names the cause.
var (
	namesSetUp = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)constraint|org(anization('s)?)?[ _-]?policy|billing|has not been used|api .*disabled|vpcServiceControls`)
	})
	namesKey   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)\bkms\b|cloudkms|cryptokey`) })
	namesPlace = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)^(the )?(consumer )?(project|location|parent)\b`)
	})
	namesTLS = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`x509:|does not look like a TLS handshake|malformed HTTP response`)
	})
	namesSum = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)checksum|crc32c`) })

	// namesNetwork matches possibly temporary failures to fetch a Google token.
	namesNetwork = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)dial tcp|timeout|deadline exceeded|connection (refused|reset)|no such host|\bEOF\b|(fetch token|status code):? (5\d\d|429)`)
	})
	namesNoCreds = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)could not find default credentials|(cannot|could not) fetch token|oauth2:|auth: `)
	})
)

// reasons maps values of google.api.ErrorReason to classes. The map contains only reasons that are
// more specific than the code of the error.
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

// classify returns the class of err, an error from a call of the given method.
func classify(method string, err error) error {
	reason, text := reasonOf(err), text(err)
	switch given := reasons[reason]; {
	case errors.Is(given, driver.ErrCredentials):
		return errCredentials
	case given != nil:
		return given
	}
	switch code(err) {
	case codes.NotFound:
		return absent(method, text)
	case codes.AlreadyExists:
		return driver.ErrExists
	case codes.FailedPrecondition:
		return precondition(method, text)
	case codes.PermissionDenied:
		return either(namesSetUp(), text, driver.ErrRefused, driver.ErrDenied)
	case codes.Unauthenticated:
		return either(namesNetwork(), text, errNoCredentials, errCredentials)
	case codes.InvalidArgument, codes.OutOfRange, codes.Unimplemented:
		return either(namesSum(), text, driver.ErrUnavailable, driver.ErrRefused) // a wrong checksum means damage in transit
	case codes.Unavailable:
		return either(namesTLS(), text, driver.ErrRefused, driver.ErrUnavailable)
	case codes.ResourceExhausted:
		return exhausted(err)
	case codes.Unknown:
		return unknown(text)
	default:
		return driver.ErrUnavailable // caused by the state of the service or the connection
	}
}

func either(pattern *regexp.Regexp, text string, yes, no error) error {
	if pattern.MatchString(text) {
		return yes
	}
	return no
}

// absent returns the class of a NOT_FOUND error from the given method. In errors from CreateSecret
// and ListSecrets, the missing resource is the project, the location or a key.
func absent(method, text string) error {
	if method == "CreateSecret" || method == "ListSecrets" || namesKey().MatchString(text) {
		return driver.ErrRefused
	}
	return either(namesPlace(), text, driver.ErrRefused, driver.ErrNotFound)
}

// exhausted returns the class of a quota error. If the quota is 0, retries cannot succeed.
func exhausted(err error) error {
	if details, ok := apierror.FromError(err); ok && details.Metadata()["quota_limit_value"] == "0" {
		return driver.ErrRefused
	}
	return driver.ErrThrottled
}

// unknown returns the class of an error without a code. Connection errors, and errors about
// credentials, have no code.
func unknown(text string) error {
	if namesNoCreds().MatchString(text) {
		return either(namesNetwork(), text, errNoCredentials, errCredentials)
	}
	return driver.ErrUnavailable
}

// precondition returns the class of a FAILED_PRECONDITION error from the given method.
func precondition(method, text string) error {
	switch key := namesKey().MatchString(text); {
	case method == "AccessSecretVersion" && key:
		return errKey
	case method == "AccessSecretVersion" && !namesSetUp().MatchString(text):
		return errGone
	case conditional[method] && !key && !namesSetUp().MatchString(text):
		return driver.ErrConflict
	}
	return driver.ErrRefused
}

// errCredentials is the class of refused or absent credentials. errNoCredentials is the class of
// credentials that could not be fetched.
var (
	errCredentials   = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)
	errNoCredentials = fmt.Errorf("%w: %w", driver.ErrUnavailable, driver.ErrCredentials)
)

func reasonOf(err error) string {
	if details, ok := apierror.FromError(err); ok {
		return details.Reason()
	}
	return ""
}

// text returns the text of an error without the code.
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

// code returns the code of an error. Over REST, several codes share one HTTP status, so the
// function code reads the body of the response.
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

// callError converts a client error into a driver error, as driverkit.CallError does. The parameter
// sent is the data in the request, which the result does not quote.
func callError(ctx context.Context, method, id string, err error, sent []byte) error {
	if driverkit.Repeats(err.Error(), sent) {
		err = status.Error(code(err), "(text not shown)")
	}
	return driverkit.CallError(ctx, fmt.Errorf("%s %q: %w", method, id, err), classify(method, err))
}

// exists reports whether err, the result of a read by number, proves that the version exists.
func exists(err error) bool {
	return err == nil || errors.Is(err, errGone) || errors.Is(err, errKey) || errors.Is(err, driver.ErrCorrupt)
}

// gone reports whether err, the result of a read by number, proves that the version does not
// exist, or is disabled or destroyed.
func gone(err error) bool { return errors.Is(err, driver.ErrNotFound) || errors.Is(err, errGone) }
