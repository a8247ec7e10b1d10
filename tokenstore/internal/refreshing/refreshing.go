// Package refreshing is the Refresh of the stores that lock a record for it: one
// caller at a time asks for a new access token, in all processes.
//
// It knows what is done in which order, what is kept of a refusal, and when what
// mint has brought is stored over a record that was changed meanwhile. Where the
// record is and what locks it is the store's affair.
package refreshing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/flight"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/backoff"
)

const (
	defaultLeaseTTL    = 30 * time.Second
	minLeaseTTL        = time.Second
	defaultLockTimeout = time.Minute

	keepTime = time.Second // for keeping a refusal once the caller's context is done
)

// attempts is how often a refresh begins anew because the credentials that it
// used were replaced.
const attempts = 10

// Pauses of one who waits for another process's refresh, and between attempts to
// store a result.
const (
	firstPoll   = 500 * time.Microsecond
	lastPoll    = 50 * time.Millisecond
	firstCommit = 10 * time.Millisecond
	lastCommit  = time.Second
)

// A Mint asks the authorization server.
type Mint = func(context.Context, tokenstore.Token) (tokenstore.Token, error)

// A Record is the record with one ID, as one call of Refresh sees it.
type Record interface {
	// Look returns the record. It is called again and again while another process
	// refreshes it.
	Look(ctx context.Context) (tokenstore.Token, error)

	// TryLock takes the right to refresh the record. It returns nil if that is
	// another's.
	TryLock(ctx context.Context) (Lock, error)
}

// A Lock is the right to refresh a record.
type Lock interface {
	// Look returns the record as it is now.
	Look(ctx context.Context) (tokenstore.Token, error)

	// Refusal returns what was kept of the last refusal, or nil.
	Refusal(ctx context.Context) *codec.Failure

	// Keep keeps a refusal.
	Keep(ctx context.Context, f *codec.Failure) error

	// Update changes the record: change is called with it as it is, under the
	// store's own lock, and returns what it shall be.
	Update(ctx context.Context, change func(now tokenstore.Token) (tokenstore.Token, error)) error

	// Release gives the right back. What was kept of a refusal is forgotten unless
	// keep is set.
	Release(keep bool)
}

// A Refresher is the refreshes of one store.
type Refresher struct {
	LeaseTTL    time.Duration // how long mint may take
	LockTimeout time.Duration // how long a write waits for others
	Now         func() time.Time
	Logger      *slog.Logger

	store   string
	flights flight.Group[tokenstore.Token]
}

// New returns the Refresher of a store, which is of the kind that is named, with
// defaults in place of zero values. It checks the others.
func New(store string, leaseTTL, lockTimeout time.Duration, now func() time.Time, logger *slog.Logger) (*Refresher, error) {
	r := &Refresher{
		LeaseTTL:    cmp.Or(leaseTTL, defaultLeaseTTL),
		LockTimeout: cmp.Or(lockTimeout, defaultLockTimeout),
		Now:         now,
		Logger:      logger,
		store:       store,
	}
	switch {
	case r.LeaseTTL < minLeaseTTL:
		return nil, fmt.Errorf("%s: LeaseTTL is %v, the least is %v", store, leaseTTL, minLeaseTTL)
	case r.LockTimeout < 0:
		return nil, fmt.Errorf("%s: LockTimeout is %v", store, lockTimeout)
	}
	if now == nil {
		r.Now = time.Now
	}
	if logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	return r, nil
}

// Refresh is what tokenstore.Refresher says, for the record with the ID.
func (r *Refresher) Refresh(ctx context.Context, id string, record Record, stale tokenstore.Secret, mint Mint) (tokenstore.Token, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Token{}, err
	}
	if id == "" || mint == nil {
		return tokenstore.Token{}, fmt.Errorf("%w: Refresh needs an ID and a function", tokenstore.ErrInvalidToken)
	}
	if err := tokenstore.Validate(tokenstore.Token{ID: id}); err != nil {
		return tokenstore.Token{}, err
	}
	one := refresh{Refresher: r, Record: record, id: id, stale: stale, mint: mint}
	return r.flights.Do(ctx, id, func() (tokenstore.Token, bool, error) {
		t, err := one.run(ctx)
		return t, ctx.Err() != nil && t.AccessToken == "", err
	}, func(t tokenstore.Token, err error) bool {
		// The leader's context is not ours, and neither is what it found stale.
		return err != nil || t.AccessToken != stale
	})
}

// A refresh is one Refresh of one process.
type refresh struct {
	*Refresher
	Record
	id    string
	stale tokenstore.Secret
	mint  Mint
}

// errReplaced means that the credentials which mint used are not the record's any
// more, and what it brought is not worth keeping.
var errReplaced = errors.New("the credentials were replaced meanwhile")

// run returns the token as soon as there is a fresh one, whoever made it.
func (r *refresh) run(ctx context.Context) (tokenstore.Token, error) {
	for range attempts {
		t, err := r.once(ctx)
		if !errors.Is(err, errReplaced) {
			return t, err
		}
	}
	return tokenstore.Token{}, fmt.Errorf("%w: %w", tokenstore.ErrConflict, errReplaced)
}

// once returns a fresh token, or fails with errReplaced if it has to be tried
// again.
func (r *refresh) once(ctx context.Context) (tokenstore.Token, error) {
	lock, t, err := r.acquire(ctx)
	if lock == nil {
		return t, err
	}
	keep := false // whether a refusal is of use to others
	defer func() { lock.Release(keep) }()
	// Others may have been here while this one waited.
	current, err := lock.Look(ctx)
	if err != nil || r.good(current) {
		return current, err
	}
	last := lock.Refusal(ctx)
	if err := refused(last, current, r.Now()); err != nil {
		keep = true
		return tokenstore.Token{}, err
	}

	minted, err := r.ask(ctx, current)
	if err != nil {
		keep = last != nil
		if refused := kept(last, current, err, r.Now()); refused != nil {
			keep = true
			if err := r.keep(ctx, lock, refused); err != nil {
				r.Logger.WarnContext(ctx, r.store+": a refusal could not be kept", "id", r.id)
			}
		}
		if ctx.Err() != nil {
			return tokenstore.Token{}, ctx.Err()
		}
		// It is not the store's, and gets no class.
		return tokenstore.Token{}, &tokenstore.Error{Op: "refresh", Store: r.store, ID: r.id, Err: err}
	}
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.LeaseTTL)
	defer cancel()
	return r.commit(storeCtx, lock, current, minted)
}

// keep keeps a refusal. It does not hold up a caller whose context is done.
func (r *refresh) keep(ctx context.Context, lock Lock, refused *codec.Failure) error {
	ctx, cancel := backoff.Outlast(ctx, keepTime, r.LockTimeout)
	defer cancel()
	return lock.Keep(ctx, refused)
}

// ask calls mint for the record.
func (r *refresh) ask(ctx context.Context, current tokenstore.Token) (tokenstore.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, r.LeaseTTL)
	defer cancel()
	minted, err := r.mint(ctx, current)
	if err != nil {
		return tokenstore.Token{}, err
	}
	if err := tokenstore.Validate(minted); err != nil {
		return tokenstore.Token{}, err
	}
	if minted.AccessToken == "" {
		return tokenstore.Token{}, fmt.Errorf("%w: the answer has no access token", tokenstore.ErrInvalidToken)
	}
	return minted, nil
}

// acquire takes the right to refresh the record. It returns no lock, but the
// token, if there is a fresh one meanwhile.
func (r *refresh) acquire(ctx context.Context) (Lock, tokenstore.Token, error) {
	t, err := r.Look(ctx)
	if err != nil || r.good(t) {
		return nil, t, err
	}
	patience := r.LeaseTTL + r.LockTimeout
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	poll := backoff.Sequence{Pause: firstPoll, Longest: lastPoll}
	for {
		lock, err := r.TryLock(ctx)
		if lock != nil || err != nil {
			return lock, tokenstore.Token{}, err
		}
		if err := backoff.Sleep(waiting, poll.Next()); err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("%w: another process has been refreshing it for %v", tokenstore.ErrUnavailable, patience)
			}
			return nil, tokenstore.Token{}, err
		}
		// The result is there before the lock is free.
		if t, err = r.Look(ctx); err != nil || r.good(t) {
			return nil, t, err
		}
	}
}

func (r *refresh) good(t tokenstore.Token) bool { return tokenstore.Fresh(t, r.stale, r.Now()) }

// commit stores what mint returned for the record used.
func (r *refresh) commit(ctx context.Context, lock Lock, used, minted tokenstore.Token) (tokenstore.Token, error) {
	usable := tokenstore.PlanRefresh(used, used, minted, r.stale, r.Now()).Token
	poll := backoff.Sequence{Pause: firstCommit, Longest: lastCommit}
	for {
		t, err := r.commitOnce(ctx, lock, used, minted)
		switch {
		case err == nil, errors.Is(err, errReplaced):
			return t, err
		case errors.Is(err, tokenstore.ErrNotFound):
			return usable, fmt.Errorf("%w: the record was deleted meanwhile: %w", tokenstore.ErrNotPersisted, err)
		case errors.Is(err, tokenstore.ErrUnavailable), errors.Is(err, tokenstore.ErrConflict), errors.Is(err, tokenstore.ErrCorrupt):
			// The record could be read when mint was called: if it is corrupt now,
			// an SDK is probably in the middle of writing it.
			if backoff.Sleep(ctx, poll.Next()) == nil {
				continue
			}
		}
		r.Logger.ErrorContext(ctx, r.store+": a refreshed token was not stored", "id", r.id)
		if ctx.Err() != nil {
			// It is not the caller's context whose time is up.
			return usable, fmt.Errorf("%w: %w: %v", tokenstore.ErrNotPersisted, tokenstore.ErrUnavailable, err)
		}
		return usable, fmt.Errorf("%w: %w", tokenstore.ErrNotPersisted, err)
	}
}

// commitOnce tries to store what mint returned for the record used, which may
// have been changed since mint used it.
func (r *refresh) commitOnce(ctx context.Context, lock Lock, used, minted tokenstore.Token) (t tokenstore.Token, err error) {
	err = lock.Update(ctx, func(now tokenstore.Token) (tokenstore.Token, error) {
		plan := tokenstore.PlanRefresh(used, now, minted, r.stale, r.Now())
		if plan.Again {
			return now, errReplaced
		}
		t = plan.Token
		return t, nil
	})
	return t, err
}
