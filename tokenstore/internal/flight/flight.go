// Package flight lets one of several callers do what all of them have asked for.
package flight

import "sync"

// A Group is the calls that are under way, by ID. Its zero value is ready to use.
type Group[T any] struct {
	mu     sync.Mutex
	flying map[string]*Flight[T]
}

// A Flight is one call, for all who ask for the same meanwhile.
type Flight[T any] struct {
	// Landed is closed when Value and Err are set.
	Landed chan struct{}

	Value T
	Err   error

	// GaveUp says that whoever flew it did not get an answer: its context was
	// done, or it panicked.
	GaveUp bool
}

// Join returns the flight for id, and whether the caller is the one to fly it.
// Whoever is has to call Land, whatever happens.
func (g *Group[T]) Join(id string) (*Flight[T], bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have, ok := g.flying[id]; ok {
		return have, false
	}
	if g.flying == nil {
		g.flying = map[string]*Flight[T]{}
	}
	mine := &Flight[T]{Landed: make(chan struct{})}
	g.flying[id] = mine
	return mine, true
}

// Land ends the caller's flight.
func (g *Group[T]) Land(id string, mine *Flight[T], value T, err error, gaveUp bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.flying, id)
	mine.Value, mine.Err, mine.GaveUp = value, err, gaveUp
	close(mine.Landed)
}
