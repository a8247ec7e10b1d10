package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// An again is a temporary error from a statement: a retry of the transaction may succeed.
type again struct {
	error
	few bool // the error may be permanent: retry only a few times
}

func (a again) Unwrap() error { return a.error }

// fewAttempts is the maximum number of attempts if the error may be permanent.
const fewAttempts = 3

// failed wraps err, the error from a statement, and adds an error class for callers. It returns a
// temporary error as an again error. If ctx is done, failed returns the error from ctx. If
// isClassed is true for err, failed returns err unchanged.
func (db *database) failed(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case isClassed(err):
		return err
	}
	return db.dialect.classed(err)
}

// setUp returns an error about a configuration that an operator or the program's author must
// change. The error matches tokenstore.ErrRefused.
func setUp(format string, args ...any) error {
	return classed(tokenstore.ErrRefused, fmt.Errorf(format, args...))
}

// isClassed reports whether err matches tokenstore.ErrRefused or tokenstore.ErrCorrupt.
func isClassed(err error) bool {
	return errors.Is(err, tokenstore.ErrRefused) || errors.Is(err, tokenstore.ErrCorrupt)
}

// A readOnlyError means that the server of a connection accepts no writes. A new connection may
// lead to another server.
type readOnlyError struct{ error }

func (e readOnlyError) Unwrap() error { return e.error }

// Internal classes of errors, which ofClass converts to classes for callers.
var (
	errBusy      = errors.New("another program is writing")
	errReadOnly  = errors.New("the server takes no writes")
	errDuplicate = errors.New("it would be the second of its kind in a unique index")
)

// ofClass returns an error that matches class and err, or an again error if class is internal.
func ofClass(class, err error) error {
	//nolint:errorlint // class is never wrapped
	switch class {
	case errBusy:
		return again{error: classed(tokenstore.ErrUnavailable, err)}
	case errReadOnly:
		return again{error: readOnlyError{setUp("the server takes no writes. After a failover new connections lead to the new one: "+
			"rejectReadOnly=true in the data source name gives up those that do not: %w", err)}, few: true}
	case errDuplicate:
		// Another program may have added the row meanwhile, so a retry may succeed. But a
		// unique index may also treat two different IDs as equal, or forbid records that
		// the rules of package tokenstore allow.
		return again{error: classed(tokenstore.ErrInvalidToken, err), few: true}
	}
	return classed(class, err)
}

// classed returns an error that matches class and err.
func classed(class, err error) error { return fmt.Errorf("%w: %w", class, err) }

// Bounds of the pauses between attempts while other writers block a statement.
const (
	firstPoll = 500 * time.Microsecond
	lastPoll  = 10 * time.Millisecond
)

// withRetries calls f, and repeats the call while f returns an again error. The context of f ends
// after db.lockTimeout, and the error then matches tokenstore.ErrUnavailable. Once the field few is
// set in fewAttempts of these errors, withRetries returns the last error.
func (db *database) withRetries(ctx context.Context, f func(context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, db.lockTimeout)
	defer cancel()
	poll := driverkit.Backoff{Pause: firstPoll, Longest: lastPoll}
	var last error // error from the previous attempt
	for few := 0; ; {
		err := f(waiting)
		var a again
		if errors.As(err, &a) {
			if a.few {
				few++
			}
			if few == fewAttempts {
				return a.error
			}
			last, err = a.error, driverkit.Sleep(waiting, poll.Next())
			if err == nil {
				continue
			}
		}
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("%w: the table was locked for %v", tokenstore.ErrUnavailable, db.lockTimeout)
			if last != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
		}
		return err
	}
}
