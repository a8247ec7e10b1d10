package k8sstore

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

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// Texts that identify errors without a specific code or type.
const (
	textQuota       = "exceeded quota"                   // core: plugin/pkg/admission/resourcequota
	textLimiter     = "client rate limiter Wait"         // client-go: rest/request.go
	textCredentials = "getting credentials"              // client-go: plugin/pkg/client/auth/exec
	textTooLarge    = "etcdserver: request is too large" // etcd: api/v3rpc/rpctypes
)

// classify returns the class of an error from the client, or nil if the error has no class.
func classify(err error) error {
	var (
		answer    apierrors.APIStatus
		transport *url.Error
		network   net.Error
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		return classifyAnswer(answer.Status())
	case strings.Contains(err.Error(), textCredentials):
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, driver.ErrCredentials)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(tls.RecordHeaderError)):
		return driver.ErrRefused // the address or the certificates are wrong; nothing was sent
	case strings.Contains(err.Error(), textLimiter):
		return driver.ErrThrottled // the client's own limit; nothing was sent
	case errors.As(err, &transport), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return driver.ErrUnavailable
	}
	return nil
}

// classifyAnswer returns the class of a Status. Either the server sent the Status, or the client
// created the Status from a response in another format.
func classifyAnswer(s metav1.Status) error {
	switch code := int(s.Code); {
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)
	case code == http.StatusForbidden && (strings.Contains(s.Message, textQuota) || caused(s, v1.NamespaceTerminatingCause)):
		return driver.ErrRefused
	case code == http.StatusForbidden:
		return driver.ErrDenied
	case code == http.StatusNotFound && ofSecret(s):
		return driver.ErrNotFound
	case code == http.StatusConflict && ofSecret(s):
		if s.Reason == metav1.StatusReasonAlreadyExists {
			return driver.ErrExists
		}
		return driver.ErrConflict
	case code == http.StatusTooManyRequests:
		return driver.ErrThrottled
	case code == http.StatusConflict, code == http.StatusGone, code == http.StatusRequestTimeout:
		return driver.ErrUnavailable // a conflict about another object, such as a quota, is temporary
	case code >= http.StatusInternalServerError && !strings.Contains(s.Message, textTooLarge):
		return driver.ErrUnavailable
	}
	return driver.ErrRefused
}

// ofSecret reports whether s is a Status from the server about a Secret, and not about another
// object, such as a namespace or a quota. A Status about failed preconditions of a deletion names
// the kind "Secret"; other Statuses name the resource "secrets".
func ofSecret(s metav1.Status) bool {
	return s.Details != nil && (s.Details.Kind == "secrets" || s.Details.Kind == "Secret") && !foreign(s)
}

// foreign reports whether the client created the Status from a response in another format, such as
// the page of a proxy.
func foreign(s metav1.Status) bool { return caused(s, metav1.CauseTypeUnexpectedServerResponse) }

func caused(s metav1.Status, cause metav1.CauseType) bool {
	return s.Details != nil && slices.ContainsFunc(s.Details.Causes, func(c metav1.StatusCause) bool { return c.Type == cause })
}

// errUnreadable means that a response is not in Kubernetes' format, for example because a proxy
// sent it.
var errUnreadable = errors.New("the answer is not in Kubernetes' form")

// callError converts a client error into a driver error, as driverkit.CallError does. The parameter
// sent is the data in the request. The result quotes neither that data nor stored data.
func callError(ctx context.Context, call string, err error, sent []byte) error {
	class := classify(err)
	var answer apierrors.APIStatus
	switch {
	case errors.As(err, &answer):
		err = newRefusal(call, answer.Status(), sent)
	case class == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		class, err = driver.ErrUnavailable, fmt.Errorf("%s: %w", call, errUnreadable) // the cause may quote the response
	default:
		err = fmt.Errorf("%s: %w", call, err)
	}
	return driverkit.CallError(ctx, err, class)
}

// A refusal wraps an *apierrors.StatusError. The text of a refusal is a single line.
type refusal struct {
	call   string
	answer *apierrors.StatusError
}

// newRefusal returns a refusal for the given response to a call. newRefusal replaces each text that
// is not from Kubernetes, and each text that repeats a part of the parameter sent.
func newRefusal(call string, s metav1.Status, sent []byte) *refusal {
	s = *s.DeepCopy()
	clean := func(text string) string {
		if foreign(s) || driverkit.Repeats(text, sent) {
			return "(text not shown)"
		}
		return text
	}
	s.Message = clean(s.Message)
	if s.Details != nil {
		causes := slices.Clone(s.Details.Causes)
		for i := range causes {
			causes[i].Message = clean(causes[i].Message)
		}
		s.Details.Causes = causes
	}
	return &refusal{call, &apierrors.StatusError{ErrStatus: s}}
}

// Error returns a text such as
//
//	PATCH Secret crm-u4fz…: 403: secrets "crm-u4fz…" is forbidden: User "app" cannot …
func (r *refusal) Error() string {
	text := strings.Join(strings.Fields(r.answer.ErrStatus.Message), " ")
	return fmt.Sprintf("%s: %d: %s", r.call, r.answer.ErrStatus.Code, text)
}

// Unwrap returns the *apierrors.StatusError, in which newRefusal has replaced texts.
func (r *refusal) Unwrap() error { return r.answer }
