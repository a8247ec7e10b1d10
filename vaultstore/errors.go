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

// Texts that distinguish Vault's error responses with the same status. textMalformed identifies an
// error from the client itself.
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

// texts500 are the texts by which a response with a 5xx status shows that a request was too large
// for the server or the storage backend.
var texts500 = []string{"too large", "exceeds allowed length"}

// errCredentials is the class of an error about the token itself or the credentials of a
// login, rather than about the token's permissions.
var errCredentials = fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)

// classify returns the class of an error from the client, or nil if the error has no class.
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
		return driver.ErrRefused // the address or the certificates are wrong; nothing was sent
	case err != nil && strings.Contains(err.Error(), textMalformed):
		return errCredentials
	case errors.As(err, &transport), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return driver.ErrUnavailable
	}
	return nil
}

// classifyAnswer returns the class of an error response from Vault.
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
		// A 404 with a text means that the mount or the namespace does not exist.
		return driver.ErrNotFound
	case code == http.StatusTooManyRequests:
		return driver.ErrThrottled
	case code == http.StatusPreconditionFailed, code == http.StatusLocked,
		code == 472, code == 473, code < http.StatusBadRequest:
		// A node returns 472 if it is a disaster recovery secondary, and 473 if it is a
		// performance standby.
		return driver.ErrUnavailable
	case code >= http.StatusInternalServerError && !slices.ContainsFunc(texts500, func(text string) bool { return says(answer, text) }):
		return driver.ErrUnavailable
	}
	return driver.ErrRefused
}

// callError converts a client error into a driver error, as driverkit.CallError does. The parameter
// sent is the data in the request, which the result does not quote.
func callError(ctx context.Context, err error, sent []byte) error {
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		err = newRefusal(answer, sent)
	}
	return driverkit.CallError(ctx, err, classify(err))
}

// says reports whether err contains an error response from Vault with the given text.
func says(err error, text string) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) &&
		slices.ContainsFunc(answer.Errors, func(e string) bool { return strings.Contains(e, text) })
}

// A refusal wraps an *api.ResponseError. The text of a refusal is a single line.
type refusal struct{ answer *api.ResponseError }

// newRefusal returns a refusal for the given response. newRefusal replaces each text that is not
// from Vault, such as the page of a proxy, and each text that repeats a part of the parameter sent.
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

// Error returns a text such as
//
//	PUT /v1/secret/data/oauth/tokens/u4fz2k6q3w7x5c2a: 403: permission denied
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

// Unwrap returns the *api.ResponseError, in which newRefusal has replaced texts.
func (r *refusal) Unwrap() error { return r.answer }

// unclassed returns the refusal that err wraps, or err itself if err wraps no refusal. A refusal
// has no class.
func unclassed(err error) error {
	if cause := (*refusal)(nil); errors.As(err, &cause) {
		return cause
	}
	return err
}

// errNotKV2 means that an engine other than KV version 2 is mounted. errNoEngine means that no
// engine is mounted.
var (
	errNotKV2   = fmt.Errorf("%w: not a KV version 2 secrets engine", driver.ErrRefused)
	errNoEngine = fmt.Errorf("%w: no KV version 2 engine", driver.ErrRefused)
)

// wrongEngine reports whether err concerns the mount, and therefore all secrets.
func wrongEngine(err error) bool { return errors.Is(err, errNotKV2) || errors.Is(err, errNoEngine) }

// errHidden means that a response does not show which engine is mounted.
var errHidden = errors.New("it is not visible")

// hidden returns errHidden if err does not show which engine is mounted. Such an err matches
// ErrDenied, ErrNotFound or ErrRefused, but not ErrCredentials. hidden returns any other err
// unchanged.
func hidden(err error) error {
	if errors.Is(err, driver.ErrCredentials) {
		return err
	}
	if errors.Is(err, driver.ErrDenied) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrRefused) {
		return errHidden
	}
	return err
}
