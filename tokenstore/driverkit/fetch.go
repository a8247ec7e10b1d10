package driverkit

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Width is the maximum number of calls that Fetch, FetchListed and Each make concurrently.
const Width = 16

// Fetch yields the result of the function get for each item, in the order of items. Fetch makes at
// most Width concurrent calls of get, some of them while the loop body runs. The loop ends only
// after all these calls have returned.
//
// If ctx is done before Fetch has yielded all results, Fetch yields ctx.Err() with the zero R,
// and ends. If the loop ends early, Fetch cancels the context that it passed to get.
func Fetch[T, R any](ctx context.Context, items []T, get func(context.Context, T) (R, error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		type answer struct {
			value R
			err   error
		}
		var work sync.WaitGroup
		defer work.Wait()
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		answers := make(chan chan answer, Width)
		next := 0
		for range items {
			for ; next < len(items) && len(answers) < Width; next++ {
				item, c := items[next], make(chan answer, 1)
				answers <- c
				work.Go(func() {
					value, err := get(inner, item)
					c <- answer{value, err}
				})
			}
			a := <-<-answers
			if ctx.Err() != nil {
				yield(*new(R), ctx.Err())
				return
			}
			if !yield(a.value, a.err) {
				return
			}
		}
	}
}

// FetchListed is like Fetch, but handles errors as the methods Lookup, List and Inspect of a
// driver must. If get fails with an error that concerns only one secret, FetchListed yields the
// error with the value that get returned, and continues. FetchListed leaves out a secret if the
// error matches driver.ErrNotFound, because the secret was deleted after the listing.
//
// If an error concerns all secrets, FetchListed yields the zero R with the error, and ends. An
// error concerns all secrets if it matches driver.ErrCredentials, or if ofAll returns true for the
// error. An error matching driver.ErrUnavailable also concerns all secrets if the errors of the
// previous Width secrets match driver.ErrUnavailable. The function ofAll may be nil, and must
// return false for a nil error.
func FetchListed[T, R any](
	ctx context.Context, items []T, ofAll func(error) bool, get func(context.Context, T) (R, error),
) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		unavailable := 0
		for value, err := range Fetch(ctx, items, get) {
			if unavailable++; !errors.Is(err, driver.ErrUnavailable) {
				unavailable = 0
			}
			switch {
			case ctx.Err() != nil:
				yield(*new(R), ctx.Err())
				return
			case errors.Is(err, driver.ErrCredentials), unavailable > Width, ofAll != nil && ofAll(err):
				yield(*new(R), err)
				return
			case errors.Is(err, driver.ErrNotFound):
			case !yield(value, err):
				return
			}
		}
	}
}

// Each calls the function do for each item, with at most Width concurrent calls. If calls fail,
// Each returns the error of the failed call whose item comes first in items. If ctx is done,
// Each returns ctx.Err(). Before Each returns an error, it cancels the contexts of the running
// calls and waits for these calls.
func Each[T any](ctx context.Context, items []T, do func(context.Context, T) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, err := range Fetch(ctx, items, func(ctx context.Context, item T) (struct{}, error) { return struct{}{}, do(ctx, item) }) {
		if err != nil {
			return err
		}
	}
	return nil
}

// Seq returns an iterator over the values and errors that the function run passes to yield. If run
// returns an error, the iterator yields the zero T with the error, and ends. If the loop ends
// early, yield returns false. The function run must then return, and the iterator ignores the error
// that it returns.
func Seq[T any](run func(yield func(T, error) bool) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ended := false
		err := run(func(value T, err error) bool {
			ended = ended || !yield(value, err)
			return !ended
		})
		if err != nil && !ended {
			yield(*new(T), err)
		}
	}
}
