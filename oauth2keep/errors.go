package oauth2keep

import (
	"errors"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Error classes of packages initializer and tokenstore, for errors.Is.
//
// If the authorization server refused a request from a Keeper or a TokenSource, errors.As also
// finds an *oauth2.RetrieveError, as in x/oauth2. The Body of the RetrieveError is empty. If the
// error matches ErrReauthRequired, the ErrorCode is "invalid_grant". Errors of Forget and of HTTP
// clients have no RetrieveError.
var (
	// ErrReauthRequired means that the user must consent again, because no token is kept or the
	// server refuses the kept token.
	ErrReauthRequired = initializer.ErrReauthRequired

	// ErrThrottled means that the authorization server throttles requests. ErrClient means that the
	// server refused the client. ErrServer means that the response of the server is missing or
	// unusable. ErrRefused means that the server refused the request for an unknown reason.
	ErrThrottled = initializer.ErrThrottled
	ErrClient    = initializer.ErrClient
	ErrServer    = initializer.ErrServer
	ErrRefused   = initializer.ErrRefused

	// ErrTokenType means that a token was not sent to an API because of the type of the token.
	// ErrUntrustedURL means that a token was not sent because of the URL of the request.
	ErrTokenType    = initializer.ErrTokenType
	ErrUntrustedURL = initializer.ErrUntrustedURL

	// ErrIDMismatch means that the record belongs to another authorization server, resource or
	// user.
	ErrIDMismatch = tokenstore.ErrIDMismatch

	// ErrUnavailable means that the store could not be reached. ErrNotPersisted means that
	// a token could not be stored.
	ErrUnavailable  = tokenstore.ErrUnavailable
	ErrNotPersisted = tokenstore.ErrNotPersisted
)

// A refusal is an error in which errors.As finds an *oauth2.RetrieveError. Programs use the
// ErrorCode of the RetrieveError to detect that the user must consent again.
type refusal struct {
	error
	retrieve *oauth2.RetrieveError
}

// asRetrieveError returns err as a refusal if err matches ErrReauthRequired or has a
// *tokenstore.RefreshError. It returns any other err unchanged.
func asRetrieveError(err error) error {
	r := &oauth2.RetrieveError{}
	var refused *tokenstore.RefreshError
	switch {
	case errors.Is(err, ErrReauthRequired):
		r.ErrorCode = "invalid_grant"
	case errors.As(err, &refused):
		r.ErrorCode = refused.Code
	default:
		return err
	}
	r.Response = &http.Response{Status: "400 Bad Request", StatusCode: http.StatusBadRequest, Header: http.Header{}, Body: http.NoBody}
	return refusal{err, r}
}

// Unwrap returns the original error and the *oauth2.RetrieveError.
func (r refusal) Unwrap() []error { return []error{r.error, r.retrieve} }
