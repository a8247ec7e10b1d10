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

// An UnreadableError says that one secret exists but cannot be read, and why. See
// package tokenstore.
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

// readClasses are the classes that the error of a read may have.
var readClasses = []error{
	driver.ErrConflict, driver.ErrDenied, driver.ErrRefused, driver.ErrUnavailable, driver.ErrCorrupt,
	context.Canceled, context.DeadlineExceeded,
}

// Unreadable returns err as the reason why the named secret cannot be read.
func Unreadable(name Name, err error) *UnreadableError {
	var u *UnreadableError
	if errors.As(err, &u) {
		return u
	}
	switch {
	case errors.Is(err, driver.ErrNotFound):
		// The driver listed the secret. If it were called absent, a save would create
		// another.
		err = fmt.Errorf("%w: %v", driver.ErrUnavailable, err)
	case !isOneOf(err, readClasses...):
		err = fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	return &UnreadableError{Name: string(name), Err: err}
}

func isOneOf(err error, classes ...error) bool {
	return slices.ContainsFunc(classes, func(class error) bool { return errors.Is(err, class) })
}

// OfOne reports whether err, of a call about one secret, concerns this secret and not
// the service as a whole. ErrUnavailable does not tell: a driver yields it with a name
// if it concerns one secret.
func OfOne(err error) bool {
	var u *UnreadableError
	return errors.As(err, &u) || isOneOf(err, driver.ErrCorrupt, driver.ErrRefused) ||
		errors.Is(err, driver.ErrDenied) && !errors.Is(err, driver.ErrCredentials)
}

// OfListed returns the error that a driver has yielded with a name as an
// *UnreadableError, unless it ends the iteration: it has no name, or ctx is done.
func OfListed(ctx context.Context, name string, err error) error {
	if err == nil || name == "" || ctx.Err() != nil {
		return err
	}
	return Unreadable(Name(name), err)
}

// own leaves out the errors of a driver about secrets with names that no store derives.
// They belong to other programs below the same prefix. Check reports them.
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

// JoinUnreadable returns the errors as one, ordered by name; nil if there are none.
func JoinUnreadable(errs []*UnreadableError) error {
	slices.SortFunc(errs, func(a, b *UnreadableError) int { return cmp.Compare(a.Name, b.Name) })
	all := make([]error, 0, len(errs))
	for _, err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// OnlyUnreadable returns err if it is an *UnreadableError. For any other error, even
// one that wraps an *UnreadableError, it returns nil.
func OnlyUnreadable(err error) *UnreadableError {
	u, _ := err.(*UnreadableError) //nolint:errorlint // An error that wraps one says more.
	return u
}
