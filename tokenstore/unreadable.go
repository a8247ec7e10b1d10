package tokenstore

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

// An UnreadableError says that one record is there and cannot be read, and why.
// It says nothing about the others. It matches the class of its reason:
// ErrCorrupt, ErrDenied, ErrRefused or ErrUnavailable.
//
// What reads many records joins one such error for each that it left out; All,
// Check and Rekey report them one by one.
type UnreadableError struct {
	Name string // of the secret
	Err  error  // the reason, in the words of the service
}

// Error returns the text, which names the secret once.
func (e *UnreadableError) Error() string {
	if quoted := strconv.Quote(e.Name); !strings.Contains(e.Err.Error(), quoted) {
		return "secret " + quoted + " cannot be read: " + e.Err.Error()
	}
	return "a secret cannot be read: " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *UnreadableError) Unwrap() error { return e.Err }

// unreadable returns err as what keeps the named secret from being read.
func unreadable(name string, err error) *UnreadableError {
	var u *UnreadableError
	if errors.As(err, &u) {
		return u
	}
	switch {
	case errors.Is(err, ErrNotFound):
		// It was listed: to call it absent would have another one created.
		err = fmt.Errorf("%w: %v", ErrUnavailable, err)
	case !classed(err):
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &UnreadableError{Name: name, Err: err}
}

// ofOne reports whether err, of a call about one secret, is about this secret and
// not about the service as a whole. Of ErrUnavailable that cannot be told: a
// driver tells it by the name that it yields the error with.
func ofOne(err error) bool {
	var u *UnreadableError
	return errors.As(err, &u) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrRefused) ||
		errors.Is(err, ErrDenied) && !errors.Is(err, driver.ErrCredentials)
}

// listedErr returns the error that a driver has yielded with a name in the form
// of an *UnreadableError, unless it ends the iteration: it has no name, or ctx is
// done.
func listedErr(ctx context.Context, name string, err error) error {
	if err == nil || name == "" || ctx.Err() != nil {
		return err
	}
	return unreadable(name, err)
}

// ours leaves out of what a driver lists the errors about secrets that no store has
// named: another program keeps them below the same prefix. Check reports them.
func ours(listed iter.Seq2[driver.Named, error]) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range listed {
			if err != nil && named.Name != "" && !derived(named.Name) {
				continue
			}
			if !yield(named, err) {
				return
			}
		}
	}
}

// joinUnreadable returns the errors as one, ordered by name; nil if there are
// none.
func joinUnreadable(errs []*UnreadableError) error {
	slices.SortFunc(errs, func(a, b *UnreadableError) int { return cmp.Compare(a.Name, b.Name) })
	all := make([]error, 0, len(errs))
	for _, err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// onlyUnreadable returns the *UnreadableError that err is, or nil if err says
// more than that.
func onlyUnreadable(err error) *UnreadableError {
	u, _ := err.(*UnreadableError)
	return u
}
