package k8sstore

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

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var classes = []error{
	driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrThrottled, driver.ErrCorrupt,
}

func TestErrorsGetTheirClass(t *testing.T) {
	t.Parallel()
	secrets := v1.Resource("secrets")
	terminating := apierrors.NewForbidden(secrets, "x", errors.New("unable to create new content in namespace a because it is being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: v1.NamespaceTerminatingCause}}
	proxy := func(code int) error {
		return apierrors.NewGenericServerResponse(code, "GET", secrets, "x", "<html>", 0, true)
	}
	for _, c := range []struct {
		name string
		err  error
		want error // nil for an unreadable response
	}{
		{"no such Secret", apierrors.NewNotFound(secrets, "x"), driver.ErrNotFound},
		{"no such namespace", apierrors.NewNotFound(v1.Resource("namespaces"), "a"), driver.ErrRefused},
		{"a page of a proxy that is not there", proxy(404), driver.ErrRefused},
		{"a name in use", apierrors.NewAlreadyExists(secrets, "x"), driver.ErrExists},
		{"another state", apierrors.NewConflict(secrets, "x", errors.New("modified")), driver.ErrConflict},
		{"another state, of a deletion", apierrors.NewConflict(schema.GroupResource{Resource: "Secret"}, "x", errors.New("the UID in the precondition")), driver.ErrConflict},
		{"a conflict about a quota", apierrors.NewConflict(v1.Resource("resourcequotas"), "q", errors.New("modified")), driver.ErrUnavailable},
		{"a conflict of a proxy", proxy(409), driver.ErrUnavailable},
		{"no credentials", apierrors.NewUnauthorized("Unauthorized"), driver.ErrCredentials},
		{"a Role that lacks something", apierrors.NewForbidden(secrets, "x", errors.New(`User "app" cannot get resource "secrets"`)), driver.ErrDenied},
		{"a quota", apierrors.NewForbidden(secrets, "x", errors.New("exceeded quota: q, requested: count/secrets=1, used: 5, limited: 5")), driver.ErrRefused},
		{"a namespace that is being deleted", terminating, driver.ErrRefused},
		{"a moment that has passed", apierrors.NewResourceExpired("too old"), driver.ErrUnavailable},
		{"a value that is not legal", apierrors.NewInvalid(v1.SchemeGroupVersion.WithKind("Secret").GroupKind(), "x", nil), driver.ErrRefused},
		{"a body that is too large", apierrors.NewRequestEntityTooLargeError("limit is 3145728"), driver.ErrRefused},
		{"an object that is too large", apierrors.NewInternalError(errors.New("etcdserver: request is too large")), driver.ErrRefused},
		{"too many requests", apierrors.NewTooManyRequests("later", 1), driver.ErrThrottled},
		{"an etcd that cannot be reached", apierrors.NewServerTimeout(secrets, "update", 2), driver.ErrUnavailable},
		{"a time-out", apierrors.NewTimeoutError("later", 0), driver.ErrUnavailable},
		{"an internal error", apierrors.NewInternalError(errors.New("x")), driver.ErrUnavailable},
		{"a server that is not ready", apierrors.NewServiceUnavailable("apiserver not ready"), driver.ErrUnavailable},
		{"a webhook that refuses", apierrors.NewBadRequest(`admission webhook "x" denied the request`), driver.ErrRefused},
		{"a refused connection", &url.Error{Op: "Get", URL: "https://k", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, driver.ErrUnavailable},
		{"a closed connection", &url.Error{Op: "Get", URL: "https://k", Err: io.EOF}, driver.ErrUnavailable},
		{"the client's own rate limit", errors.New("client rate limiter Wait returned an error: rate: Wait(n=1) would exceed context deadline"), driver.ErrThrottled},
		{"the client's own time-out", &url.Error{Op: "Get", URL: "https://k", Err: context.DeadlineExceeded}, driver.ErrUnavailable},
		{"https to http", &url.Error{Op: "Get", URL: "https://k", Err: http.ErrSchemeMismatch}, driver.ErrRefused},
		{"a certificate of others", &url.Error{Op: "Get", URL: "https://k", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, driver.ErrRefused},
		{"what cannot be read", errors.New("json: offset 1: 1000.canary"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, want := callError(t.Context(), "GET Secret x", c.err, nil), c.want
			switch want {
			case driver.ErrCredentials:
				want = driver.ErrDenied
			case nil:
				want = driver.ErrUnavailable
			}
			if errors.Is(got, driver.ErrCredentials) != (c.want == driver.ErrCredentials) {
				t.Errorf("%v matches ErrCredentials: %v", got, c.want != driver.ErrCredentials)
			}
			for _, class := range classes {
				if errors.Is(got, class) != errors.Is(want, class) {
					t.Errorf("%v matches %q: %v", got, class, !errors.Is(want, class))
				}
			}
			if errors.Is(got, context.DeadlineExceeded) {
				t.Errorf("%v matches the error of a context that is not done", got)
			}
			if c.want == nil && strings.Contains(got.Error(), "canary") {
				t.Errorf("the error is %q", got)
			}
		})
	}
	unfetched := callError(t.Context(), "GET", &url.Error{Op: "Get", URL: "https://k", Err: errors.New("getting credentials: exec: aws failed with exit code 1")}, nil)
	if !errors.Is(unfetched, driver.ErrUnavailable) || !errors.Is(unfetched, driver.ErrCredentials) || errors.Is(unfetched, driver.ErrDenied) {
		t.Errorf("credentials that cannot be fetched are %v", unfetched)
	}
}

func TestErrorsOfADoneContextAreTheContexts(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, in := range []error{context.Canceled, &url.Error{Op: "Get", Err: context.Canceled}, apierrors.NewNotFound(v1.Resource("secrets"), "x"), io.EOF} {
		err := callError(ctx, "GET Secret x", in, nil)
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
		name  string
		proxy bool
		text  string
		kept  bool
	}{
		{"a text of Kubernetes", false, "is forbidden", true},
		{"a text with all of it", false, "invalid: " + secret, false},
		{"a text with a part of it", false, "invalid character after 1000.canary.", false},
		{"the page of a proxy", true, "<html>" + secret, false},
		{"the page of a proxy without it", true, "<html>bad gateway", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var in error = apierrors.NewInternalError(errors.New(c.text))
			if c.proxy {
				in = apierrors.NewGenericServerResponse(500, "PATCH", v1.Resource("secrets"), "x", c.text, 0, true)
			}
			err := callError(t.Context(), "PATCH Secret x", in, []byte(secret))
			var out *apierrors.StatusError
			if !errors.As(err, &out) || out.ErrStatus.Code != 500 {
				t.Fatalf("%v does not wrap the client's own error", err)
			}
			for _, text := range []string{err.Error(), out.Error(), fmt.Sprintf("%+v", out.ErrStatus), fmt.Sprintf("%+v", out.ErrStatus.Details)} {
				if strings.Contains(text, c.text) && !c.kept {
					t.Errorf("the error is %q", text)
				}
			}
			if c.kept && !strings.Contains(err.Error(), c.text) {
				t.Errorf("the error is %q", err)
			}
		})
	}
}
