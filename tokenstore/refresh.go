package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

const pollInterval = 500 * time.Millisecond // the longest a waiter sleeps between reads

// Refresh implements Refresher.
//
// The right to call mint is a lease, won by compare-and-swap: in the record, or
// in a note beside it if the driver is a driver.Leaser. Of the goroutines of this
// Store that ask for the same record one takes part, and the others wait for it;
// each with its own context. Those of other processes read the record every half
// second at most.
//
// A process that dies with the lease holds the others up until they have watched
// it for as long as it lasts, which is LeaseTTL at most. A Store remembers what it
// has watched from one call to the next, and a caller whose deadline comes first
// leaves word in the record, so that calls of three seconds see the end of it too.
//
// The context of mint ends a sixth of LeaseTTL, at most five seconds, before the
// lease does. A caller with a deadline takes a lease that ends with the deadline,
// and the context of its mint ends a sixth of what is left, at most one second,
// before that. In the last half second before its deadline, or the last third of its
// time if that is less, Refresh does not call mint: a request that is broken off may
// lose a refresh token.
//
// A process that is frozen for longer, just after mint has looked at its
// context, may call the authorization server when another one has already done
// so: no store can rule that out.
//
// Where the service limits the writes of a day (driver.Properties.DailyWrites) a
// refresh takes two of them, one for the lease and one for the token. If the record
// has no room for both, Refresh fails with an error matching ErrUnavailable before
// mint is called. Once mint has returned a token, Refresh tries to store it whatever
// is left.
//
// A *RefreshError that mint returns is kept and given to all who ask until it is
// worth trying again: a permanent one until the refresh token, grant token or
// client secret changes, and a temporary one for RetryAfter. If RetryAfter is 0 that
// is a second, and twice as long each time it happens again, up to half an hour.
// Refusals of the client itself (codes that begin with "invalid_client", "unauthorized_client",
// "invalid_redirect_uri") are not kept, nor is any other error.
func (s *Store) Refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error) {
	t, err := s.refresh(ctx, id, stale, mint)
	var m mintError
	if errors.As(err, &m) {
		return t, &Error{Op: "refresh", Store: s.ledger.Properties.Name, ID: id, Err: m.error}
	}
	return t, s.error("refresh", id, err)
}

// mintError is what mint returned. It is not the store's, and gets no class.
type mintError struct{ error }

func (s *Store) refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error) {
	if err := s.begin(ctx); err != nil {
		return Token{}, err
	}
	if id == "" || mint == nil {
		return Token{}, fmt.Errorf("%w: Refresh needs an ID and a function", ErrInvalidToken)
	}
	if err := Validate(Token{ID: id}); err != nil {
		return Token{}, err
	}
	one := refresher{Store: s, id: id, stale: stale, mint: mint}
	return s.flights.Do(ctx, id, func() (Token, bool, error) {
		t, err := one.run(ctx)
		return t, ctx.Err() != nil && t.AccessToken == "", err
	}, func(t Token, err error) bool {
		// The leader's context is not ours, and neither is what it found stale.
		return err != nil || t.AccessToken != stale
	})
}

// A refresher is one Refresh of one process.
type refresher struct {
	*Store
	id    string
	stale Secret
	mint  func(context.Context, Token) (Token, error)

	noted    *codec.Lease  // another process's, in a note: reads do not tell it
	notedOn  ledger.Entry  // the entry with that note
	notedAt  time.Time     // when it was last seen there
	takeover bool          // the lease that is held was another process's, which has lapsed
	least    time.Duration // with less left before the deadline mint is not called
	worded   bool          // this call has left word of how long it has watched
}

// run returns the token as soon as there is a fresh one, whoever made it.
func (r *refresher) run(ctx context.Context) (Token, error) {
	if deadline, ok := ctx.Deadline(); ok {
		r.least = min(pollInterval, time.Until(deadline)/3)
	}
	reads := r.ledger.View(false)
	for beaten := 0; ; {
		rec, err := r.read(ctx, reads)
		if err != nil {
			return Token{}, err
		}
		if r.good(rec.Token) {
			return FromFields(rec.Token), nil
		}
		lease, err := r.blocked(ctx, rec)
		switch {
		case err != nil && !reads.Current():
			reads = reads.Fresher()
			continue
		case err != nil:
			return Token{}, err
		case lease != nil:
			if err := r.watchOn(ctx, rec, *lease); err != nil {
				return Token{}, err
			}
			reads, beaten = r.ledger.View(false), 0
			continue
		case r.late(ctx):
			if err := r.ledger.Wait(ctx, pollInterval); err != nil {
				return Token{}, err
			}
			reads = r.ledger.View(false)
			continue
		}
		t, err := r.hold(ctx, rec)
		if !ledger.Retryable(err) {
			return t, err
		}
		if beaten++; beaten == r.ledger.Attempts {
			return Token{}, fmt.Errorf("%w: in each of %d attempts", ErrConflict, beaten)
		}
		if r.noted == nil {
			if err := r.ledger.Wait(ctx, ledger.Pause(beaten+3)); err != nil {
				return Token{}, err
			}
		}
		reads = r.ledger.View(r.noted == nil)
	}
}

// read returns the record.
func (r *refresher) read(ctx context.Context, reads *ledger.View) (ledger.Entry, error) {
	rec, _, err := r.only(ctx, reads, codec.Fields{ID: r.id})
	return rec, err
}

func (r *refresher) good(f codec.Fields) bool { return rules.Fresh(f, string(r.stale), r.ledger.Now()) }

// blocked reports what keeps this process from taking the lease: another process's
// lease, or the error that says why mint is not called. One that has lapsed too late
// for this call is for the next one, which has to hear of it.
func (r *refresher) blocked(ctx context.Context, rec ledger.Entry) (*codec.Lease, error) {
	if err := r.refused(rec, r.ledger.Now()); err != nil {
		return nil, err
	}
	if lease := r.lease(rec); lease != nil && (!r.lapsed(*lease) || r.late(ctx)) {
		return lease, nil
	}
	return nil, r.roomForRefresh(rec.Record)
}

// late reports whether the deadline of the caller is so near that mint would be
// stopped in the middle: a refresh token that the server has replaced by then is lost.
func (r *refresher) late(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < r.least
}

// hold takes the lease, calls mint and commits what it returns. It fails with
// again if another process has the lease now.
func (r *refresher) hold(ctx context.Context, rec ledger.Entry) (Token, error) {
	turn := r.newTurn(ctx)
	rec, err := r.take(ctx, rec, turn.lease)
	if err != nil {
		return Token{}, err
	}
	if r.good(rec.Token) {
		// What was saved while the lease was taken is what was asked for.
		r.release(ctx, rec, turn.lease, nil)
		return FromFields(rec.Token), nil
	}
	left := turn.mint - turn.elapsed()
	if left <= 0 {
		r.release(ctx, rec, turn.lease, nil)
		return Token{}, ledger.Again(fmt.Errorf("%w: the lease has lapsed", ErrConflict))
	}
	minted, err := r.ask(ctx, rec, turn.lease, left)

	// What was won at the authorization server is stored though the caller has
	// gone: it may be the only copy of a new refresh token.
	left = max(r.o.LeaseTTL-turn.elapsed(), r.o.LeaseTTL/6)
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	rec = r.reworded(storeCtx, rec, turn)
	if err != nil {
		return Token{}, r.failed(ctx, rec, turn.lease, err)
	}
	return r.commit(storeCtx, rec, turn.lease, minted.Fields())
}

// ask calls mint, whose context ends after left. A mint that panics or ends its
// goroutine holds no process up.
func (r *refresher) ask(ctx context.Context, rec ledger.Entry, lease codec.Lease, left time.Duration) (minted Token, err error) {
	r.leases.forget(lease.ID)
	mintCtx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	returned := false
	defer func() {
		if !returned {
			r.release(ctx, rec, lease, nil)
		}
	}()
	minted, err = r.mint(mintCtx, FromFields(rec.Token))
	returned = true
	if err == nil {
		err = Validate(minted)
	}
	if err == nil && minted.AccessToken == "" {
		err = fmt.Errorf("%w: the answer has no access token", ErrInvalidToken)
	}
	return minted, err
}

// failed gives the lease back after mint has failed, and returns the error of the
// refresh.
func (r *refresher) failed(ctx context.Context, rec ledger.Entry, lease codec.Lease, err error) error {
	f := r.failure(rec, err)
	r.release(ctx, rec, lease, f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f != nil && r.takeover && !f.Permanent {
		// What is final for the server may be the former holder's success.
		err = &RefreshError{Code: f.Code, RetryAfter: time.UnixMilli(f.Retry).Sub(r.ledger.Now())}
	}
	return mintError{err}
}

// errReplaced means that the credentials which mint used are not the record's any
// more, and what it brought is not worth keeping.
var errReplaced = errors.New("the credentials were replaced meanwhile")

// commit stores what mint returned for the record used. It fails with again if
// the refresh has to begin again.
func (r *refresher) commit(ctx context.Context, used ledger.Entry, lease codec.Lease, minted codec.Fields) (Token, error) {
	usable := FromFields(rules.PlanRefresh(used.Token, used.Token, minted, string(r.stale), r.ledger.Now()).Fields)
	rec := used
	for n := 1; ; n++ {
		t, err := r.commitOnce(ctx, used, rec, lease, minted)
		switch {
		case err == nil:
			return t, nil
		case errors.Is(err, errReplaced):
			return Token{}, ledger.Again(err)
		case errors.Is(err, ErrDenied), errors.Is(err, ErrRefused), errors.Is(err, ErrTooLarge), r.ledger.Wait(ctx, ledger.Pause(n)) != nil:
			r.ledger.Logger.Error("tokenstore: a refreshed token was not stored", "id", r.id)
			if ctx.Err() != nil {
				// It is not the caller's context whose time is up.
				return usable, fmt.Errorf("%w: %w: %v", ErrNotPersisted, ErrUnavailable, err)
			}
			return usable, fmt.Errorf("%w: %w", ErrNotPersisted, err)
		}
		now, err := r.read(ctx, r.ledger.View(true))
		switch {
		case errors.Is(err, ErrNotFound):
			return usable, fmt.Errorf("%w: the record was deleted meanwhile: %w", ErrNotPersisted, err)
		case err == nil:
			rec = now
		}
	}
}

// commitOnce tries to store what mint returned over rec, which may have been
// changed since mint used it.
func (r *refresher) commitOnce(ctx context.Context, used, rec ledger.Entry, lease codec.Lease, minted codec.Fields) (Token, error) {
	plan := rules.PlanRefresh(used.Token, rec.Token, minted, string(r.stale), r.ledger.Now())
	if !plan.Changed && !plan.Again {
		r.release(ctx, rec, lease, nil)
		return FromFields(plan.Fields), nil
	}
	if noteHolds(rec, lease) {
		rec = rec.DropNote()
	}
	rec.Lease = unless(rec.Lease, lease)
	if !plan.Again {
		rec.Failure = nil
	}
	f, err := r.ledger.WriterOf(lease.ID).Commit(ctx, r.ledger.View(false), rec, plan.Fields, nil)
	if err == nil && plan.Again {
		return Token{}, errReplaced
	}
	return FromFields(f), err
}

// credentials returns a digest of what a refusal is about.
func (s *Store) credentials(f codec.Fields) string {
	return ledger.Digest(s.ledger.NameKeys[0], "credentials", f.ClientID, f.ClientSecret, f.RefreshToken, f.GrantToken)
}

// refused returns the refusal that the record keeps, if it still counts.
func (r *refresher) refused(rec ledger.Entry, now time.Time) error {
	a, ok := refusal.Counts(rec.Failure, r.credentials(rec.Token), now)
	if !ok {
		return nil
	}
	e := RefreshError(a)
	return &e
}

// failure returns what is kept of err, or nil if it is of no use to others.
func (r *refresher) failure(rec ledger.Entry, err error) *codec.Failure {
	var refused *RefreshError
	if !errors.As(err, &refused) {
		return nil
	}
	now := r.ledger.Now()
	f := refusal.Keep(rec.Failure, refusal.Answer(*refused), r.credentials(rec.Token), now)
	if f != nil && f.Permanent && r.takeover {
		// The former holder may have used up the credential, and be about to
		// commit what it got for it.
		f.Permanent, f.Retry = false, now.Add(r.o.LeaseTTL).UnixMilli()
	}
	return f
}
