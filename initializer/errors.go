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

// Error classes, for errors.Is. Errors of packages tokenstore and context keep their classes. If an
// authorization server refused a request, errors.As finds a *tokenstore.RefreshError with the
// server's code and the time to wait before a retry.
var (
	// ErrReauthRequired means that the user must consent again. The record does not exist, its
	// tokens were revoked, or its refresh token or one-time code is missing or invalid.
	ErrReauthRequired = errors.New("the user has to authorize the client again")

	// ErrThrottled means that the authorization server has received too many requests. Zoho
	// answers with HTTP status 200 and "Access Denied" if a refresh token is used for the 11th
	// time within 10 minutes. Client.Rejected also fails with ErrThrottled if the API rejects two
	// tokens within a minute.
	ErrThrottled = errors.New("the authorization server is throttling")

	// ErrClient means that the authorization server refused the client rather than the user's
	// token: the client's ID, secret, redirect URL or scopes are wrong, or the client lacks a
	// permission. A corrected configuration works immediately.
	ErrClient = errors.New("the authorization server refused the client")

	// ErrWrongDataCenter matches ErrClient. It means that a Zoho accounts server refused the client
	// ID: the client is registered in another data center, or its ID is wrong.
	ErrWrongDataCenter = fmt.Errorf("%w: it is not known in this data center", ErrClient)

	// ErrServer means that the authorization server could not be reached, failed, or sent no
	// usable token response. An HTML page or a truncated object is not usable. Retrying later
	// may help.
	ErrServer = errors.New("no usable answer from the authorization server")

	// ErrRefused means that the authorization server refused a request with a code of unknown
	// meaning. The *tokenstore.RefreshError has the code, or "http_" and the status if the response
	// has no code. A code that contains a secret or does not have the usual form becomes
	// "unknown_error". Retrying rarely helps. Config.Refusals can assign a class to the code.
	ErrRefused = errors.New("the authorization server refused")

	// ErrUntrustedURL means that a token was not sent because of its destination: a URL that is
	// neither https nor on the loopback interface, or a host that the configuration does not
	// allow. See Config.Hosts.
	ErrUntrustedURL = errors.New("a token must not be sent to this URL")

	// ErrTokenType means that a token was not sent because of its type: a type that requires a
	// proof of possession, such as DPoP or mac, or an unknown type. See Config.TokenTypes.
	ErrTokenType = errors.New("a token of this type cannot be sent")

	// ErrClosed means that the Client was closed.
	ErrClosed = errors.New("the client is closed")
)

var errNoDomain = errors.New("the URL has no host, and no API domain is known")

// fail adds the name of an operation and the class of err to err. It returns nil if err is nil.
func (c *Client) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if class := c.classOf(err); class != nil && !errors.Is(err, class) {
		return fmt.Errorf("initializer: %s: %w: %w", op, class, err)
	}
	return fmt.Errorf("initializer: %s: %w", op, err)
}

// classOf returns the class of err in this package, or nil if err has no class. The class of a
// refusal follows from its code, because stores keep only the code.
func (c *Client) classOf(err error) error {
	var refused *tokenstore.RefreshError
	switch {
	case errors.Is(err, tokenstore.ErrNotPersisted):
		return nil // the token can be used, so the cause has no class
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
		// If an earlier holder of the lease abandoned a refresh, the store treats a permanent
		// refusal as temporary: the holder may have used the refresh token.
		return ErrServer
	case m == meansUnknown && refused.Permanent:
		return ErrReauthRequired
	}
	return m.class()
}

// unreachable returns an error that matches ErrServer, for a request that failed with err and has
// no response. The error leaves out the URL, which might contain a secret. If the text of err
// contains one of the secrets, for example because the caller's transport quotes the request, the
// error also leaves out that text.
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

// holdsAny reports whether text contains one of the secrets, either unchanged or encoded as in a
// form, which a transport might quote. A short secret counts only as a separate word, because a
// secret such as "r" occurs in almost every text.
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
