// Package bulk holds what programs that work on many records of a store have in
// common.
package bulk

import (
	"context"
	"errors"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Readable splits the error of GetTokens: it returns the tokens, the errors about
// single records, and any error about the whole store.
func Readable(tokens []tokenstore.Token, err error) (_ []tokenstore.Token, unreadable, _ error) {
	if err != nil && tokens != nil {
		return tokens, err, nil
	}
	return tokens, nil, err
}

// Lasting reports whether an error about one record is an error of the store that the
// next record would meet too.
func Lasting(err error) bool {
	lasting := []error{context.Canceled, context.DeadlineExceeded, tokenstore.ErrDenied, tokenstore.ErrUnavailable}
	return slices.ContainsFunc(lasting, func(class error) bool { return errors.Is(err, class) })
}
