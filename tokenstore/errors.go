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

// Error classes, for errors.Is. Errors of the context package are passed on and match
// context.Canceled or context.DeadlineExceeded. After one of these errors, and after
// ErrUnavailable, a write may or may not have been applied, and can be repeated.
var (
	// ErrNotFound means that no record matches.
	ErrNotFound = driver.ErrNotFound

	// ErrAmbiguous means that several records match and that no rule prefers one of
	// them. The text names their IDs.
	ErrAmbiguous = rules.ErrAmbiguous

	// ErrConflict means that other writers were faster in every attempt. Nothing was
	// changed; try again.
	ErrConflict = driver.ErrConflict

	// ErrIDMismatch means that the ID, user and client of the token belong to
	// different records. Nothing was changed, and trying again does not help.
	ErrIDMismatch = rules.ErrIDMismatch

	// ErrInvalidToken means that the token cannot be stored or searched for as
	// it is. Nothing was changed.
	ErrInvalidToken = rules.ErrInvalidToken

	// ErrTooLarge means that the record would be larger than the store can hold.
	// Nothing was changed.
	ErrTooLarge = rules.ErrTooLarge

	// ErrDenied means that the store refused the credentials, or that they lack
	// a permission.
	ErrDenied = driver.ErrDenied

	// ErrRefused means that the store refused the operation because of how it is set up.
	// Examples are a replica, a policy of the organization, a disabled version or key, and
	// a mount or database of the wrong kind. Nothing was changed. Trying again does not
	// help until an operator changes the set-up.
	ErrRefused = driver.ErrRefused

	// ErrUnavailable means that the store could not be reached, failed, or
	// throttled the call.
	ErrUnavailable = driver.ErrUnavailable

	// ErrThrottled means that the service rejected calls because there were too many. Other
	// programs in the same account, project or namespace may have made some of these calls.
	// An error of this class also matches ErrUnavailable. The same call can succeed later.
	ErrThrottled = driver.ErrThrottled

	// ErrCorrupt means that a record exists but cannot be read. Stores do not write
	// over such a record.
	ErrCorrupt = driver.ErrCorrupt

	// ErrWrongKeys means that the store is under keys other than those in Options:
	// another NameKey, other index keys, or encryption with another key or none.
	// Nothing was changed, and trying again does not help. Stores return ErrWrongKeys
	// in place of ErrNotFound, so that no second record is created.
	ErrWrongKeys = ledger.ErrWrongKeys

	// ErrNotPersisted means that a refresh succeeded but its result could not be
	// stored. The token that comes with the error can be used; the next call
	// refreshes again.
	ErrNotPersisted = refreshing.ErrNotPersisted
)

// classes are the sentinels that a caller may see.
var classes = []error{
	ErrNotFound, ErrAmbiguous, ErrConflict, ErrIDMismatch, ErrInvalidToken, ErrTooLarge,
	ErrDenied, ErrRefused, ErrUnavailable, ErrThrottled, ErrCorrupt, ErrWrongKeys, ErrNotPersisted, context.Canceled, context.DeadlineExceeded,
}

// classed reports whether err matches one of the classes.
func classed(err error) bool {
	return slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) })
}

// An Error names the operation that failed, and its record. Every error of a store is an
// *Error. Unless it is an error of mint, it matches one of the classes of this package or
// of package context. The text holds no part of a token except the ID.
type Error struct {
	Op    string // the operation: "save"
	Store string // the kind of store: "awssm"
	ID    string // the record's ID, if it is known
	Err   error  // what happened: a class, wrapped together with the service's own error
}

// Error returns the text, such as
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

// NewError returns the error of an operation on a store: an *Error around err. It returns
// nil if err is nil, and err itself if err is or wraps an *Error. If err has no class and
// is not a *RefreshError, NewError adds ErrUnavailable. Stores outside this package use
// NewError so that all errors have the same form.
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
		id = "" // an ID this long is the caller's mistake: do not repeat it
	}
	return &Error{Op: op, Store: store, ID: id, Err: err}
}

// An UnreadableError reports that one record exists but cannot be read, and why. Other
// records may be readable. Name is the name of the secret. Err is the reason: the service's
// own error if the service refused the read. Err matches ErrCorrupt, ErrDenied, ErrRefused
// or ErrUnavailable, and so does the UnreadableError.
//
// An operation that reads many records joins one UnreadableError for each record that
// it leaves out. All, Check and Rekey report them one by one.
type UnreadableError = ledger.UnreadableError

// A RefreshError is an authorization server's refusal of a refresh, which mint may
// return to Refresh. Stores keep it in the record, for waiters and for later callers. It
// holds a code and no other text of the server, because such text may contain a token.
type RefreshError struct {
	// Code is the server's error code, such as "invalid_grant".
	Code string

	// RetryAfter is how long the server asks clients to wait; 0 if it does not say.
	RetryAfter time.Duration

	// Permanent means that trying again with the same credentials cannot help.
	Permanent bool

	// Client means that the server refuses the client, not what the record holds: its ID,
	// secret, redirect URL or scopes are wrong. Stores do not keep such a refusal, because
	// it ends as soon as the configuration is corrected.
	Client bool
}

// Error returns the text: the code and whether the refusal is permanent.
func (e *RefreshError) Error() string { return refusal.Answer(*e).Error() }

// As implements the method that errors.As calls. If target points to the internal type by
// which this module finds refusals, As stores e in target and returns true.
func (e *RefreshError) As(target any) bool {
	a, ok := target.(*refusal.Answer)
	if ok {
		*a = refusal.Answer(*e)
	}
	return ok
}
