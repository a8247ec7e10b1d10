package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Error classes, for errors.Is. If the context of a call is done, the error matches
// context.Canceled or context.DeadlineExceeded. After one of these two errors, and after
// ErrUnavailable, a write may or may not have been applied. The caller can repeat the write.
var (
	// ErrNotFound means that no record matches.
	ErrNotFound = driver.ErrNotFound

	// ErrAmbiguous means that several records match and that no rule prefers one of them.
	// The text of the error contains the IDs of these records.
	ErrAmbiguous = rules.ErrAmbiguous

	// ErrConflict means that other writers changed the record during every attempt, or that
	// DeleteIfUnchanged found a changed record. The save or deletion was not applied. Rekey
	// fails with ErrConflict if another process keeps writing with the old keys.
	ErrConflict = driver.ErrConflict

	// ErrIDMismatch means that the ID, user, client and credentials of the token do not
	// belong to one record. Nothing was changed, and trying again does not help.
	ErrIDMismatch = rules.ErrIDMismatch

	// ErrInvalidToken means that the token has an invalid field, or lacks a field that the
	// operation needs. Refresh also returns ErrInvalidToken if mint is nil or returns no
	// access token. Nothing was changed.
	ErrInvalidToken = rules.ErrInvalidToken

	// ErrTooLarge means that a field or the record exceeds its maximum size. Nothing was
	// changed.
	ErrTooLarge = rules.ErrTooLarge

	// ErrDenied means that the service refused the program's credentials, or that these
	// credentials lack a permission.
	ErrDenied = driver.ErrDenied

	// ErrRefused means that the service refused the operation because of how the service is
	// set up. Examples are a replica, an organization policy, a disabled version or key, and a
	// mount or database of the wrong kind. Nothing was changed. Trying again does not help
	// until an operator changes the set-up.
	ErrRefused = driver.ErrRefused

	// ErrUnavailable means that the store is closed, or that the service could not be reached,
	// failed, or throttled the call. Refresh also returns ErrUnavailable if the service limits
	// the daily writes of a record and too few writes are left. An error from the service that
	// belongs to no other class matches ErrUnavailable too.
	ErrUnavailable = driver.ErrUnavailable

	// ErrThrottled means that the service rejected calls because too many calls were made.
	// Other programs in the same account, project or namespace may have made some of the
	// calls. An error of this class also matches ErrUnavailable. The same call can succeed
	// later.
	ErrThrottled = driver.ErrThrottled

	// ErrCorrupt means that a record exists but cannot be decoded. Stores neither overwrite
	// nor delete such a record.
	ErrCorrupt = driver.ErrCorrupt

	// ErrWrongKeys means that the store was written with a NameKey, index keys or
	// encryption keys that are not in Options. Nothing was changed, and trying again does
	// not help. Stores return ErrWrongKeys instead of ErrNotFound, so that callers do not
	// create a second record.
	ErrWrongKeys = ledger.ErrWrongKeys

	// ErrNotPersisted means that mint returned a token that Refresh could not store. The token
	// that Refresh returns with the error can be used. A later call of Refresh may call mint
	// again.
	ErrNotPersisted = refreshing.ErrNotPersisted
)

// classes holds the error classes of this package and the two errors of package context.
var classes = []error{
	ErrNotFound, ErrAmbiguous, ErrConflict, ErrIDMismatch, ErrInvalidToken, ErrTooLarge,
	ErrDenied, ErrRefused, ErrUnavailable, ErrThrottled, ErrCorrupt, ErrWrongKeys, ErrNotPersisted, context.Canceled, context.DeadlineExceeded,
}

func classed(err error) bool {
	return slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) })
}

// An Error is the error of an operation on a store. Unless an Error wraps an error or a
// refusal that mint returned, the Error matches one of the error classes of this package,
// context.Canceled or context.DeadlineExceeded. Apart from the text of an error that mint
// returned, the text of an Error contains no field of a token except IDs.
type Error struct {
	Op    string // the operation, such as "save"
	Store string // the kind of store, such as "awssm"
	ID    string // the record's ID, or "" if the ID is not known
	Err   error  // the cause, which wraps the service's error if there is one
}

// Error returns the text of the error, such as
//
//	tokenstore: save "u4fz…" (awssm): changed concurrently
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("tokenstore: ")
	b.WriteString(e.Op)
	if e.ID != "" {
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(e.ID))
	}
	if e.Store != "" {
		b.WriteString(" (")
		b.WriteString(e.Store)
		b.WriteByte(')')
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// NewError returns an *Error that wraps err, which the operation op on a store returned. It
// returns nil if err is nil, and err itself if err is or wraps an *Error. If err matches
// neither an error class nor an error of package context, and wraps no *RefreshError, the
// result also matches ErrUnavailable. NewError omits an id of more than 255 bytes. Stores
// outside this package use NewError so that all errors have the same form.
func NewError(op, store, id string, err error) error {
	if err == nil {
		return nil
	}
	failed, ofMint := err.(refreshing.MintError) //nolint:errorlint // it is not wrapped
	if ofMint {
		err = failed.Err
	}
	if a, ok := err.(refusal.Answer); ok { //nolint:errorlint // it is not wrapped
		err = (*RefreshError)(&a)
	}
	var e *Error
	var refused *RefreshError
	switch {
	case ofMint:
	case errors.As(err, &e):
		return err
	case !classed(err) && !errors.As(err, &refused):
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if len(id) > rules.MaxID {
		id = "" // no store has such an ID, so the text of the error need not contain the ID
	}
	return &Error{Op: op, Store: store, ID: id, Err: err}
}

// An UnreadableError reports that one record exists but cannot be read. Other records may
// be readable. Name is the name of the secret that holds the record, or the ID of a record
// in a file or table. Err is the reason, and wraps the service's own error if the service
// refused the read. Both Err and the UnreadableError match ErrCorrupt, ErrDenied, ErrRefused
// or ErrUnavailable.
//
// An operation that reads many records joins one UnreadableError for each record that it
// leaves out. All, Search, Check and Rekey report each unreadable record separately.
type UnreadableError = ledger.UnreadableError

// A RefreshError is an authorization server's refusal of a refresh, which mint may return to
// Refresh. Stores keep the RefreshError in the record, for waiters and later callers, unless
// the RefreshError refuses the client. A RefreshError holds the server's code but no other
// text from the server, because such text might contain a token.
type RefreshError struct {
	// Code is the server's error code, such as "invalid_grant".
	Code string

	// RetryAfter is how long the server asks clients to wait. 0 means that the server does
	// not say.
	RetryAfter time.Duration

	// Permanent means that another attempt with the same credentials will also fail.
	Permanent bool

	// Client means that the server refuses the client, not the tokens of the record,
	// because the client's ID, secret, redirect URL or scopes are wrong. Stores do not keep
	// such a refusal, because a corrected configuration works immediately.
	Client bool
}

// Error returns a text that contains the code and says whether the refusal is permanent.
func (e *RefreshError) Error() string { return refusal.Answer(*e).Error() }

// As implements the method that errors.As calls. If target points to the type that this
// module uses internally for refusals, As stores e in *target and returns true. Otherwise, it
// returns false.
func (e *RefreshError) As(target any) bool {
	a, ok := target.(*refusal.Answer)
	if ok {
		*a = refusal.Answer(*e)
	}
	return ok
}
