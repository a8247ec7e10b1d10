// Package flight lets one of several callers do what all of them have asked for.
package flight

import (
	"context"
	"sync"
)

// A Group is the calls that are under way, by ID. Its zero value is ready to use.
type Group[T any] struct {
	mu     sync.Mutex
	flying map[string]*flight[T]
}

// A flight is one call, for all who ask for the same meanwhile.
type flight[T any] struct {
	landed chan struct{} // closed when the rest is set

	value  T
	err    error
	gaveUp bool // there is no answer for others
}

// Do returns what fly returns. Of the callers with one ID the first calls its fly,
// and the others wait for it, each with its own context. A waiter takes the answer
// if adopt does. Otherwise, and if fly gave up, it flies itself or waits for the
// next one. A fly that panics or ends its goroutine has given up.
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

// join returns the flight for the ID, and whether the caller is to fly it.
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

// lead flies, and tells those who wait whatever happens.
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
