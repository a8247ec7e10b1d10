// Package flight runs a function once for all goroutines that need its result concurrently.
package flight

import (
	"context"
	"sync"
)

// A Group holds the calls in progress, by ID. The zero value is ready to use.
type Group[T any] struct {
	mu     sync.Mutex
	flying map[string]*flight[T]
}

// A flight is one call whose result several goroutines can use.
type flight[T any] struct {
	landed chan struct{} // closed when the call has ended

	value  T
	err    error
	gaveUp bool // whether waiters must not use the result
}

// Do returns the result of fly. If several goroutines call Do with the same ID concurrently, the
// first goroutine calls its fly, and the other goroutines wait. If ctx of a waiting goroutine is
// done, Do returns the error from ctx. If fly returns true for gaveUp, or adopt returns false for
// the result, the waiting goroutine starts over: it calls its own fly, or waits for another
// goroutine to do so. If fly panics or ends its goroutine, the waiting goroutines also start over.
func (g *Group[T]) Do(ctx context.Context, id string, fly func() (value T, gaveUp bool, err error), adopt func(T, error) bool) (T, error) {
	for {
		f, leader := g.join(id)
		if leader {
			return g.lead(id, f, fly)
		}
		select {
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		case <-f.landed:
		}
		if !f.gaveUp && adopt(f.value, f.err) {
			return f.value, f.err
		}
	}
}

// join returns the flight for the ID, and reports whether the caller must call lead.
func (g *Group[T]) join(id string) (*flight[T], bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have, ok := g.flying[id]; ok {
		return have, false
	}
	if g.flying == nil {
		g.flying = map[string]*flight[T]{}
	}
	mine := &flight[T]{landed: make(chan struct{}), gaveUp: true}
	g.flying[id] = mine
	return mine, true
}

// lead calls fly. It releases the waiting goroutines even if fly panics.
func (g *Group[T]) lead(id string, mine *flight[T], fly func() (T, bool, error)) (T, error) {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.flying, id)
		close(mine.landed)
	}()
	mine.value, mine.gaveUp, mine.err = fly()
	return mine.value, mine.err
}
