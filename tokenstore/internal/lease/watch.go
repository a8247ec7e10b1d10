package lease

import (
	"context"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

const (
	// A waiter calls leaveWord when only wordTime is left until the waiter's deadline. leaveWord
	// stores how long the lease was watched. The new time must exceed the stored time by at
	// least firstWord and at least 1/mostWords of the length of the lease.
	wordTime  = 250 * time.Millisecond
	firstWord = time.Second
	mostWords = 24
)

// A watched records the leases of other processes that this process has seen. It also records
// the leases that this process gave up but may have left in a record or note. The calls of
// Refresh share one watched, because a call may be shorter than the time for which a lease
// must be watched.
type watched struct {
	mu    sync.Mutex
	since map[string]time.Time // by lease ID: when the watch began; zero if the lease was given up
}

// maxWatched is the maximum number of leases in a watched. To make room, put removes a lease
// that was given up or, if there is none, the lease that was watched longest.
const maxWatched = 10_000

// held returns a lower bound for the time for which another process has held the given lease. The
// caller must just have read the lease. For a lease that this process gave up, held returns the
// maximum Duration.
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

// giveUp records that this process does not use the lease with the given ID, even if a later
// read finds the lease.
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

// put sets w.since[id], and first makes room if necessary. The caller must hold w.mu.
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

// milliseconds returns n milliseconds as a Duration, or 0 if n is negative or exceeds a day.
func milliseconds(n int64) time.Duration {
	if n < 0 || n > int64(24*time.Hour/time.Millisecond) {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// length returns how long a lease must be watched until it counts as lapsed.
func (l *Leases) length(lease stored.Lease) time.Duration {
	if d := milliseconds(lease.For); d > 0 {
		return d
	}
	return l.TTL
}

// lapsed reports whether another process's lease may be taken over. Such a lease was watched
// for its full length, by this process and the waiters that called leaveWord, or ended at
// least ledger.ClockSkew ago.
func (l *Leases) lapsed(lease stored.Lease) bool {
	return l.watched.held(lease) >= l.length(lease) || l.Ledger.Now().Sub(time.UnixMilli(lease.Until)) >= ledger.ClockSkew
}

// Bounds for the pauses of a waiter between two reads. If the record contains the duration of
// the last refresh, the waiter expects the current refresh to take as long. A pause then ends at
// the expected end. After that time, or without such a duration, the pauses grow.
const (
	firstPoll  = 400 * time.Millisecond
	lastPoll   = 1500 * time.Millisecond
	commitTime = 150 * time.Millisecond  // allowed for storing the result
	spreadTime = 300 * time.Millisecond  // spreads the reads of the waiters
	aimTime    = 2500 * time.Millisecond // one pause lasts until the expected end if that end is at most aimTime away
	aimPoll    = 2 * time.Second         // the longest pause if the expected end is further away
)

// pause returns how long to wait before the next read of a record under another process's
// lease.
func (r *record) pause(lease stored.Lease) time.Duration {
	held := r.watched.held(lease)
	left := min(milliseconds(r.entry.Took), r.length(lease)) - max(held, r.age(lease))
	switch {
	case left > aimTime:
		return r.nearly(min(left/2, aimPoll))
	case left > 0:
		return left + commitTime + r.random(spreadTime)
	}
	overdue := held * 4 / 5
	if r.entry.Took > 0 {
		overdue = min(-left, held) / 2
	}
	return r.nearly(min(max(firstPoll, overdue), lastPoll))
}

// age returns how long ago a lease was taken, by the clocks of the holder and of this
// process. It returns 0 if the result would exceed the length of the lease. The clocks may
// differ, so only the lengths of pauses depend on age.
func (r *record) age(lease stored.Lease) time.Duration {
	length := r.length(lease)
	before := length
	if length < r.TTL {
		before -= r.margin() // the lease ends at the deadline of the holder; see newTurn
	}
	age := r.Ledger.Now().Sub(time.UnixMilli(lease.Until).Add(-before))
	if age > length {
		return 0
	}
	return age
}

// nearly returns a random duration d with most*3/4 < d <= most.
func (l *Leases) nearly(most time.Duration) time.Duration { return most - l.random(most/4) }

// watch waits until it is time to read the record again. The parameter lease is another process's
// lease on the record. Shortly before the deadline of ctx, watch calls leaveWord once.
func (r *record) watch(ctx context.Context, lease stored.Lease) error {
	d := r.pause(lease)
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

// leaveWord stores in the lease, for the next waiter, how long the lease was watched. It does
// nothing if the stored time is recent enough, or if too few writes are left. If the write
// fails, the next waiter must watch the lease for that time again.
func (r *record) leaveWord(ctx context.Context, lease stored.Lease) {
	watched := r.watched.held(lease)
	gain := watched - milliseconds(lease.Seen)
	if gain < max(firstWord, r.length(lease)/mostWords) || !r.roomForWord(r.entry.Record) {
		return
	}
	lease.Seen = watched.Milliseconds()
	_ = r.place(r.entry).extend(ctx, r.entry, lease)
}
