package initializer

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Error classes, for errors.Is. Those of package tokenstore are passed on, and
// context errors match the context package's. Where an authorization server has
// refused, errors.As finds the *tokenstore.RefreshError with its code, and how
// long it asks to be left alone.
var (
	// ErrReauthRequired means that the user has to consent again: there is no
	// token to begin with, or the refresh token or the one-time code is not good
	// any more.
	ErrReauthRequired = errors.New("the user has to authorize the client again")

	// ErrThrottled means that the authorization server has had enough requests.
	// Zoho says so with HTTP status 200 and "Access Denied" when a refresh token
	// is used for the 11th time in 10 minutes.
	ErrThrottled = errors.New("the authorization server is throttling")

	// ErrClient means that the authorization server refused the client and not
	// the user's token: its ID, secret or redirect URL is wrong.
	ErrClient = errors.New("the authorization server refused the client")

	// ErrWrongDataCenter is ErrClient where the accounts server of a data centre
	// does not know the client at all: the client is registered in another one,
	// or its ID is wrong.
	ErrWrongDataCenter = fmt.Errorf("%w: it is not known in this data centre", ErrClient)

	// ErrServer means that the authorization server could not be reached, failed,
	// or answered what is no answer: a page of HTML, half an object, five
	// megabytes. Trying again later may help.
	ErrServer = errors.New("no usable answer from the authorization server")

	// ErrClosed means that the Client was closed.
	ErrClosed = errors.New("the client is closed")
)

var errNoDomain = errors.New("the URL has no host, and no API domain is known")

// Codes of refusals that are not the server's own words.
const (
	codeDenied          = "Access Denied" // Zoho's, in the spelling that stores know
	codeNoCredential    = "no_refresh_token"
	codeInvalidResponse = "invalid_response"
	codeServerError     = "server_error"
	codeThrottled       = "too_many_requests"
	codeUnknown         = "unknown_error"
)

const (
	throttleWait = 10 * time.Minute // Zoho's window
	serverWait   = 5 * time.Second  // after an answer that was none
)

// fail makes the error of an operation: the class of err before it.
func fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if class := classOf(err); class != nil && !errors.Is(err, class) {
		return fmt.Errorf("initializer: %s: %w: %w", op, class, err)
	}
	return fmt.Errorf("initializer: %s: %w", op, err)
}

// classOf returns the class of this package that err belongs to, or nil.
func classOf(err error) error {
	var refused *tokenstore.RefreshError
	switch {
	case errors.Is(err, tokenstore.ErrNotPersisted):
		return nil // there is a token, whatever else is wrong
	case !errors.As(err, &refused) && errors.Is(err, tokenstore.ErrNotFound):
		return ErrReauthRequired
	case refused == nil:
		return nil
	case refused.Code == codeDenied, refused.Code == codeThrottled, refused.Code == "slow_down":
		return ErrThrottled
	case refused.Code == "invalid_client":
		return ErrWrongDataCenter
	case ofClient(refused.Code):
		return ErrClient
	case refused.Permanent:
		return ErrReauthRequired
	}
	return ErrServer
}

// ofClient reports whether a code refuses the client and not the user's token.
// Stores do not keep such a refusal.
func ofClient(code string) bool {
	for _, prefix := range []string{"invalid_client", "unauthorized_client", "invalid_redirect_uri"} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}

var codeForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_ .-]{0,63}$`)

// refusal is what a server's error code means. The code comes from outside and
// ends up in errors and records: one that does not look like a code, or that
// repeats a secret of the request, is not passed on.
func refusal(code string, header http.Header, now time.Time, secrets ...string) *tokenstore.RefreshError {
	if !codeForm.MatchString(code) || holdsAny(code, secrets) {
		code = codeUnknown
	}
	r := &tokenstore.RefreshError{Code: code, RetryAfter: retryAfter(header, now)}
	switch code {
	case "invalid_code", "invalid_grant", "invalid_token":
		r.Permanent = true
	case "server_error", "temporarily_unavailable":
		r.RetryAfter = max(r.RetryAfter, serverWait)
	}
	return r
}

// noAnswer is what an answer means that is none, by its HTTP status.
func noAnswer(status int, header http.Header, now time.Time) *tokenstore.RefreshError {
	r := &tokenstore.RefreshError{Code: codeInvalidResponse, RetryAfter: max(retryAfter(header, now), serverWait)}
	switch {
	case status == http.StatusTooManyRequests:
		r.Code = codeThrottled
	case status >= http.StatusInternalServerError:
		r.Code = codeServerError
	}
	return r
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// unreachable is the error of a request that brought no answer. What it was
// called with is left out: the URL may be secret, and so may be what a transport
// of the caller's own says.
func unreachable(err error, secrets ...string) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if holdsAny(err.Error(), secrets) {
		return fmt.Errorf("%w: the reason repeats a secret and is left out", ErrServer)
	}
	return fmt.Errorf("%w: %w", ErrServer, err)
}

func holdsAny(text string, secrets []string) bool {
	for _, s := range secrets {
		// A transport may quote the form it was to send.
		if s != "" && (strings.Contains(text, s) || strings.Contains(text, url.QueryEscape(s))) {
			return true
		}
	}
	return false
}
