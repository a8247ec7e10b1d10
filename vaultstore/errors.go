package vaultstore

import (
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
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
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

// texts500 are in answers to a request that is larger than the server or its storage
// takes.
var texts500 = []string{"too large", "exceeds allowed length"}

// errCredentials is the class of an error about the token, or the credentials of a login,
// and not about what the token may do.
var errCredentials = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)

// classify returns the class of an error of the client, or nil if it has none.
func classify(err error) error {
	var (
		answer    *api.ResponseError
		transport *url.Error
		network   net.Error
	)
	switch {
	case errors.As(err, &answer):
		return classifyAnswer(answer)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the server speaks http, and its address says https", driver.ErrRefused)
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(tls.RecordHeaderError)):
		return driver.ErrRefused // the address or the certificates are wrong, and nothing was sent
	case err != nil && strings.Contains(err.Error(), textMalformed):
		return errCredentials
	case errors.As(err, &transport), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return driver.ErrUnavailable
	}
	return nil
}

// classifyAnswer is classify for an error that Vault has answered with.
func classifyAnswer(answer *api.ResponseError) error {
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

// callError returns the error of a call for the client's: see driverkit.CallError. It
// repeats nothing of what was sent.
func callError(ctx context.Context, err error, sent []byte) error {
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		err = newRefusal(answer, sent)
	}
	return driverkit.CallError(ctx, err, classify(err))
}

// says reports whether Vault's answer holds the text.
func says(err error, text string) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) &&
		slices.ContainsFunc(answer.Errors, func(e string) bool { return strings.Contains(e, text) })
}

// A refusal is an *api.ResponseError that prints in one line.
type refusal struct{ answer *api.ResponseError }

// newRefusal returns answer without texts that are not Vault's, as of a proxy, or that
// repeat what was sent.
func newRefusal(answer *api.ResponseError, sent []byte) *refusal {
	clean := *answer
	clean.Errors = nil
	for _, text := range answer.Errors {
		switch {
		case answer.RawError && strings.Contains(text, textPlain):
			text = "the server speaks https, and its address says http"
		case answer.RawError || driverkit.Repeats(text, sent):
			text = "(text not shown)"
		}
		clean.Errors = append(clean.Errors, text)
	}
	return &refusal{&clean}
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

// unclassed returns the answer of Vault that an error is about.
func unclassed(err error) error {
	if cause := (*refusal)(nil); errors.As(err, &cause) {
		return cause
	}
	return err
}

// The faults of a mount: it is something else, or nothing is there.
var (
	errNotKV2   = fmt.Errorf("%w: not a KV version 2 secrets engine", driver.ErrRefused)
	errNoEngine = fmt.Errorf("%w: no KV version 2 engine", driver.ErrRefused)
)

// wrongEngine reports whether err is about the mount, and so about all secrets.
func wrongEngine(err error) bool { return errors.Is(err, errNotKV2) || errors.Is(err, errNoEngine) }

// errHidden means that an answer does not tell what is mounted.
var errHidden = errors.New("it is not to be seen")

// hidden returns err, or errHidden if it is a refusal that says nothing about the mount.
func hidden(err error) error {
	if errors.Is(err, driver.ErrCredentials) {
		return err
	}
	if errors.Is(err, driver.ErrDenied) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrRefused) {
		return errHidden
	}
	return err
}
