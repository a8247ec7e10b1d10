package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// again says that a statement failed for a reason that goes away, and that the
// transaction has to begin again.
type again struct {
	error
	few bool // it may as well not go away: try a few times
}

func (a again) Unwrap() error { return a.error }

// fewAttempts is how often what may not go away is tried.
const fewAttempts = 3

// failed returns the error of a statement with its class: again, or one that
// callers see. No class is given to the end of a context.
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

// setUp returns an error about how the database is set up, which stays until an
// operator or the program's author changes it.
func setUp(format string, args ...any) error {
	return classed(tokenstore.ErrRefused, fmt.Errorf(format, args...))
}

// isClassed reports whether err has a class that callers see.
func isClassed(err error) bool {
	return errors.Is(err, tokenstore.ErrRefused) || errors.Is(err, tokenstore.ErrCorrupt)
}

// A readOnlyError says that the server takes no writes, and that the connection it
// came from may lead to another one than a new connection.
type readOnlyError struct{ error }

func (e readOnlyError) Unwrap() error { return e.error }

// Classes of errors that are not passed on as such.
var (
	errBusy      = errors.New("another program is writing")
	errReadOnly  = errors.New("the server takes no writes")
	errDuplicate = errors.New("it would be the second of its kind in a unique index")
)

// ofClass returns err with its class, or as again.
func ofClass(class, err error) error {
	//nolint:errorlint // it is one of these, and not wrapped
	switch class {
	case errBusy:
		return again{error: classed(tokenstore.ErrUnavailable, err)}
	case errReadOnly:
		return again{error: readOnlyError{setUp("the server takes no writes. After a failover new connections lead to the new one: "+
			"rejectReadOnly=true in the data source name gives up those that do not: %w", err)}, few: true}
	case errDuplicate:
		// Another program may have added the row since; but a unique index may
		// also not tell two IDs apart, or allow less than the rules.
		return again{error: classed(tokenstore.ErrInvalidToken, err), few: true}
	}
	return classed(class, err)
}

// classed returns err with a class.
func classed(class, err error) error { return fmt.Errorf("%w: %w", class, err) }

// Pauses between attempts at a statement that meets other writers.
const (
	firstPoll = 500 * time.Microsecond
	lastPoll  = 10 * time.Millisecond
)

// patiently calls f again while it fails with again, for as long as a write may
// wait for others. The context that f gets ends then.
func (db *database) patiently(ctx context.Context, f func(context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, db.lockTimeout)
	defer cancel()
	poll := driverkit.Backoff{Pause: firstPoll, Longest: lastPoll}
	var last error // of an attempt that is not the last
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
			err = fmt.Errorf("%w: the table was not free for %v", tokenstore.ErrUnavailable, db.lockTimeout)
			if last != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
		}
		return err
	}
}
