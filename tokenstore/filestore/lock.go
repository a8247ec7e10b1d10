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

// The lock of a token file has two stages. First, the goroutines of a process wait, in order of
// arrival, until they enter the gate. The time from entering the gate to leaving the gate is the
// turn of a goroutine. During its turn, a goroutine locks the lock file, unless the process already
// holds the lock. Processes poll the lock file, because a context cannot end a wait in the
// operating system.
//
// A goroutine passes the locked file on to the next goroutine of the process, so goroutines
// rarely poll. After a fixed number of turns, the process unlocks the file and pauses briefly,
// to let other processes lock the file.
const (
	turns     = 16                     // maximum number of turns until the process unlocks the file
	standBack = 5 * time.Millisecond   // pause after the maximum number of turns
	firstPoll = 500 * time.Microsecond // first pause between attempts to lock the file
	lastPoll  = 5 * time.Millisecond   // maximum pause between attempts
)

// A gate serializes the goroutines of this process that lock one token file.
type gate struct {
	path  string
	users int           // number of goroutines that have or await their turn; guarded by gates.mu
	turn  chan struct{} // has capacity 1, and is full while a goroutine has its turn

	// Only the goroutine that has its turn, or the last goroutine that leaves, uses the following
	// fields.
	lock  *fileLock     // nil while the process does not hold the lock file
	taken int           // number of turns since the process took the lock file
	pause time.Duration // how long the method take waits before its first attempt
}

var gates = struct {
	mu   sync.Mutex
	path map[string]*gate
}{path: map[string]*gate{}}

// lock locks the token file at path. path must be resolved. The caller must release the returned
// gate. If the lock is not free within f.lockTimeout, the error matches
// tokenstore.ErrUnavailable.
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

// release ends a goroutine's turn. It unlocks the lock file if no other goroutine waits, or if the
// process has kept the lock file for the maximum number of turns.
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

func (g *gate) leave() {
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if g.users--; g.users == 0 {
		g.unlock() // release kept the lock file for a goroutine that has stopped waiting
		delete(gates.path, g.path)
	}
}

func (g *gate) unlock() {
	if g.lock != nil {
		g.lock.unlock()
		g.lock = nil
	}
}

// take locks the lock file. It polls until the file is free or ctx is done.
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

// used returns the largest known ID of a deleted record, or 0 if no such ID is known.
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

// use stores id, the ID of a record that is about to be deleted, in the lock file.
func (g *gate) use(id int64) error {
	return g.lock.keep([]byte(strconv.FormatInt(id, 10) + "\n"))
}
