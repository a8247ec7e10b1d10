package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/backoff"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
)

const (
	mintMargin = 5 * time.Second // how long before the end of a lease mint is stopped, at most
	callMargin = time.Second     // how long before the deadline of the caller, at most
	noteReads  = 3               // how often in LeaseTTL a waiter looks at another process's note

	releaseTime = time.Second // for giving a lease back once the caller's context is done

	// A waiter leaves word wordTime before its deadline, if it has watched a lease
	// for so much longer than the record says already.
	wordTime  = 250 * time.Millisecond
	firstWord = time.Second
	mostWords = 24 // of one lease

	refreshWrites = 2  // of one refresh: the lease and the token
	spareWrites   = 25 // one of so many of a day's writes is left to commits that meet others
)

// margin is how long before the end of a lease mint is stopped.
func (s *Store) margin() time.Duration { return min(mintMargin, s.o.LeaseTTL/6) }

// A turn is the time for which this process has the lease.
type turn struct {
	lease codec.Lease
	mint  time.Duration // how long after the beginning mint is stopped

	now         func() time.Time
	wall, ticks time.Time // the beginning, on the store's clock and on the monotonic one
}

// newTurn begins a turn. The lease of a caller with a deadline ends with it, because
// the process may: others wait a margin longer, in which what mint has brought can
// still be stored.
func (r *refresher) newTurn(ctx context.Context) turn {
	t := turn{now: r.ledger.Now, wall: r.ledger.Now(), ticks: time.Now(), mint: r.o.LeaseTTL - r.margin()}
	until, length := r.o.LeaseTTL, r.o.LeaseTTL
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline), 0)
		until, length = min(until, left), min(length, left+r.margin())
		t.mint = min(t.mint, left-min(callMargin, left/6))
	}
	t.lease = codec.Lease{ID: ledger.Nonce(), Until: t.wall.Add(until).UnixMilli(), For: length.Milliseconds() + 1}
	return t
}

// elapsed returns how long ago the turn began. A clock that is set back, or the
// monotonic one that stood still with the process, does not make it longer.
func (t turn) elapsed() time.Duration { return max(t.now().Sub(t.wall), time.Since(t.ticks)) }

// leases are the leases of other processes that were seen, and those of this one
// that were given up and may still be in a record. A call of Refresh may be shorter
// than a lease has to be watched.
type leases struct {
	mu    sync.Mutex
	since map[string]time.Time // by ID, on the monotonic clock; zero: given up
}

// maxLeases bounds what is remembered. The lease that was seen first goes first.
const maxLeases = 10_000

// held returns how long the lease has been held at least. It was seen just now.
func (l *leases) held(lease codec.Lease) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	seen := now.Add(-milliseconds(lease.Seen))
	since, known := l.since[lease.ID]
	if !known || seen.Before(since) {
		since = seen
		l.put(lease.ID, since)
	}
	return now.Sub(since)
}

// giveUp notes that this process does not use the lease, wherever it is found.
func (l *leases) giveUp(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(id, time.Time{})
}

func (l *leases) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.since, id)
}

// put is called with l.mu held.
func (l *leases) put(id string, since time.Time) {
	if l.since == nil {
		l.since = map[string]time.Time{}
	}
	if _, known := l.since[id]; !known && len(l.since) >= maxLeases {
		first := id
		for other, at := range l.since {
			if first == id || at.Before(l.since[first]) {
				first = other
			}
		}
		delete(l.since, first)
	}
	l.since[id] = since
}

// milliseconds returns n of them, or none if that is no time a lease can last.
func milliseconds(n int64) time.Duration {
	if n < 0 || n > int64(24*time.Hour/time.Millisecond) {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// length returns how long a lease has to be watched before it is over.
func (s *Store) length(lease codec.Lease) time.Duration {
	if d := milliseconds(lease.For); d > 0 {
		return d
	}
	return s.o.LeaseTTL
}

// lapsed reports whether the lease of another process can be taken over: it was
// watched for as long as it lasts, by this process and those that have left word, or
// is so old that no clock can be that wrong.
func (s *Store) lapsed(lease codec.Lease) bool {
	return s.leases.held(lease) >= s.length(lease) || s.ledger.Now().Sub(time.UnixMilli(lease.Until)) >= ledger.ClockSkew
}

// lease returns the lease that another process has on the record, as far as is
// known.
func (r *refresher) lease(rec ledger.Entry) *codec.Lease {
	switch {
	case rec.Lease != nil:
		return rec.Lease
	case r.noted != nil && time.Since(r.notedAt) < r.o.LeaseTTL/noteReads:
		return r.noted
	}
	return nil
}

// leaser returns the driver if the lease on the record belongs in a note. That
// of a record which may still move is kept in the record, to move with it.
func (r *refresher) leaser(rec ledger.Entry) (driver.Leaser, bool) {
	if rec.UserName == "" {
		return nil, false
	}
	l, ok := r.ledger.Driver.(driver.Leaser)
	return l, ok
}

// watchOn waits for the next look at a record whose lease another process has.
func (r *refresher) watchOn(ctx context.Context, rec ledger.Entry, lease codec.Lease) error {
	d := rand.N(pollInterval/2) + pollInterval/2
	if left := r.length(lease) - r.leases.held(lease); left > 0 {
		d = min(d, left)
	}
	if deadline, ok := ctx.Deadline(); ok && !r.worded {
		left := time.Until(deadline) - wordTime
		if left <= 0 {
			r.worded = true
			r.leaveWord(ctx, rec, lease)
		} else {
			d = min(d, left)
		}
	}
	return r.ledger.Wait(ctx, d)
}

// leaveWord notes in the lease how long it has been watched, for the next one who
// watches. What it fails to note is watched again.
func (r *refresher) leaveWord(ctx context.Context, rec ledger.Entry, lease codec.Lease) {
	held := r.leases.held(lease)
	gain := held - milliseconds(lease.Seen)
	if gain < max(firstWord, r.length(lease)/mostWords) || r.ledger.Room(rec.Record, 0) <= 2*refreshWrites+r.spare() {
		return
	}
	lease.Seen = held.Milliseconds()
	if rec.Lease == nil {
		if l, ok := r.leaser(rec); ok {
			_ = l.Note(ctx, string(r.notedOn.Name), r.notedOn.Secret(), ledger.Note(lease))
		}
		return
	}
	next := rec.Record
	next.Lease = &lease
	_, _ = r.ledger.Writer().Update(ctx, rec, next)
}

// reworded returns the record of a lease in a note with the note as others have
// left it while mint ran.
func (r *refresher) reworded(ctx context.Context, rec ledger.Entry, t turn) ledger.Entry {
	if rec.Secret().Note == "" || t.elapsed() < firstWord {
		return rec
	}
	if e, err := r.ledger.Newest(ctx, rec.Name, rec); err == nil && e.Secret().Version == rec.Secret().Version {
		return rec.Over(e.Secret())
	}
	return rec
}

// take takes the lease and returns the record as it is then. It fails with again
// if another process has written to the record, or has the lease.
func (r *refresher) take(ctx context.Context, rec ledger.Entry, lease codec.Lease) (ledger.Entry, error) {
	r.leases.giveUp(lease.ID) // until it is certain that it is used
	r.takeover = rec.Lease != nil
	if l, ok := r.leaser(rec); ok && rec.Lease == nil {
		return r.note(ctx, l, rec, lease)
	}
	next := rec.Record
	next.Lease = &lease
	held, err := r.ledger.WriterOf(lease.ID).Update(ctx, rec, next)
	if err != nil {
		return ledger.Entry{}, ledger.Lost(err)
	}
	// If the answer to the write was lost, others may have written since: what is
	// held is what is there now.
	now, err := r.ledger.ViewOf(append([]ledger.Entry{held}, rec.Frozen...)...).Resolve(ctx, held)
	if err != nil {
		r.release(ctx, held, lease, nil)
		return ledger.Entry{}, ledger.Lost(err)
	}
	if !holds(now, lease) {
		return ledger.Entry{}, ledger.Again(errLeaseLost)
	}
	return now, nil
}

var errLeaseLost = fmt.Errorf("%w: another process has the lease", ErrConflict)

// note takes a lease that is a note beside the record.
func (r *refresher) note(ctx context.Context, l driver.Leaser, rec ledger.Entry, lease codec.Lease) (ledger.Entry, error) {
	e, err := r.ledger.Newest(ctx, rec.Name, rec)
	if err != nil {
		return ledger.Entry{}, ledger.Lost(err)
	}
	if e.Secret().Version != rec.Secret().Version {
		r.noted = nil
		return ledger.Entry{}, ledger.Again(fmt.Errorf("%w: %q", ErrConflict, rec.Name))
	}
	if other := e.Noted(); other != nil && !r.lapsed(*other) {
		r.noted, r.notedOn, r.notedAt = other, e, time.Now()
		return ledger.Entry{}, ledger.Again(errLeaseLost)
	}
	r.noted = nil
	rec = rec.Over(e.Secret())
	mine := ledger.Note(lease)
	err = l.Note(ctx, string(rec.Name), e.Secret(), mine)
	if err != nil && !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) && !errors.Is(err, driver.ErrDenied) && !errors.Is(err, driver.ErrRefused) {
		// The outcome is unknown.
		seen, readErr := r.ledger.Newest(ctx, rec.Name, e)
		if readErr != nil || seen.Secret().Note != mine || seen.Secret().Version != e.Secret().Version {
			return ledger.Entry{}, err
		}
		rec, err = rec.Over(seen.Secret()), nil
	}
	if err != nil {
		return ledger.Entry{}, ledger.Lost(err)
	}
	rec = rec.WithNote(mine)
	r.takeover = e.Secret().Note != ""
	return rec, nil
}

// holds reports whether the lease on the record is this one.
func holds(rec ledger.Entry, lease codec.Lease) bool {
	return rec.Lease != nil && rec.Lease.ID == lease.ID || noteHolds(rec, lease)
}

// noteHolds reports whether the note beside the record is this lease.
func noteHolds(rec ledger.Entry, lease codec.Lease) bool {
	noted := rec.Noted()
	return noted != nil && noted.ID == lease.ID
}

// unless returns l, or nil if it is lease.
func unless(l *codec.Lease, lease codec.Lease) *codec.Lease {
	if l != nil && l.ID == lease.ID {
		return nil
	}
	return l
}

// release gives the lease back, and leaves word of the failure for those who
// wait. It is done under one's own lease only. If it cannot be done before
// releaseTime has passed since ctx was done, the lease lapses by itself.
func (r *refresher) release(ctx context.Context, rec ledger.Entry, lease codec.Lease, f *codec.Failure) {
	r.leases.giveUp(lease.ID)
	ctx, cancel := backoff.Outlast(ctx, releaseTime, r.margin())
	defer cancel()
	for n := range r.ledger.Attempts {
		if rec.Target() != nil || !holds(rec, lease) {
			return
		}
		err := r.releaseOnce(ctx, rec, lease, f)
		if err == nil {
			r.leases.forget(lease.ID)
		}
		if err == nil || errors.Is(err, ErrDenied) || errors.Is(err, ErrRefused) || r.ledger.Wait(ctx, ledger.Pause(n+1)) != nil {
			return
		}
		if rec, err = r.read(ctx, r.ledger.View(true)); err != nil {
			return
		}
	}
}

func (r *refresher) releaseOnce(ctx context.Context, rec ledger.Entry, lease codec.Lease, f *codec.Failure) error {
	if l, ok := r.ledger.Driver.(driver.Leaser); ok && f == nil && rec.Lease == nil {
		return l.Note(ctx, string(rec.Name), rec.Secret(), "")
	}
	if noteHolds(rec, lease) {
		rec = rec.DropNote()
	}
	next := rec.Record
	next.Lease = unless(next.Lease, lease)
	if f != nil {
		next.Failure = f
	}
	_, err := r.ledger.WriterOf(lease.ID).Update(ctx, rec, next)
	return err
}

// spare is how many writes of a day a refresh does not count on: its commit may
// meet other writers.
func (s *Store) spare() int { return s.ledger.Properties.DailyWrites / spareWrites }

// roomForRefresh returns an error if the service is not sure to take what a refresh
// writes. It is asked before mint, because what mint brings has to be stored.
func (s *Store) roomForRefresh(r codec.Record) error {
	need := refreshWrites + s.spare()
	if s.ledger.Room(r, 0) >= need {
		return nil
	}
	later := int64(1)
	for later < ledger.Hours && s.ledger.Room(r, later) < need {
		later++
	}
	return fmt.Errorf("%w: the record was written so often that the service, which takes %d states of it in a day, has no room for a refresh for the next %d hours",
		ErrUnavailable, s.ledger.Properties.DailyWrites, later)
}
