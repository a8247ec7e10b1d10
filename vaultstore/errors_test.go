package vaultstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

var classes = []error{
	driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrThrottled, driver.ErrCorrupt,
}

func TestErrorsGetTheirClass(t *testing.T) {
	t.Parallel()
	answer := func(status int, errs ...string) error {
		return &api.ResponseError{HTTPMethod: "PUT", URL: "http://vault:8200/v1/secret/data/x", StatusCode: status, Errors: errs}
	}
	for _, c := range []struct {
		name string
		err  error
		want error // nil if the error has no class
	}{
		{"a cas mismatch", answer(400, "check-and-set parameter did not match the current version"), driver.ErrConflict},
		{"a cas mismatch behind another text", answer(400, "1 error occurred", "check-and-set parameter did not match the current version"), driver.ErrConflict},
		{"a cas mismatch with another status", answer(500, "check-and-set parameter did not match the current version"), driver.ErrUnavailable},
		{"a cas that is required", answer(400, "check-and-set parameter required for this call"), driver.ErrRefused},
		{"a cas that is no number", answer(400, "error parsing check-and-set parameter"), driver.ErrRefused},
		{"no data", answer(400, "no data provided"), driver.ErrRefused},
		{"a mount that is being upgraded", answer(400, "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."), driver.ErrUnavailable},
		{"a mount that waits for an upgrade", answer(400, "Waiting for the primary to upgrade from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service when the primary is finished."), driver.ErrUnavailable},
		{"no token", answer(400, "missing client token"), driver.ErrCredentials},
		{"a proxy that wants a login", answer(401), driver.ErrCredentials},
		{"a policy that lacks something", answer(403, "1 error occurred:\n\t* permission denied\n\n"), driver.ErrDenied},
		{"a token that has expired", answer(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"), driver.ErrCredentials},
		{"nothing there", answer(404), driver.ErrNotFound},
		{"no such mount", answer(404, `no handler for route "secret/data/x". route entry not found.`), driver.ErrRefused},
		{"no such namespace", answer(404, "namespace not found"), driver.ErrRefused},
		{"an operation that there is not", answer(405, "1 error occurred:\n\t* unsupported operation\n\n"), driver.ErrRefused},
		{"a state that has not arrived", answer(412, "required index state not present"), driver.ErrUnavailable},
		{"a request that is too large", answer(413, "http: request body too large"), driver.ErrRefused},
		{"a content type that is not known", answer(415), driver.ErrRefused},
		{"a lock", answer(423, "locked"), driver.ErrUnavailable},
		{"a quota", answer(429, `request path "secret/data/x": rate limit quota exceeded`), driver.ErrThrottled},
		{"a secondary for disasters", answer(472), driver.ErrUnavailable},
		{"a performance standby", answer(473), driver.ErrUnavailable},
		{"an internal error", answer(500, "internal error"), driver.ErrUnavailable},
		{"a value that the storage does not take", answer(500, "failed to persist entry: put failed due to value being too large"), driver.ErrRefused},
		{"a value that the parser does not take", answer(500, "JSON string value exceeds allowed length"), driver.ErrRefused},
		{"a server that is not initialized", answer(501), driver.ErrUnavailable},
		{"an upstream that limits", answer(502, "upstream rate limited"), driver.ErrUnavailable},
		{"a sealed server", answer(503, "Vault is sealed"), driver.ErrUnavailable},
		{"a gateway's time-out", answer(504), driver.ErrUnavailable},
		{"a refused connection", &url.Error{Op: "Put", URL: "http://vault", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, driver.ErrUnavailable},
		{"a connection that was closed", &url.Error{Op: "Put", URL: "http://vault", Err: io.EOF}, driver.ErrUnavailable},
		{"an answer that was cut off", fmt.Errorf("read the answer: %w", io.ErrUnexpectedEOF), driver.ErrUnavailable},
		{"the client's own time-out", &url.Error{Op: "Put", URL: "http://vault", Err: context.DeadlineExceeded}, driver.ErrUnavailable},
		{"https to http", &url.Error{Op: "Put", URL: "https://vault", Err: http.ErrSchemeMismatch}, driver.ErrRefused},
		{"http to https", answer(400, "Client sent an HTTP request to an HTTPS server."), driver.ErrRefused},
		{"a certificate of others", &url.Error{Op: "Put", URL: "https://vault", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, driver.ErrRefused},
		{"a token that is none", errors.New("configured Vault token contains non-printable characters and cannot be used"), driver.ErrCredentials},
		{"anything else", errors.New("something"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, want := driverkit.CallError(t.Context(), c.err, classify(c.err)), c.want
			if want == driver.ErrCredentials {
				want = driver.ErrDenied
			}
			if errors.Is(got, driver.ErrCredentials) != (c.want == driver.ErrCredentials) {
				t.Errorf("classify(%v) = %v matches ErrCredentials: %v", c.err, got, c.want != driver.ErrCredentials)
			}
			for _, class := range classes {
				if errors.Is(got, class) != errors.Is(want, class) {
					t.Errorf("classify(%v) = %v; it matches %q: %v", c.err, got, class, errors.Is(got, class))
				}
			}
			if errors.Is(c.err, context.DeadlineExceeded) {
				if errors.Is(got, context.DeadlineExceeded) {
					t.Errorf("classify(%v) = %v matches the error of a context that is not done", c.err, got)
				}
			} else if !errors.Is(got, c.err) {
				t.Errorf("classify(%v) = %v does not wrap it", c.err, got)
			}
			if c.want == nil && got != c.err {
				t.Errorf("classify(%v) = %v, want it as it came", c.err, got)
			}
		})
	}
	if err := classify(nil); err != nil {
		t.Errorf("classify(nil) = %v", err)
	}
}

func TestErrorsKeepTheClientsOwnType(t *testing.T) {
	t.Parallel()
	in := &api.ResponseError{HTTPMethod: "GET", URL: "http://vault:8200/v1/secret/data/x?version=1", StatusCode: 403, Errors: []string{"1 error occurred:\n\t* permission denied\n\n"}}
	err := callError(t.Context(), in, nil)
	var out *api.ResponseError
	if !errors.As(err, &out) || out.StatusCode != 403 || !slices.Equal(out.Errors, in.Errors) {
		t.Errorf("errors.As finds %+v in %v", out, err)
	}
	const want = "access denied: GET /v1/secret/data/x: 403: 1 error occurred: * permission denied"
	if err.Error() != want {
		t.Errorf("the text is %q, want %q", err, want)
	}
}

func TestErrorsOfADoneContextAreTheContexts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, in := range []error{
		&url.Error{Op: "Put", URL: "http://vault", Err: context.Canceled},
		&url.Error{Op: "Put", URL: "http://vault", Err: io.EOF},
		&api.ResponseError{StatusCode: 400, Errors: []string{textMismatch}},
		&api.ResponseError{StatusCode: 404},
	} {
		err := callError(ctx, in, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("callError(%v) = %v does not match context.Canceled", in, err)
		}
		if slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) }) {
			t.Errorf("callError(%v) = %v matches a class", in, err)
		}
	}
}

func TestErrorsDoNotRepeatWhatWasSent(t *testing.T) {
	t.Parallel()
	const secret = `{"refresh_token":"1000.canary.canary"}`
	for _, c := range []struct {
		name string
		raw  bool
		text string
		kept bool
	}{
		{"a text of Vault's", false, "permission denied", true},
		{"a text with all of it", false, "invalid: " + secret, false},
		{"a text with a part of it", false, "invalid character after 1000.canary.", false},
		{"a text with a little of it", false, "invalid character after 1000.", true},
		{"the page of a proxy", true, "<html>" + secret, false},
		{"the page of a proxy without it", true, "<html>bad gateway", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := callError(t.Context(), &api.ResponseError{StatusCode: 500, RawError: c.raw, Errors: []string{c.text, c.text}}, []byte(secret))
			if got := strings.Contains(err.Error(), c.text); got != c.kept {
				t.Errorf("the error is %q", err)
			}
			var out *api.ResponseError
			if !errors.As(err, &out) {
				t.Fatalf("%v does not wrap an *api.ResponseError", err)
			}
			if got := strings.Contains(out.Error(), c.text); got != c.kept {
				t.Errorf("the client's error is %q", out)
			}
		})
	}
}
