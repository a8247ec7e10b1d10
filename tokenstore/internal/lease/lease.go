// Package lease grants the right to refresh a record in a secret manager to one process at a
// time.
//
// The right is a lease, which a process takes by compare-and-swap. The lease is in a note
// beside the record if the driver is a driver.Leaser and the record has a user. Otherwise,
// the lease is in the record. A waiter is a process that waits for the holder of a lease to
// store a token. A waiter takes over an abandoned lease once the waiters have watched the
// lease for its full length, or ledger.ClockSkew after the end of the lease.
package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const (
	pollInterval = 500 * time.Millisecond // how long a call waits if too little time is left to mint
	turnTime     = 100 * time.Millisecond // the longest random wait before the first attempt to take a lease in a note
	quietPolls   = 2                      // number of ordinary reads before another attempt to take a lease in a contended note
	mintMargin   = 5 * time.Second        // the longest time between the end of mint's context and the end of the lease
	callMargin   = time.Second            // the longest time between the end of mint's context and the caller's deadline
	releaseTime  = time.Second            // limit for releasing a lease after the caller's context is done
)

// Leases manages the leases on the records of one store.
type Leases struct {
	Ledger *ledger.Ledger
	TTL    time.Duration // how long a lease lasts

	// Find returns the record with the given ID, as read through v. The error matches
	// driver.ErrNotFound if no record has the ID.
	Find func(ctx context.Context, v *ledger.View, id string) (ledger.Entry, error)

	// Random returns a random duration in [0, most). Nil means rand.N. Tests replace Random.
	Random func(most time.Duration) time.Duration

	watched watched
}

func (l *Leases) random(most time.Duration) time.Duration {
	if l.Random != nil {
		return l.Random(most)
	}
	return rand.N(most)
}

// margin returns how long before the end of a lease the context of mint ends.
func (l *Leases) margin() time.Duration { return min(mintMargin, l.TTL/6) }

// A place stores the lease on a record.
type place interface {
	// take takes the lease on e. held is the record under the lease. abandoned reports whether the
	// new lease replaced a lapsed lease. If another process has written the record or holds a
	// lease, the error is ledger.Retryable, or matches errNoted or errContended.
	take(ctx context.Context, e ledger.Entry, lease stored.Lease) (held ledger.Entry, abandoned bool, err error)

	// extend stores the given lease, another process's lease on e, after the caller has changed
	// lease.Seen.
	extend(ctx context.Context, e ledger.Entry, lease stored.Lease) error

	// release removes the given lease from e.
	release(ctx context.Context, e ledger.Entry, lease stored.Lease) error
}

// A record implements refreshing.Record for one call of Refresh.
type record struct {
	*Leases
	id    string
	least time.Duration // the minimum time until the caller's deadline for a call of mint

	found *ledger.Entry // the record as an earlier call read it, for the first Read; else nil
	view  *ledger.View  // the View of the last Read; nil once Take has tried to write
	stale bool          // entry may be out of date
	entry ledger.Entry  // the result of the last Read
	noted noted         // another process's lease in a note
	told  bool          // leaveWord was called

	spread bool // awaitTurn has waited
	quiet  int  // number of further calls of Take that only wait
}

// Format prints only "*lease.record", so that package fmt does not print tokens.
func (r *record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*lease.record") }

// Record returns a refreshing.Record for the record with the given ID. The result serves one
// call of Refresh, whose context is ctx. The parameter found is the record as an earlier call read
// it, or nil. If found is not nil and the first Read asks for a recent state, that Read returns
// *found.
func (l *Leases) Record(ctx context.Context, id string, found *ledger.Entry) refreshing.Record {
	r := &record{Leases: l, id: id, found: found}
	if deadline, ok := ctx.Deadline(); ok {
		r.least = min(pollInterval, time.Until(deadline)/3)
	}
	return r
}

// Read implements refreshing.Record.
func (r *record) Read(ctx context.Context, newest bool) (refreshing.State, error) {
	e, err := r.read(ctx, newest)
	if err != nil {
		return refreshing.State{}, err
	}
	r.entry = e
	s := state(e)
	s.Stale = r.stale
	return s, nil
}

func (r *record) read(ctx context.Context, newest bool) (ledger.Entry, error) {
	found := r.found
	r.found = nil
	switch {
	case found != nil && !newest:
		// Another process may have written or deleted the record since. In that case, Take loses
		// its compare-and-swap. Because r.stale is set, a refusal is confirmed by a read of the
		// newest state.
		r.view, r.stale = r.Ledger.ViewOf(*found), true
		return *found, nil
	case !newest:
		r.view = r.Ledger.View(false)
	case r.view == nil:
		r.view = r.Ledger.View(true)
	default:
		r.view = r.view.Fresher() // a stale View must not cause a refusal
	}
	r.stale = !r.view.Current()
	return r.Find(ctx, r.view, r.id)
}

func state(e ledger.Entry) refreshing.State {
	return refreshing.State{
		Fields: e.Token, Written: e.WrittenAt(),
		Refusal: func(context.Context) *stored.Failure { return e.Failure },
	}
}

// late reports whether the caller's deadline is so near that the deadline might interrupt
// mint. If the authorization server has already replaced the refresh token, an interruption
// would lose the new refresh token.
func (r *record) late(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < r.least
}

// Take implements refreshing.Record.
func (r *record) Take(ctx context.Context) (refreshing.Right, error) {
	if other := r.other(); other != nil && (!r.lapsed(*other) || r.late(ctx)) {
		// A late call leaves a lapsed lease to the next call. watch stores how long the lease
		// was watched, so that the next call can tell that the lease has lapsed.
		return nil, r.watch(ctx, *other)
	}
	if r.quiet > 0 {
		r.quiet--
		if err := r.Ledger.Wait(ctx, r.nearly(firstPoll)); err != nil {
			return nil, err
		}
		return nil, refreshing.ErrLater
	}
	if err := r.roomForRefresh(r.entry.Record); err != nil {
		if r.stale {
			err = refreshing.ErrStale
		}
		return nil, err
	}
	if r.late(ctx) {
		return nil, r.Ledger.Wait(ctx, pollInterval)
	}
	if _, ok := r.place(r.entry).(inNote); ok {
		if err := r.awaitTurn(ctx); err != nil {
			return nil, err
		}
	}
	return r.take(ctx)
}

// awaitTurn waits for a random time before the first attempt to take a lease in a note.
// Ordinary reads do not show such a lease. Without this wait, all processes that find the
// token expired would compete for the lease at the same time, and use up the service's quota.
func (r *record) awaitTurn(ctx context.Context) error {
	if r.spread {
		return nil
	}
	r.spread = true
	return r.Ledger.Wait(ctx, r.random(turnTime))
}

// other returns the lease of another process on the record, or nil if r found no such lease.
func (r *record) other() *stored.Lease {
	switch {
	case r.entry.Lease != nil:
		return r.entry.Lease
	case r.noted.on.Ref() != r.entry.Ref():
		return nil // no lease was noted, or the record was deleted meanwhile and created again
	}
	return r.noted.recent(r.TTL)
}

func (r *record) take(ctx context.Context) (refreshing.Right, error) {
	h := &held{record: r, turn: r.newTurn(ctx), nonce: r.Ledger.NewNonce()}
	r.view = nil
	r.watched.giveUp(h.lease.ID) // an attempt that fails may still store the lease
	var err error
	h.entry, h.abandoned, err = r.place(r.entry).take(ctx, r.entry, h.lease)
	switch {
	case errors.Is(err, errNoted):
		return nil, r.watch(ctx, *r.noted.lease)
	case errors.Is(err, errContended):
		r.quiet = quietPolls
		return nil, refreshing.ErrContended
	case ledger.Retryable(err):
		return nil, refreshing.ErrLost
	case errors.Is(err, driver.ErrThrottled):
		r.quiet = quietPolls - 1 // package refreshing waits once after ErrThrottled
		return nil, err
	case err != nil:
		return nil, err
	}
	r.watched.forget(h.lease.ID)
	h.sweep(ctx)
	return h, nil
}

// place returns the place of the lease on e. The lease on a record without a user is in the
// record, because the record may move to a user's record, and the lease must move too. A
// lease that is already in a record stays in the record.
func (r *record) place(e ledger.Entry) place {
	if l := r.Ledger.Leaser; l != nil && e.UserName != "" && e.Lease == nil {
		return inNote{r, l}
	}
	return inRecord{r}
}

// A turn is the time during which this process holds a lease.
type turn struct {
	lease stored.Lease
	mint  time.Duration // time from the beginning to the end of mint's context

	now         func() time.Time
	wall, ticks time.Time // the beginning, by the store's clock and by the monotonic clock
}

// newTurn begins a turn. The lease of the turn ends at the deadline of ctx at the latest,
// because the process may end at that time. Other processes watch the lease for up to
// l.margin() longer, so that this process can still store the result of mint.
func (l *Leases) newTurn(ctx context.Context) turn {
	t := turn{now: l.Ledger.Now, wall: l.Ledger.Now(), ticks: time.Now(), mint: l.TTL - l.margin()}
	until, length := l.TTL, l.TTL
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline), 0)
		until, length = min(until, left), min(length, left+l.margin())
		t.mint = min(t.mint, left-min(callMargin, left/6))
	}
	t.lease = stored.Lease{ID: l.Ledger.NewNonce(), Until: t.wall.Add(until).UnixMilli(), For: length.Milliseconds() + 1}
	return t
}

// elapsed returns the time since the turn began: the longer of the times that the wall clock and
// the monotonic clock show. A wall clock may be set back, and a monotonic clock may stop while
// the process is suspended.
func (t turn) elapsed() time.Duration { return max(t.now().Sub(t.wall), time.Since(t.ticks)) }

// A held implements refreshing.Right with a lease that this process holds.
type held struct {
	*record
	turn
	entry     ledger.Entry  // the record under the lease
	abandoned bool          // the lease replaced a lapsed lease
	begun     bool          // mint was called
	stop      func()        // stops the sweep, and waits until it has ended
	nonce     string        // the nonce of the labels that Commit adds
	took      time.Duration // the time from the beginning of the turn to the first Commit
	committed bool          // Commit was called; Release has nothing to do
}

// sweep removes earlier states of the record in the background until h.stop is called. It
// removes nothing unless the lease is in a note and the driver is a driver.Sweeper.
func (h *held) sweep(ctx context.Context) {
	s := h.Ledger.Sweeper
	if s == nil || !hasNoted(h.entry, h.lease) {
		h.stop = func() {}
		return
	}
	var wait sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wait.Go(func() { s.Sweep(ctx, string(h.entry.Name), h.entry.Secret()) })
	h.stop = func() {
		cancel()
		wait.Wait()
	}
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
	h.stop()
	if h.committed {
		now, err := h.Find(ctx, h.Ledger.View(true), h.id)
		switch {
		case errors.Is(err, driver.ErrNotFound):
			return codec.Fields{}, err
		case err == nil:
			h.entry = now
		}
	} else {
		h.committed, h.took = true, min(h.elapsed(), h.TTL)
		h.rereadNote(ctx)
	}
	p := plan(h.entry.Token)
	if !p.Changed && !p.Again {
		h.giveBack(ctx, h.entry, h.lease, nil)
		return p.Fields, nil
	}
	e := without(h.entry, h.lease)
	if !p.Again {
		e.Failure, e.Took = nil, h.took.Milliseconds()
	}
	stored, err := h.Ledger.WriterOf(h.nonce).Commit(ctx, h.Ledger.View(false), e, p.Fields, nil)
	if errors.Is(err, driver.ErrNotFound) {
		// The record may have moved, so the next attempt searches for the record.
		err = fmt.Errorf("%w: %v", driver.ErrConflict, err)
	}
	if err != nil && !ledger.Retryable(err) {
		// This attempt may have been applied, and another writer may be removing the labels
		// of the attempt. Do not add labels with the same nonce again.
		h.nonce = h.Ledger.NewNonce()
	}
	return stored, err
}

// rereadNote reads the note beside the record again if waiters may have changed the note while
// mint ran.
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
	h.stop()
	if h.committed {
		return
	}
	if last := h.entry.Failure; keep != nil && last != nil && *keep == *last {
		keep = nil // the record already holds this refusal
	}
	if h.begun {
		ctx, cancel := refreshing.Outlast(ctx, releaseTime, h.margin())
		h.rereadNote(ctx)
		cancel()
	}
	h.giveBack(ctx, h.entry, h.lease, keep)
}

// has reports whether e is under the given lease, in the record or in a note.
func has(e ledger.Entry, lease stored.Lease) bool {
	return e.Lease != nil && e.Lease.ID == lease.ID || hasNoted(e, lease)
}

func hasNoted(e ledger.Entry, lease stored.Lease) bool {
	noted := e.Noted()
	return noted != nil && noted.ID == lease.ID
}

// without returns e without the given lease. A write over the result removes the lease.
func without(e ledger.Entry, lease stored.Lease) ledger.Entry {
	if hasNoted(e, lease) {
		e = e.DropNote()
	}
	if e.Lease != nil && e.Lease.ID == lease.ID {
		e.Lease = nil
	}
	return e
}

// giveBack removes the lease from the record. Unless keep is nil, giveBack also stores the refusal
// *keep for waiters. If giveBack cannot write within r.margin(), or within releaseTime after ctx is
// done, the lease remains until it lapses.
func (r *record) giveBack(ctx context.Context, e ledger.Entry, lease stored.Lease, keep *stored.Failure) {
	r.watched.giveUp(lease.ID)
	ctx, cancel := refreshing.Outlast(ctx, releaseTime, r.margin())
	defer cancel()
	for n := range r.Ledger.Attempts {
		if e.Target() != nil || !has(e, lease) {
			return // the record has moved, or is not under the lease
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
