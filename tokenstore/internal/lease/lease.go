// Package lease gives the right to refresh a record in a secret manager to one process
// at a time.
//
// The right is a lease, which a process wins by compare-and-swap: in the record, or in
// a note beside it if the driver is a driver.Leaser. If a process dies while it holds a
// lease, waiters have to watch the lease for its full length.
package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const (
	pollInterval = 500 * time.Millisecond // the longest pause of a waiter between two reads
	mintMargin   = 5 * time.Second        // the longest time between the end of mint and that of the lease
	callMargin   = time.Second            // the longest time between the end of mint and the caller's deadline
	releaseTime  = time.Second            // for giving a lease back after the caller's context is done
)

// Leases are the leases on the records of one store.
type Leases struct {
	Ledger *ledger.Ledger
	TTL    time.Duration // how long a lease lasts

	// Find returns the record with an ID.
	Find func(ctx context.Context, v *ledger.View, id string) (ledger.Entry, error)

	watched watched
}

// margin is how long before the end of a lease the context of mint ends.
func (l *Leases) margin() time.Duration { return min(mintMargin, l.TTL/6) }

// A place keeps a lease on a record.
type place interface {
	// take takes the lease on e. It returns the record under the lease, and reports
	// whether another process had abandoned a lease there. The error is
	// ledger.Retryable if another process has written to the record or has the lease.
	take(ctx context.Context, e ledger.Entry, lease stored.Lease) (held ledger.Entry, abandoned bool, err error)

	// extend stores how long another process's lease on e was watched.
	extend(ctx context.Context, e ledger.Entry, lease stored.Lease) error

	// release removes the lease from e.
	release(ctx context.Context, e ledger.Entry, lease stored.Lease) error
}

// A record is the record with an ID in one call of Refresh.
type record struct {
	*Leases
	id    string
	least time.Duration // mint is not called if the deadline is nearer

	view  *ledger.View // of the last Read; nil once Take has tried to write
	entry ledger.Entry // as Read returned it last
	noted noted        // another process's lease in a note
	told  bool         // this call has left word of how long it has watched
}

// Format prints r, and a held lease, as their type. Package fmt would print the tokens
// within them.
func (r *record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*lease.record") }

// Record returns the record with the ID for one call of Refresh.
func (l *Leases) Record(ctx context.Context, id string) refreshing.Record {
	r := &record{Leases: l, id: id}
	if deadline, ok := ctx.Deadline(); ok {
		r.least = min(pollInterval, time.Until(deadline)/3)
	}
	return r
}

// Read implements refreshing.Record.
func (r *record) Read(ctx context.Context, newest bool) (refreshing.State, error) {
	switch {
	case !newest:
		r.view = r.Ledger.View(false)
	case r.view == nil:
		r.view = r.Ledger.View(true)
	default:
		r.view = r.view.Fresher() // a stale View cannot refuse a refresh
	}
	e, err := r.Find(ctx, r.view, r.id)
	if err != nil {
		return refreshing.State{}, err
	}
	r.entry = e
	s := state(e)
	s.Stale = !r.view.Current()
	return s, nil
}

func state(e ledger.Entry) refreshing.State {
	return refreshing.State{Fields: e.Token, Refusal: func(context.Context) *stored.Failure { return e.Failure }}
}

// late reports whether the caller's deadline is so near that it would stop mint
// halfway. If the server has replaced the refresh token by then, the token is lost.
func (r *record) late(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < r.least
}

// Take implements refreshing.Record.
func (r *record) Take(ctx context.Context) (refreshing.Right, error) {
	if other := r.other(); other != nil && (!r.lapsed(*other) || r.late(ctx)) {
		// A late call leaves a lapsed lease to the next call. It stores how long it has
		// watched the lease, so that the next call knows that the lease has lapsed.
		return nil, r.watch(ctx, *other)
	}
	if err := r.roomForRefresh(r.entry.Record); err != nil {
		if !r.view.Current() {
			err = refreshing.ErrStale
		}
		return nil, err
	}
	if r.late(ctx) {
		return nil, r.Ledger.Wait(ctx, pollInterval)
	}
	return r.take(ctx)
}

// other returns the lease that another process has on the record, as far as is known.
func (r *record) other() *stored.Lease {
	switch {
	case r.entry.Lease != nil:
		return r.entry.Lease
	case r.noted.on.Ref() != r.entry.Ref():
		return nil // the record has been deleted meanwhile, and created again
	}
	return r.noted.recent(r.TTL)
}

func (r *record) take(ctx context.Context) (refreshing.Right, error) {
	h := &held{record: r, turn: r.newTurn(ctx)}
	r.view = nil
	r.watched.giveUp(h.lease.ID) // until it is certain that this process uses the lease
	var err error
	h.entry, h.abandoned, err = r.place(r.entry).take(ctx, r.entry, h.lease)
	switch {
	case errors.Is(err, errNoted):
		return nil, nil
	case ledger.Retryable(err):
		return nil, refreshing.ErrLost
	case err != nil:
		return nil, err
	}
	r.watched.forget(h.lease.ID)
	return h, nil
}

// place returns the place of a lease on e. The lease on a record that may still move is
// kept in the record, and moves with it.
func (r *record) place(e ledger.Entry) place {
	if l, ok := r.Ledger.Driver.(driver.Leaser); ok && e.UserName != "" && e.Lease == nil {
		return inNote{r, l}
	}
	return inRecord{r}
}

// A turn is the time for which this process has a lease.
type turn struct {
	lease stored.Lease
	mint  time.Duration // how long after the beginning mint is stopped

	now         func() time.Time
	wall, ticks time.Time // the beginning, on the store's clock and on the monotonic clock
}

// newTurn begins a turn. The lease of a caller with a deadline ends at the deadline,
// because the process may end then. Other processes wait a margin longer, so that the
// result of mint can still be stored.
func (l *Leases) newTurn(ctx context.Context) turn {
	t := turn{now: l.Ledger.Now, wall: l.Ledger.Now(), ticks: time.Now(), mint: l.TTL - l.margin()}
	until, length := l.TTL, l.TTL
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline), 0)
		until, length = min(until, left), min(length, left+l.margin())
		t.mint = min(t.mint, left-min(callMargin, left/6))
	}
	t.lease = stored.Lease{ID: ledger.Nonce(), Until: t.wall.Add(until).UnixMilli(), For: length.Milliseconds() + 1}
	return t
}

// elapsed returns how long ago the turn began. A wall clock that is set back does not
// make a turn longer. Neither does a monotonic clock that stood still while the process
// was suspended.
func (t turn) elapsed() time.Duration { return max(t.now().Sub(t.wall), time.Since(t.ticks)) }

// A held lease is the right to mint.
type held struct {
	*record
	turn
	entry     ledger.Entry // the record under the lease
	abandoned bool         // another process had left its lease there
	begun     bool         // mint was called
	committed bool         // Commit was called, which gives the lease back
}

// Read implements refreshing.Right.
func (h *held) Read(context.Context) (refreshing.State, error) {
	s := state(h.entry)
	s.Abandoned = h.abandoned
	return s, nil
}

// Begin implements refreshing.Right.
func (h *held) Begin() time.Duration {
	left := h.mint - h.elapsed()
	h.begun = left > 0
	return left
}

// Left implements refreshing.Right.
func (h *held) Left() time.Duration { return max(h.TTL-h.elapsed(), h.TTL/6) }

// Commit implements refreshing.Right.
func (h *held) Commit(ctx context.Context, plan func(codec.Fields) rules.RefreshPlan) (codec.Fields, error) {
	if h.committed {
		now, err := h.Find(ctx, h.Ledger.View(true), h.id)
		switch {
		case errors.Is(err, driver.ErrNotFound):
			return codec.Fields{}, err
		case err == nil:
			h.entry = now
		}
	} else {
		h.committed = true
		h.rereadNote(ctx)
	}
	p := plan(h.entry.Token)
	if !p.Changed && !p.Again {
		h.giveBack(ctx, h.entry, h.lease, nil)
		return p.Fields, nil
	}
	e := without(h.entry, h.lease)
	if !p.Again {
		e.Failure = nil
	}
	stored, err := h.Ledger.WriterOf(h.lease.ID).Commit(ctx, h.Ledger.View(false), e, p.Fields, nil)
	if errors.Is(err, driver.ErrNotFound) {
		// The record may have moved: only another search shows whether it is gone.
		err = fmt.Errorf("%w: %v", driver.ErrConflict, err)
	}
	return stored, err
}

// rereadNote reads the note beside the record again if watchers may have changed it
// while mint ran.
func (h *held) rereadNote(ctx context.Context) {
	if h.entry.Secret().Note == "" || h.elapsed() < firstWord {
		return
	}
	if e, err := h.Ledger.Newest(ctx, h.entry.Name, h.entry); err == nil && e.Secret().Version == h.entry.Secret().Version {
		h.entry = h.entry.Over(e.Secret())
	}
}

// Release implements refreshing.Right.
func (h *held) Release(ctx context.Context, keep *stored.Failure) {
	if h.committed {
		return
	}
	if last := h.entry.Failure; keep != nil && last != nil && *keep == *last {
		keep = nil // the record has it
	}
	if h.begun {
		ctx, cancel := refreshing.Outlast(ctx, releaseTime, h.margin())
		h.rereadNote(ctx)
		cancel()
	}
	h.giveBack(ctx, h.entry, h.lease, keep)
}

// has reports whether the lease on e is the given one.
func has(e ledger.Entry, lease stored.Lease) bool {
	return e.Lease != nil && e.Lease.ID == lease.ID || hasNoted(e, lease)
}

func hasNoted(e ledger.Entry, lease stored.Lease) bool {
	noted := e.Noted()
	return noted != nil && noted.ID == lease.ID
}

// without returns e without the lease, to be written.
func without(e ledger.Entry, lease stored.Lease) ledger.Entry {
	if hasNoted(e, lease) {
		e = e.DropNote()
	}
	if e.Lease != nil && e.Lease.ID == lease.ID {
		e.Lease = nil
	}
	return e
}

// giveBack removes the lease from the record, and stores the refusal for waiters. If
// that takes longer than releaseTime after ctx is done, the lease is left to lapse.
func (r *record) giveBack(ctx context.Context, e ledger.Entry, lease stored.Lease, keep *stored.Failure) {
	r.watched.giveUp(lease.ID)
	ctx, cancel := refreshing.Outlast(ctx, releaseTime, r.margin())
	defer cancel()
	for n := range r.Ledger.Attempts {
		if e.Target() != nil || !has(e, lease) {
			return // only a process under its own lease gives it back and stores a refusal
		}
		err := r.giveBackOnce(ctx, e, lease, keep)
		if err == nil {
			r.watched.forget(lease.ID)
		}
		if err == nil || errors.Is(err, driver.ErrDenied) || errors.Is(err, driver.ErrRefused) || r.Ledger.Wait(ctx, ledger.Pause(n+1)) != nil {
			return
		}
		if e, err = r.Find(ctx, r.Ledger.View(true), r.id); err != nil {
			return
		}
	}
}

func (r *record) giveBackOnce(ctx context.Context, e ledger.Entry, lease stored.Lease, keep *stored.Failure) error {
	if keep == nil {
		return r.place(e).release(ctx, e, lease)
	}
	e = without(e, lease)
	e.Failure = keep
	_, err := r.Ledger.WriterOf(lease.ID).Update(ctx, e, e.Record)
	return err
}
