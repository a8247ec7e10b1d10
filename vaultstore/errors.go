package vaultstore

import (
	"bytes"
	"context"
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
)

// errNotKV2 means that what is mounted there answers like something else.
var errNotKV2 = errors.New("the mount is not a KV version 2 secrets engine")

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
		switch code := answer.StatusCode; {
		case code == http.StatusBadRequest && says(err, textMismatch):
			class = driver.ErrConflict
		case code == http.StatusBadRequest && says(err, textNoToken), code == http.StatusUnauthorized, code == http.StatusForbidden:
			class = driver.ErrDenied
		case code == http.StatusBadRequest && says(err, textUpgrading):
			class = driver.ErrUnavailable
		case code == http.StatusNotFound && len(answer.Errors) == 0:
			// With a text it is "no handler for route": a mount that is not there.
			class = driver.ErrNotFound
		case code == http.StatusPreconditionFailed, code == http.StatusLocked, code == http.StatusTooManyRequests,
			code == 472, code == 473, code >= http.StatusInternalServerError, code < http.StatusBadRequest:
			// 472 and 473 are what standby nodes say of themselves.
			class = driver.ErrUnavailable
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// The caller's context is not done (see failed): the client's own time-out
		// has run out. The error is not wrapped, or it would be taken for the
		// caller's.
		return fmt.Errorf("%w: the client's time-out has run out: %v", driver.ErrUnavailable, err)
	case errors.As(err, &transport), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		class = driver.ErrUnavailable
	}
	if class == nil {
		return err
	}
	return fmt.Errorf("%w: %w", class, err)
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
		if answer.RawError || repeats(text, sent) {
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
