package vaultstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Texts that Vault tells apart by nothing else.
const (
	textMismatch  = "check-and-set parameter did not match the current version"
	textNoToken   = "missing client token"
	textBadToken  = "invalid token"
	textUpgrading = "from non-versioned to versioned data"
	textNoForward = "forwarding via header X-Vault-Forward disabled"
	textNoRoute   = "no handler for route"
	textPlain     = "Client sent an HTTP request to an HTTPS server"
	textMalformed = "Vault token contains non-printable characters"
)

// texts500 are those of failures that are not Vault's: what was sent is larger than
// the server or its storage takes.
var texts500 = []string{"too large", "exceeds allowed length"}

// errCredentials is the class of an error about the token, or about what a login is
// made with, and not about what the token may do.
var errCredentials = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)

// classify gives an error of the client its class. An error that fits none is
// returned as it came.
func classify(err error) error {
	var (
		answer    *api.ResponseError
		transport *url.Error
		network   net.Error
		class     error
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		class = classOf(answer)
	case misdirected(err):
		class = driver.ErrRefused
	case strings.Contains(err.Error(), textMalformed):
		class = errCredentials
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// The caller's context is not done (see failed): the client's own time-out
		// has run out. The error is not wrapped, or it would be taken for the
		// caller's.
		return fmt.Errorf("%w: the client's time-out has run out: %v", driver.ErrUnavailable, err)
	case errors.As(err, &transport), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		class = driver.ErrUnavailable
	}
	switch {
	case class == nil:
		return err
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the server speaks http, and its address says https: %w", class, err)
	}
	return fmt.Errorf("%w: %w", class, err)
}

// classOf returns the class of an answer.
func classOf(answer *api.ResponseError) error {
	switch code := answer.StatusCode; {
	case code == http.StatusBadRequest && says(answer, textMismatch):
		return driver.ErrConflict
	case code == http.StatusBadRequest && says(answer, textUpgrading):
		return driver.ErrUnavailable
	case says(answer, textNoToken), code == http.StatusUnauthorized, code == http.StatusForbidden && says(answer, textBadToken):
		return errCredentials
	case code == http.StatusForbidden:
		return driver.ErrDenied
	case code == http.StatusNotFound && len(answer.Errors) == 0:
		// With a text it is a mount or a namespace that is not there.
		return driver.ErrNotFound
	case code == http.StatusPreconditionFailed, code == http.StatusLocked, code == http.StatusTooManyRequests,
		code == 472, code == 473, code < http.StatusBadRequest:
		// 472 and 473 are what standby nodes say of themselves.
		return driver.ErrUnavailable
	case code >= http.StatusInternalServerError && !slices.ContainsFunc(texts500, func(text string) bool { return says(answer, text) }):
		return driver.ErrUnavailable
	}
	return driver.ErrRefused
}

// misdirected reports whether the connection failed because of the address or the
// certificates that the client was given: nothing was sent.
func misdirected(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &certificate) || errors.As(err, &record)
}

// failed makes the error of a call out of the client's: an error of ctx if ctx is
// done, else a classified one. What was sent is not repeated in it.
func failed(ctx context.Context, err error, sent []byte) error {
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		err = newRefusal(answer, sent)
	}
	if cause := ctx.Err(); cause != nil {
		if errors.Is(err, cause) {
			return err
		}
		return fmt.Errorf("%w: %w", cause, err)
	}
	return classify(err)
}

// says reports whether Vault's answer holds the text.
func says(err error, text string) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) &&
		slices.ContainsFunc(answer.Errors, func(e string) bool { return strings.Contains(e, text) })
}

// A refusal is an *api.ResponseError that prints in one line.
type refusal struct{ answer *api.ResponseError }

// longest is how much of what was sent a text may repeat.
const longest = 12

// newRefusal returns answer without texts that are not Vault's or that repeat
// what was sent: a proxy may say anything.
func newRefusal(answer *api.ResponseError, sent []byte) *refusal {
	clean := *answer
	clean.Errors = nil
	for _, text := range answer.Errors {
		switch {
		case answer.RawError && strings.Contains(text, textPlain):
			text = "the server speaks https, and its address says http"
		case answer.RawError || repeats(text, sent):
			text = "(text not shown)"
		}
		clean.Errors = append(clean.Errors, text)
	}
	return &refusal{&clean}
}

// repeats reports whether text holds a piece of what was sent.
func repeats(text string, sent []byte) bool {
	for i := 0; i+longest <= len(text); i++ {
		if bytes.Contains(sent, []byte(text[i:i+longest])) {
			return true
		}
	}
	return len(sent) > 0 && len(sent) < longest && strings.Contains(text, string(sent))
}

// Error returns the text, such as
//
//	PUT /v1/secret/data/oauth/tokens/u4fz…: 403: permission denied
func (r *refusal) Error() string {
	path := r.answer.URL
	if u, err := url.Parse(path); err == nil {
		path = u.Path
	}
	text := fmt.Sprintf("%s %s: %d", r.answer.HTTPMethod, path, r.answer.StatusCode)
	if len(r.answer.Errors) > 0 {
		text += ": " + strings.Join(strings.Fields(strings.Join(r.answer.Errors, "; ")), " ")
	}
	return text
}

// Unwrap returns the client's own type.
func (r *refusal) Unwrap() error { return r.answer }
