// Package bulk holds code for programs that process many records of a store.
package bulk

import (
	"context"
	"errors"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Readable classifies err, the error that GetTokens returned. If tokens is not nil, err is about
// individual records, and Readable returns err as the result unreadable. Otherwise, err is about
// the whole store, and Readable returns err as the last result.
func Readable(tokens []tokenstore.Token, err error) (_ []tokenstore.Token, unreadable, _ error) {
	if err != nil && tokens != nil {
		return tokens, err, nil
	}
	return tokens, nil, err
}

// Lasting reports whether err would also affect the next record: the context is done, or the store
// is unavailable or denies access.
func Lasting(err error) bool {
	lasting := []error{context.Canceled, context.DeadlineExceeded, tokenstore.ErrDenied, tokenstore.ErrUnavailable}
	return slices.ContainsFunc(lasting, func(class error) bool { return errors.Is(err, class) })
}

// Throttled reports whether err means that the service currently accepts no more calls, but that
// the call can be repeated.
func Throttled(err error) bool { return errors.Is(err, tokenstore.ErrThrottled) }
