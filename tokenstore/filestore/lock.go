package filestore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/backoff"
)

// The lock of a token file has two stages. The goroutines of a process queue up
// at a gate, first come, first served; the one that has passed it takes the lock
// file, for which processes compete by trying again and again: a context
// could not end a wait in the operating system.
//
// So that trying costs little, and the processes still take turns, the lock file
// is handed on from one goroutine to the next without being unlocked, but not
// more than turns times; then the process stands back for a moment.
const (
	turns     = 16
	standBack = 5 * time.Millisecond
	firstPoll = 500 * time.Microsecond
	lastPoll  = 5 * time.Millisecond
)

// A gate is where the goroutines of this process wait for one lock file.
type gate struct {
	mu    sync.Mutex
	users int // goroutines that are inside or wait; guarded by gates.mu
	busy  bool
	queue []chan struct{}
	taken int // how often the lock file was handed on

	// Of the goroutine that has passed.
	lock  *fileLock
	pause time.Duration // before the lock file is tried
}

var gates = struct {
	mu   sync.Mutex
	path map[string]*gate
}{path: map[string]*gate{}}

// A held is the lock of a token file, while it is held.
type held struct {
	gate *gate
	path string
}

// lock locks the token file at path, which is resolved.
func (f *file) lock(ctx context.Context, path string) (*held, error) {
	gates.mu.Lock()
	g := gates.path[path]
	if g == nil {
		g = &gate{}
		gates.path[path] = g
	}
	g.users++
	gates.mu.Unlock()
	h := &held{g, path}

	waiting, cancel := context.WithTimeout(ctx, f.lockTimeout)
	defer cancel()
	err := g.enter(waiting)
	if err != nil {
		h.leave()
	} else if g.lock == nil {
		if err = g.take(waiting, path); err != nil {
			h.release()
		}
	}
	if err == nil {
		return h, nil
	}
	if ctx.Err() == nil && waiting.Err() != nil {
		err = fmt.Errorf("%w: the lock was not free for %v", tokenstore.ErrUnavailable, f.lockTimeout)
	}
	return nil, err
}

// release unlocks.
func (h *held) release() {
	h.gate.pass()
	h.leave()
}

func (h *held) leave() {
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if h.gate.users--; h.gate.users == 0 {
		delete(gates.path, h.path)
	}
}

// enter waits for the goroutine's turn.
func (g *gate) enter(ctx context.Context) error {
	g.mu.Lock()
	if !g.busy {
		g.busy = true
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.queue = append(g.queue, turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.queue, turn)
	if i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 {
		g.pass() // the turn came in the same moment
	}
	return ctx.Err()
}

// pass lets the next one in, with the lock file or without.
func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken++
	g.pause = 0
	if len(g.queue) == 0 || g.taken >= turns {
		if len(g.queue) > 0 {
			g.pause = standBack
		}
		g.taken = 0
		if g.lock != nil {
			g.lock.unlock()
			g.lock = nil
		}
	}
	if g.busy = len(g.queue) > 0; g.busy {
		close(g.queue[0])
		g.queue = g.queue[1:]
	}
}

// take takes the lock file of the token file at path.
func (g *gate) take(ctx context.Context, path string) error {
	poll := backoff.Sequence{Pause: firstPoll, Longest: lastPoll}
	for pause := g.pause; ; pause = poll.Next() {
		if err := backoff.Sleep(ctx, pause); err != nil {
			return err
		}
		l, err := tryFileLock(path, ".lock", writeByte)
		if err != nil {
			return classed(err)
		}
		if l != nil {
			g.lock = l
			return nil
		}
	}
}

// used returns the biggest ID of the records that were deleted, as far as is
// known.
func (h *held) used() int64 {
	text, err := h.gate.lock.text(32)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// use notes that the record with the ID is about to be deleted.
func (h *held) use(id int64) error {
	return h.gate.lock.keep([]byte(strconv.FormatInt(id, 10) + "\n"))
}
