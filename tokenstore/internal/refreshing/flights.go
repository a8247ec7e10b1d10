package refreshing

import (
	"sync"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// flights are the refreshes that a store has under way, by ID.
type flights struct {
	mu     sync.Mutex
	flying map[string]*flight
}

// A flight is one refresh, for all who ask for it meanwhile.
type flight struct {
	landed chan struct{}
	token  tokenstore.Token
	err    error
}

// join returns the flight for id, and whether the caller is the one to fly it.
func (f *flights) join(id string) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, ok := f.flying[id]; ok {
		return have, false
	}
	if f.flying == nil {
		f.flying = map[string]*flight{}
	}
	mine := &flight{landed: make(chan struct{})}
	f.flying[id] = mine
	return mine, true
}

func (f *flights) land(id string, mine *flight, t tokenstore.Token, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.flying, id)
	mine.token, mine.err = t, err
	close(mine.landed)
}
