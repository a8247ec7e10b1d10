package filestore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// The lock of a token file has two stages. The goroutines of a process queue up for a
// turn, first come, first served. The one whose turn it is takes the lock file, for
// which processes compete by polling: a context could not end a wait in the operating
// system.
//
// The lock file is handed on from one goroutine to the next without being unlocked,
// which makes polling rare. After a number of turns the process unlocks it and stands
// back for a moment, so that processes take turns, too.
const (
	turns     = 16
	standBack = 5 * time.Millisecond
	firstPoll = 500 * time.Microsecond
	lastPoll  = 5 * time.Millisecond
)

// A gate is where the goroutines of this process wait for the lock of one token file.
type gate struct {
	path  string
	users int           // goroutines that wait or have their turn; guarded by gates.mu
	turn  chan struct{} // of capacity 1, and full while a goroutine has its turn

	// Of the goroutine whose turn it is.
	lock  *fileLock     // nil: the process does not have the lock file
	taken int           // how often the lock file was handed on
	pause time.Duration // before the lock file is tried
}

var gates = struct {
	mu   sync.Mutex
	path map[string]*gate
}{path: map[string]*gate{}}

// lock locks the token file at path, which is resolved.
func (f *file) lock(ctx context.Context, path string) (*gate, error) {
	gates.mu.Lock()
	g := gates.path[path]
	if g == nil {
		g = &gate{path: path, turn: make(chan struct{}, 1)}
		gates.path[path] = g
	}
	g.users++
	gates.mu.Unlock()

	waiting, cancel := context.WithTimeout(ctx, f.lockTimeout)
	defer cancel()
	err := g.enter(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		err = fmt.Errorf("%w: the lock was not free for %v", tokenstore.ErrUnavailable, f.lockTimeout)
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (g *gate) enter(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		g.leave()
		return ctx.Err()
	}
	if g.lock != nil {
		return nil
	}
	err := g.take(ctx)
	if err != nil {
		g.release()
	}
	return err
}

// release unlocks, and lets the next goroutine in.
func (g *gate) release() {
	gates.mu.Lock()
	alone := g.users == 1
	gates.mu.Unlock()
	g.taken++
	g.pause = 0
	if alone || g.taken >= turns {
		if !alone {
			g.pause = standBack
		}
		g.taken = 0
		g.unlock()
	}
	<-g.turn
	g.leave()
}

// leave is the end of a goroutine's wait or turn.
func (g *gate) leave() {
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if g.users--; g.users == 0 {
		g.unlock() // the goroutine that the lock file was left for has given up
		delete(gates.path, g.path)
	}
}

func (g *gate) unlock() {
	if g.lock != nil {
		g.lock.unlock()
		g.lock = nil
	}
}

// take takes the lock file.
func (g *gate) take(ctx context.Context) error {
	poll := driverkit.Backoff{Pause: firstPoll, Longest: lastPoll}
	for pause := g.pause; ; pause = poll.Next() {
		if err := driverkit.Sleep(ctx, pause); err != nil {
			return err
		}
		l, err := tryFileLock(g.path, ".lock", writeByte)
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
func (g *gate) used() int64 {
	text, err := g.lock.text(32)
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
func (g *gate) use(id int64) error {
	return g.lock.keep([]byte(strconv.FormatInt(id, 10) + "\n"))
}
