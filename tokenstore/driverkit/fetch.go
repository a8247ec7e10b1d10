package driverkit

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Width is the number of concurrent calls of Fetch, FetchListed and Each.
const Width = 16

// Fetch yields what get returns for each item, in the order of items. Up to Width
// calls of get run concurrently. Calls for later items run while the loop body runs.
// The loop does not end while a call of get is running.
//
// If ctx is done, Fetch yields its error with a zero R, and ends. If the loop ends
// early, the context that get received is canceled.
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

// FetchListed is like Fetch for secrets that a service has listed, as needed by
// Lookup, List and Inspect. An error of get concerns one secret, and is yielded with
// the value that get returned. If get does not find a secret, the secret was deleted
// after it was listed, and is left out.
//
// An error that concerns all secrets is yielded with a zero R, and ends the iteration.
// Such an error matches driver.ErrCredentials, or ofAll returns true for it, or more
// than Width secrets in a row have errors matching driver.ErrUnavailable. ofAll may be
// nil.
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

// Each calls do for each item concurrently, like Fetch, and returns the error of the
// first item that has one. After that, Each begins no further call.
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

// Seq returns an iterator over the values that run passes to yield. An error of run is
// yielded with a zero T, and ends the iteration. Once the loop has ended, yield
// returns false, the error of run is dropped, and run must return.
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
