package lease

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

const (
	// A waiter calls leaveWord wordTime before its deadline if it has watched the lease
	// for much longer than the lease says. That is at least firstWord, and one of
	// mostWords parts of the lease.
	wordTime  = 250 * time.Millisecond
	firstWord = time.Second
	mostWords = 24
)

// watched remembers the leases of other processes that this process has seen. It also
// has the leases that this process gave up and that may still be in a record. It
// outlasts a call of Refresh, because a call may be shorter than the time that a lease
// has to be watched.
type watched struct {
	mu    sync.Mutex
	since map[string]time.Time // by ID, on the monotonic clock; zero: given up
}

// maxWatched bounds the leases that are remembered. The lease that was seen first is
// forgotten first.
const maxWatched = 10_000

// held returns how long another process has had the lease at least. The caller has just
// read the lease.
func (w *watched) held(lease stored.Lease) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	seen := now.Add(-milliseconds(lease.Seen))
	since, known := w.since[lease.ID]
	if !known || seen.Before(since) {
		since = seen
		w.put(lease.ID, since)
	}
	return now.Sub(since)
}

// giveUp remembers that this process does not use the lease, wherever a read finds it.
func (w *watched) giveUp(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(id, time.Time{})
}

func (w *watched) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.since, id)
}

// put is called with w.mu held.
func (w *watched) put(id string, since time.Time) {
	if w.since == nil {
		w.since = map[string]time.Time{}
	}
	if _, known := w.since[id]; !known && len(w.since) >= maxWatched {
		first := id
		for other, at := range w.since {
			if first == id || at.Before(w.since[first]) {
				first = other
			}
		}
		delete(w.since, first)
	}
	w.since[id] = since
}

// milliseconds returns n milliseconds, or 0 if no lease lasts that long.
func milliseconds(n int64) time.Duration {
	if n < 0 || n > int64(24*time.Hour/time.Millisecond) {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// length returns how long a lease has to be watched until it has lapsed.
func (l *Leases) length(lease stored.Lease) time.Duration {
	if d := milliseconds(lease.For); d > 0 {
		return d
	}
	return l.TTL
}

// lapsed reports whether another process's lease can be taken over. It can if this
// process, and the waiters that called leaveWord, have watched the lease for its full
// length. It also can if the lease ended longer ago than any error of a clock explains.
func (l *Leases) lapsed(lease stored.Lease) bool {
	return l.watched.held(lease) >= l.length(lease) || l.Ledger.Now().Sub(time.UnixMilli(lease.Until)) >= ledger.ClockSkew
}

// watch waits until the next read of a record that another process holds a lease on.
func (r *record) watch(ctx context.Context, lease stored.Lease) error {
	d := rand.N(pollInterval/2) + pollInterval/2
	if left := r.length(lease) - r.watched.held(lease); left > 0 {
		d = min(d, left)
	}
	if deadline, ok := ctx.Deadline(); ok && !r.told {
		left := time.Until(deadline) - wordTime
		if left <= 0 {
			r.told = true
			r.leaveWord(ctx, lease)
		} else {
			d = min(d, left)
		}
	}
	return r.Ledger.Wait(ctx, d)
}

// leaveWord stores in the lease how long it has been watched, for the next waiter. If
// that fails, the next waiter watches the lease for that time again.
func (r *record) leaveWord(ctx context.Context, lease stored.Lease) {
	watched := r.watched.held(lease)
	gain := watched - milliseconds(lease.Seen)
	if gain < max(firstWord, r.length(lease)/mostWords) || !r.roomForWord(r.entry.Record) {
		return
	}
	lease.Seen = watched.Milliseconds()
	_ = r.place(r.entry).extend(ctx, r.entry, lease)
}
