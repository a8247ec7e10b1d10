package initializer

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

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
	// the user's token: its ID, secret, redirect URL or scopes are wrong, or it may
	// not do what it asks for. A correction of the configuration helps at once.
	ErrClient = errors.New("the authorization server refused the client")

	// ErrWrongDataCenter is ErrClient where Zoho's accounts server of a data centre
	// does not know the client at all: the client is registered in another one,
	// or its ID is wrong.
	ErrWrongDataCenter = fmt.Errorf("%w: it is not known in this data centre", ErrClient)

	// ErrServer means that the authorization server could not be reached, failed,
	// or answered what is no answer: a page of HTML, half an object, five
	// megabytes. Trying again later may help.
	ErrServer = errors.New("no usable answer from the authorization server")

	// ErrRefused means that the authorization server answered and refused, with a
	// code whose meaning this package does not know. The *tokenstore.RefreshError
	// has the code, or "http_" and the status if there is none. Trying again seldom
	// helps. Config.Refusals gives a code its class.
	ErrRefused = errors.New("the authorization server refused")

	// ErrUntrustedURL means that a token was not sent, because its destination may
	// not have it: a URL without https, or a host that is not Zoho's where the
	// Environment is. See Config.Hosts.
	ErrUntrustedURL = errors.New("a token must not be sent to this URL")

	// ErrClosed means that the Client was closed.
	ErrClosed = errors.New("the client is closed")
)

var errNoDomain = errors.New("the URL has no host, and no API domain is known")

// fail makes the error of an operation: the class of err before it.
func (c *Client) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if class := c.classOf(err); class != nil && !errors.Is(err, class) {
		return fmt.Errorf("initializer: %s: %w: %w", op, class, err)
	}
	return fmt.Errorf("initializer: %s: %w", op, err)
}

// classOf returns the class of this package that err belongs to, or nil. The code
// of a refusal decides, because it is all that a store keeps.
func (c *Client) classOf(err error) error {
	var refused *tokenstore.RefreshError
	switch {
	case errors.Is(err, tokenstore.ErrNotPersisted):
		return nil // there is a token, whatever else is wrong
	case !errors.As(err, &refused) && errors.Is(err, tokenstore.ErrNotFound):
		return ErrReauthRequired
	case refused == nil:
		return nil
	}
	code, m, _ := c.conf.book().look(refused.Code)
	switch {
	case m == meansClient && code == "invalid_client" && c.conf.OAuth2 == nil:
		return ErrWrongDataCenter
	case m == meansConsent && !refused.Permanent:
		// After a take-over a store takes what is final for temporary.
		return ErrServer
	case m == meansUnknown && refused.Permanent:
		return ErrReauthRequired
	}
	return m.class()
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

// holdsAny reports whether a text repeats a secret, as it is or as a form has it:
// a transport may quote the form that it was to send. A short secret is one only
// as a word of its own, or "r" would be in every text.
func holdsAny(text string, secrets []string) bool {
	for _, s := range secrets {
		if s != "" && (holds(text, s) || holds(text, url.QueryEscape(s))) {
			return true
		}
	}
	return false
}

const longSecret = 12

func holds(text, secret string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], secret)
		if at < 0 {
			return false
		}
		at += from
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(secret):])
		if len(secret) >= longSecret || !inWord(before) && !inWord(after) {
			return true
		}
		from = at + 1
	}
}

func inWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
