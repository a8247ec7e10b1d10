package agent

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Errors for requests that the agent itself refuses or cannot complete.
var (
	errUnauthorized = errors.New("the header " + TokenHeader + " is missing or wrong")
	errForwarded    = errors.New("the request was forwarded")
	errBrowser      = errors.New("the request comes from a page in a browser")
	errHost         = errors.New("the request is for another host")
	errQuery        = errors.New("the request has a query: members go into the body")
	errNoOperation  = errors.New("there is no such operation")
	errStranger     = errors.New("the connection belongs to another user of this machine")
	errPage         = errors.New("the page requires GET")
	errMethod       = errors.New("the operation requires POST")
	errMediaType    = errors.New("the body is not application/json")
	errBody         = errors.New("the body is invalid for the operation")
	errTooLong      = errors.New("the body is too long")
	errForbidden    = errors.New("this agent does not allow it")
	errTooMany      = errors.New("too many requests or connections at a time")
	errExpiring     = errors.New("the access token is about to expire and could not be replaced")
	errExpired      = errors.New("the access token has expired, and this agent does not refresh tokens")
	errUnsavedFull  = errors.New("too many tokens in memory could not be stored")
)

// A class is a kind of failure, as callers see it.
type class struct {
	is     error
	name   string
	status int
}

// classes lists the kinds of failure. The class of an error is the first element that the error
// matches. A name that the command tokenkeep also uses has the same meaning in both programs.
var classes = []class{
	{errUnauthorized, "unauthorized", http.StatusUnauthorized},
	{errForwarded, "forbidden", http.StatusBadRequest},
	{errBrowser, "forbidden", http.StatusForbidden},
	{errHost, "forbidden", http.StatusForbidden},
	{errForbidden, "forbidden", http.StatusForbidden},
	{errQuery, "invalid", http.StatusBadRequest},
	{errNoOperation, "no_operation", http.StatusNotFound},
	{errStranger, "forbidden", http.StatusForbidden},
	{errPage, "no_operation", http.StatusMethodNotAllowed},
	{errMethod, "no_operation", http.StatusMethodNotAllowed},
	{errMediaType, "invalid", http.StatusUnsupportedMediaType},
	{errTooLong, "too_large", http.StatusRequestEntityTooLarge},
	{errBody, "invalid", http.StatusBadRequest},
	{errTooMany, "too_many", http.StatusTooManyRequests},
	{errUnsavedFull, "unavailable", http.StatusServiceUnavailable},
	{errExpiring, "unavailable", http.StatusServiceUnavailable},
	{errExpired, "refused", http.StatusConflict},

	{tokenstore.ErrNotPersisted, "not_persisted", http.StatusServiceUnavailable},
	{tokenstore.ErrDenied, "denied", http.StatusBadGateway},
	{tokenstore.ErrRefused, "refused", http.StatusBadGateway},
	{initializer.ErrClient, "client", http.StatusBadGateway},
	{initializer.ErrTokenType, "refused", http.StatusConflict},
	{initializer.ErrRefused, "refused", http.StatusBadGateway},
	{initializer.ErrThrottled, "throttled", http.StatusServiceUnavailable},
	{tokenstore.ErrUnavailable, "unavailable", http.StatusServiceUnavailable},
	{initializer.ErrServer, "unavailable", http.StatusServiceUnavailable},
	{tokenstore.ErrNotFound, "not_found", http.StatusNotFound},
	{initializer.ErrReauthRequired, "reauth_required", http.StatusConflict},
	{tokenstore.ErrAmbiguous, "ambiguous", http.StatusConflict},
	{tokenstore.ErrConflict, "conflict", http.StatusConflict},
	{tokenstore.ErrIDMismatch, "id_mismatch", http.StatusConflict},
	{tokenstore.ErrInvalidToken, "invalid", http.StatusBadRequest},
	{initializer.ErrUntrustedURL, "invalid", http.StatusBadRequest},
	{tokenstore.ErrTooLarge, "too_large", http.StatusRequestEntityTooLarge},
	{tokenstore.ErrWrongKeys, "wrong_keys", http.StatusBadGateway},
	{tokenstore.ErrCorrupt, "corrupt", http.StatusBadGateway},
	{context.DeadlineExceeded, "unavailable", http.StatusGatewayTimeout},
	{context.Canceled, "unavailable", http.StatusServiceUnavailable},
}

// other is the class of an error that matches no element of classes.
var other = class{nil, "other", http.StatusInternalServerError}

func classOf(err error) class {
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c
		}
	}
	return other
}

// An answer is the response to a request.
type answer struct {
	status int
	class  string // class of the error; empty if there is no error
	retry  time.Duration
	body   []byte
	get    bool // the path allows only GET; set for errPage
}

// A failure is the body of the answer to a failed request.
type failure struct {
	Error      string  `json:"error"`
	Class      string  `json:"class"`
	Code       string  `json:"code,omitempty"`        // error code of the authorization server
	RetryAfter float64 `json:"retry_after,omitempty"` // in seconds
}

// refuse returns the answer for err.
func refuse(err error) answer {
	c := classOf(err)
	f := failure{Error: textOf(c, err), Class: c.name}
	a := answer{status: c.status, class: c.name, get: errors.Is(c.is, errPage)}
	switch refused, ok := errors.AsType[*tokenstore.RefreshError](err); {
	case ok:
		f.Code, a.retry = refused.Code, refused.RetryAfter
	case errors.Is(c.is, errExpiring), errors.Is(c.is, errTooMany):
		a.retry = time.Second
	}
	f.RetryAfter = a.retry.Seconds()
	var failed error
	if a.body, failed = json.Marshal(f); failed != nil {
		a.body = []byte(`{"error":"the error cannot be written","class":"other"}`)
	}
	return a
}

// textOf returns the text of an error for the caller. For the class other, textOf returns a fixed
// text, because the text of err might contain a secret.
func textOf(c class, err error) string {
	if c == other {
		return "the request failed"
	}
	return strings.NewReplacer("tokenstore: ", "", "initializer: ", "").Replace(err.Error())
}

func (a answer) headers() map[string]string {
	m := map[string]string{
		"Content-Type":           "application/json",
		"Cache-Control":          "no-store",
		"X-Content-Type-Options": "nosniff",
	}
	if a.retry > 0 {
		m["Retry-After"] = strconv.Itoa(int(math.Ceil(a.retry.Seconds())))
	}
	switch a.status {
	case http.StatusUnauthorized:
		m["WWW-Authenticate"] = TokenHeader
	case http.StatusMethodNotAllowed:
		m["Allow"] = http.MethodPost
		if a.get {
			m["Allow"] = http.MethodGet
		}
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		m["Connection"] = "close"
	}
	return m
}

func (a answer) write(w http.ResponseWriter) {
	for name, value := range a.headers() {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the caller may have disconnected
}
