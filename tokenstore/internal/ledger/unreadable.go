package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// An UnreadableError reports that one secret exists but cannot be read.
type UnreadableError struct {
	Name string // the name of the secret, or the ID of a record in a file or table
	Err  error  // the reason, which wraps the service's own error if the service refused the read
}

// Error returns the text of Err, and adds Name unless that text contains Name.
func (e *UnreadableError) Error() string {
	if quoted := strconv.Quote(e.Name); !strings.Contains(e.Err.Error(), quoted) {
		return "record " + quoted + " cannot be read: " + e.Err.Error()
	}
	return "a record cannot be read: " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *UnreadableError) Unwrap() error { return e.Err }

// readClasses are the classes that the reason of an UnreadableError may have.
var readClasses = []error{driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrCorrupt}

// otherErrors are the classes and the errors of package context that the reason of an
// UnreadableError must not match. A match would mean that the secret is absent, that a write was
// refused, or that the caller's context is done.
var otherErrors = []error{driver.ErrNotFound, driver.ErrExists, driver.ErrConflict, context.Canceled, context.DeadlineExceeded}

// Unreadable returns an *UnreadableError for the named secret with the reason err. If err
// wraps an *UnreadableError, Unreadable returns the wrapped error. The reason matches
// driver.ErrUnavailable if err matches none of readClasses. If err matches one of otherErrors,
// the reason contains only the text of err.
func Unreadable(name Name, err error) *UnreadableError {
	var u *UnreadableError
	if errors.As(err, &u) {
		return u
	}
	class := driver.ErrUnavailable
	if i := slices.IndexFunc(readClasses, func(c error) bool { return errors.Is(err, c) }); i >= 0 {
		class = readClasses[i]
	}
	switch {
	case isOneOf(err, otherErrors...):
		err = fmt.Errorf("%w: %v", class, err)
	case !errors.Is(err, class):
		err = fmt.Errorf("%w: %w", class, err)
	}
	return &UnreadableError{Name: string(name), Err: err}
}

func isOneOf(err error, classes ...error) bool {
	return slices.ContainsFunc(classes, func(class error) bool { return errors.Is(err, class) })
}

// OfOne reports whether err, an error of a call about one secret, concerns that secret
// rather than the whole service. OfOne returns false for ErrUnavailable, because this class
// does not show whether the error concerns one secret.
func OfOne(err error) bool {
	var u *UnreadableError
	return errors.As(err, &u) || isOneOf(err, driver.ErrCorrupt, driver.ErrRefused) ||
		errors.Is(err, driver.ErrDenied) && !errors.Is(err, driver.ErrCredentials)
}

// OfListed converts err, which a driver returned or yielded for the named secret, to an
// *UnreadableError. OfListed returns err unchanged, and err ends the iteration, if name is empty
// or ctx is done. OfListed also returns an error of package context unchanged if the error has no
// class, because a service that enforces the deadline of ctx can report the end of ctx before ctx
// is done.
func OfListed(ctx context.Context, name string, err error) error {
	ended := isOneOf(err, context.Canceled, context.DeadlineExceeded) && !isOneOf(err, readClasses...)
	if err == nil || name == "" || ctx.Err() != nil || ended {
		return err
	}
	return Unreadable(Name(name), err)
}

// own yields the elements of listed, except errors about secrets whose names no store
// derives. Such secrets belong to other programs that use the same prefix. doctor.Check
// reports these errors.
func own(listed iter.Seq2[driver.Named, error]) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range listed {
			if err != nil && named.Name != "" && !Name(named.Name).Derived() {
				continue
			}
			if !yield(named, err) {
				return
			}
		}
	}
}

// JoinUnreadable sorts errs in place by name and joins them. It returns nil if errs is empty.
func JoinUnreadable(errs []*UnreadableError) error {
	sortByName(errs)
	all := make([]error, 0, len(errs))
	for _, err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func sortByName(errs []*UnreadableError) {
	slices.SortFunc(errs, func(a, b *UnreadableError) int { return cmp.Compare(a.Name, b.Name) })
}

// OnlyUnreadable returns err if it is an *UnreadableError. For any other error, even
// one that wraps an *UnreadableError, it returns nil.
func OnlyUnreadable(err error) *UnreadableError {
	u, _ := err.(*UnreadableError) //nolint:errorlint // an error that wraps one has further causes
	return u
}
