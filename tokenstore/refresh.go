package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/flight"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refusal"
)

const (
	pollInterval = 500 * time.Millisecond // the longest a waiter sleeps between reads
	mintMargin   = 5 * time.Second        // how long before the deadline mint is stopped, at most
	clockSkew    = 5 * time.Minute        // past a deadline by this much, every clock agrees
	noteReads    = 3                      // how often in LeaseTTL a waiter looks at another process's note

	// Of the writes that a service takes in a day, in percent: from the one on a
	// refresh takes no lease, and from the other it stores nothing.
	unleased, unwritten = 60, 90
)

// Refresh implements Refresher.
//
// The right to call mint is a lease, won by compare-and-swap: in the record, or
// in a note beside it if the driver is a driver.Leaser. Of the goroutines of this
// Store that ask for the same record one takes part, and the others wait for it;
// each with its own context. Those of other processes read the record every half
// second at most.
//
// A process that dies with the lease holds the others up for LeaseTTL. mint's
// context ends a sixth of LeaseTTL, at most five seconds, before the lease does.
// A process that is frozen for longer, just after mint has looked at its
// context, may call the authorization server when another one has already done
// so: no store can rule that out.
//
// Where the service limits the writes of a day (driver.Properties.DailyWrites) a
// record that has used up 60 percent of them is refreshed without a lease, which
// saves one of two writes, so that processes may call mint at the same time; and
// one that has used up 90 percent is not written to: Refresh returns what mint
// brought with an error matching ErrNotPersisted.
//
// A *RefreshError that mint returns is kept and given to all who ask until it is
// worth trying again: a permanent one until the refresh token, grant token or
// client secret changes, a temporary one for RetryAfter, or for a second, and
// twice as long each time it happens again, up to half an hour. Refusals of the
// client itself (codes that begin with "invalid_client", "unauthorized_client",
// "invalid_redirect_uri") are not kept, nor is any other error.
func (s *Store) Refresh(ctx context.Context, id string, stale Secret, mint func(context.Context, Token) (Token, error)) (Token, error) {
	t, err := s.refresh(ctx, id, stale, mint)
	var m mintError
	if errors.As(err, &m) {
		return t, &Error{Op: "refresh", Store: s.properties.Name, ID: id, Err: m.error}
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
	for {
		f, leader := s.flights.Join(id)
		if leader {
			return s.lead(ctx, f, refresher{Store: s, id: id, stale: stale, mint: mint})
		}
		select {
		case <-ctx.Done():
			return Token{}, ctx.Err()
		case <-f.Landed:
		}
		// The leader's context is not ours, and neither is what it found stale.
		if !f.GaveUp && (f.Err != nil || f.Value.AccessToken != stale) {
			return f.Value, f.Err
		}
	}
}

// lead is a refresh that others of this process may be waiting for. They are told
// though mint panics.
func (s *Store) lead(ctx context.Context, f *flight.Flight[Token], r refresher) (t Token, err error) {
	gaveUp := true
	defer func() { s.flights.Land(r.id, f, t, err, gaveUp) }()
	t, err = r.run(ctx)
	gaveUp = ctx.Err() != nil && t.AccessToken == ""
	return t, err
}

// A refresher is one Refresh of one process.
type refresher struct {
	*Store
	id    string
	stale Secret
	mint  func(context.Context, Token) (Token, error)

	watched string    // the lease of another process
	since   time.Time // when it was first seen

	noted   *codec.Lease // another process's, in a note: reads do not tell it
	notedAt time.Time    // when it was last seen there

	abandoned string // a lease of one's own that was won, and not used
	unleased  bool   // the record has no room for a lease today
	takeover  bool   // the lease that is held was another process's, which has lapsed
}

// run returns the token as soon as there is a fresh one, whoever made it.
func (r *refresher) run(ctx context.Context) (Token, error) {
	reads := r.reader(false)
	for beaten := 0; ; {
		rec, err := r.read(ctx, reads)
		if err != nil {
			return Token{}, err
		}
		now := r.o.Now()
		if r.good(rec.current, now) {
			return rec.current, nil
		}
		if err := r.refused(rec, now); err != nil {
			if !reads.fresh && r.properties.ReadLag > 0 {
				reads = reads.fresher()
				continue
			}
			return Token{}, err
		}
		if lease := r.lease(rec, now); lease != nil && !r.lapsed(*lease, now) {
			if err := r.wait(ctx, rand.N(pollInterval/2)+pollInterval/2); err != nil {
				return Token{}, err
			}
			reads, beaten = r.reader(false), 0
			continue
		}
		t, err := r.hold(ctx, rec)
		var a again
		if !errors.As(err, &a) {
			return t, err
		}
		if beaten++; beaten == r.o.Attempts {
			return Token{}, fmt.Errorf("%w: in each of %d attempts", ErrConflict, beaten)
		}
		if r.noted == nil {
			if err := r.wait(ctx, pause(beaten+3)); err != nil {
				return Token{}, err
			}
		}
		reads = r.reader(r.noted == nil)
	}
}

// read returns the record.
func (r *refresher) read(ctx context.Context, reads *reader) (record, error) {
	rec, _, err := r.only(ctx, reads, Token{ID: r.id})
	return rec, err
}

// good reports whether t has an access token other than the stale one that has
// not expired, as far as is known.
func (r *refresher) good(t Token, now time.Time) bool {
	return t.AccessToken != "" && t.AccessToken != r.stale && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// lapsed reports whether the lease of another process can be taken over: it was
// watched for LeaseTTL on this process's clock, or is so old that no clock can be
// that wrong.
func (r *refresher) lapsed(lease codec.Lease, now time.Time) bool {
	if r.watched != lease.ID {
		r.watched, r.since = lease.ID, now
	}
	return lease.ID == r.abandoned || now.Sub(r.since) >= r.o.LeaseTTL || now.Sub(time.UnixMilli(lease.Until)) >= clockSkew
}

// lease returns the lease that another process has on the record, as far as is
// known.
func (r *refresher) lease(rec record, now time.Time) *codec.Lease {
	switch {
	case rec.record.Lease != nil:
		return rec.record.Lease
	case r.noted != nil && now.Sub(r.notedAt) < r.o.LeaseTTL/noteReads:
		return r.noted
	}
	return nil
}

// leaser returns the driver if the lease on the record belongs in a note. That
// of a record which may still move is kept in the record, to move with it.
func (r *refresher) leaser(rec record) (driver.Leaser, bool) {
	if rec.record.UserName == "" {
		return nil, false
	}
	l, ok := r.driver.(driver.Leaser)
	return l, ok
}

// A lease in a note is its ID and its end.
func leaseNote(l codec.Lease) string { return l.ID + "." + strconv.FormatInt(l.Until, 10) }

// noteLease returns the lease in a note, or nil if there is none. One that is not
// of this form has lapsed.
func noteLease(note string) *codec.Lease {
	if note == "" {
		return nil
	}
	id, until, _ := strings.Cut(note, ".")
	l := codec.Lease{ID: id}
	l.Until, _ = strconv.ParseInt(until, 10, 64)
	return &l
}

// take takes the lease and returns the record as it is then. It fails with again
// if another process has written to the record, or has the lease.
func (r *refresher) take(ctx context.Context, rec record, lease codec.Lease) (record, error) {
	r.abandoned = lease.ID // until it is certain that it is used
	r.takeover = rec.record.Lease != nil
	if l, ok := r.leaser(rec); ok && rec.record.Lease == nil {
		return r.note(ctx, l, rec, lease)
	}
	if r.unleased = r.busy(rec.record, unleased); r.unleased {
		return r.current(ctx, rec)
	}
	next := rec.record
	next.Lease = &lease
	held, err := r.write(ctx, rec.name, rec.entry, next, lease.ID)
	if err != nil {
		return record{}, lost(err)
	}
	// If the answer to the write was lost, others may have written since: what is
	// held is what is there now.
	seen := r.reader(false)
	for _, e := range append([]entry{held}, rec.pending...) {
		_, _ = seen.note(e.name, e, nil)
	}
	now, err := seen.resolve(ctx, held)
	if err != nil {
		r.release(ctx, record{entry: held}, lease, nil)
		return record{}, lost(err)
	}
	if !holds(now, lease) {
		return record{}, again{errLeaseLost}
	}
	return now, nil
}

// current returns rec if it is the newest state. With a lease the write proves
// that; without one nothing else does, and mint would be called with credentials
// that were replaced.
func (r *refresher) current(ctx context.Context, rec record) (record, error) {
	if r.properties.ReadLag == 0 {
		return rec, nil
	}
	e, err := r.fresh(ctx, rec.name, rec.entry)
	if err != nil {
		return record{}, lost(err)
	}
	if e.secret.Version != rec.secret.Version {
		return record{}, again{fmt.Errorf("%w: %q", ErrConflict, rec.name)}
	}
	return rec, nil
}

var errLeaseLost = fmt.Errorf("%w: another process has the lease", ErrConflict)

// note takes a lease that is a note beside the record.
func (r *refresher) note(ctx context.Context, l driver.Leaser, rec record, lease codec.Lease) (record, error) {
	e, err := r.fresh(ctx, rec.name, rec.entry)
	if err != nil {
		return record{}, lost(err)
	}
	if e.secret.Version != rec.secret.Version {
		r.noted = nil
		return record{}, again{fmt.Errorf("%w: %q", ErrConflict, rec.name)}
	}
	now := r.o.Now()
	if other := noteLease(e.secret.Note); other != nil && !r.lapsed(*other, now) {
		r.noted, r.notedAt = other, now
		return record{}, again{errLeaseLost}
	}
	r.noted = nil
	rec.entry = e
	mine := leaseNote(lease)
	err = l.Note(ctx, rec.name, e.secret, mine)
	if err != nil && !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) && !errors.Is(err, driver.ErrDenied) && !errors.Is(err, driver.ErrRefused) {
		// The outcome is unknown.
		seen, readErr := r.fresh(ctx, rec.name, e)
		if readErr != nil || seen.secret.Note != mine || seen.secret.Version != e.secret.Version {
			return record{}, err
		}
		rec.entry, err = seen, nil
	}
	if err != nil {
		return record{}, lost(err)
	}
	rec.secret.Note = mine
	r.takeover = e.secret.Note != ""
	return rec, nil
}

// hold takes the lease, calls mint and commits what it returns. It fails with
// again if another process has the lease now.
func (r *refresher) hold(ctx context.Context, rec record) (Token, error) {
	begun := r.o.Now()
	lease := codec.Lease{ID: nonce(), Until: begun.Add(r.o.LeaseTTL).UnixMilli()}
	rec, err := r.take(ctx, rec, lease)
	if err != nil {
		return Token{}, err
	}
	now := r.o.Now()
	if r.good(rec.current, now) {
		// What was saved while the lease was taken is what was asked for.
		r.release(ctx, rec, lease, nil)
		return rec.current, nil
	}
	left := r.o.LeaseTTL - min(mintMargin, r.o.LeaseTTL/6) - now.Sub(begun)
	if left <= 0 {
		r.release(ctx, rec, lease, nil)
		return Token{}, again{fmt.Errorf("%w: the lease has lapsed", ErrConflict)}
	}
	r.abandoned = ""
	mintCtx, cancel := context.WithTimeout(ctx, left)
	defer func() {
		// A mint that panics holds nobody up.
		if p := recover(); p != nil {
			r.release(context.WithoutCancel(mintCtx), rec, lease, nil)
			panic(p)
		}
	}()
	minted, err := r.mint(mintCtx, rec.current)
	cancel()
	if err == nil {
		if err = Validate(minted); err == nil && minted.AccessToken == "" {
			err = fmt.Errorf("%w: the answer has no access token", ErrInvalidToken)
		}
	}

	// What was won at the authorization server is stored though the caller has
	// gone: it may be the only copy of a new refresh token.
	left = max(r.o.LeaseTTL-r.o.Now().Sub(begun), r.o.LeaseTTL/6)
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	if err != nil {
		f := r.failure(rec, err)
		r.release(storeCtx, rec, lease, f)
		if ctx.Err() != nil {
			return Token{}, ctx.Err()
		}
		if f != nil && r.takeover && !f.Permanent {
			// What is final for the server may be the former holder's success.
			err = &RefreshError{Code: f.Code, RetryAfter: time.UnixMilli(f.Retry).Sub(r.o.Now())}
		}
		return Token{}, mintError{err}
	}
	return r.commit(storeCtx, rec, lease, normal(minted))
}

// errReplaced means that the credentials which mint used are not the record's any
// more, and what it brought is not worth keeping.
var errReplaced = errors.New("the credentials were replaced meanwhile")

// commit stores what mint returned for the record used. It fails with again if
// the refresh has to begin anew.
func (r *refresher) commit(ctx context.Context, used record, lease codec.Lease, minted Token) (Token, error) {
	minted.ID, minted.UserName, minted.ClientID = "", "", ""
	usable := Merge(used.current, minted)
	if r.busy(used.record, unwritten) {
		return usable, fmt.Errorf("%w: the service takes no more of the record today", ErrNotPersisted)
	}
	rec := used
	for n := 1; ; n++ {
		t, err := r.commitOnce(ctx, used, rec, lease, minted)
		switch {
		case err == nil:
			return t, nil
		case errors.Is(err, errReplaced):
			return Token{}, again{err}
		case errors.Is(err, ErrDenied), errors.Is(err, ErrRefused), errors.Is(err, ErrTooLarge), r.wait(ctx, pause(n)) != nil:
			r.o.Logger.Error("tokenstore: a refreshed token was not stored", "id", r.id)
			if ctx.Err() != nil {
				// It is not the caller's context whose time is up.
				return usable, fmt.Errorf("%w: %w: %v", ErrNotPersisted, ErrUnavailable, err)
			}
			return usable, fmt.Errorf("%w: %w", ErrNotPersisted, err)
		}
		now, err := r.read(ctx, r.reader(true))
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
func (r *refresher) commitOnce(ctx context.Context, used, rec record, lease codec.Lease, minted Token) (Token, error) {
	there := stillThere(used.current, rec.current)
	if !there || !better(minted, used.current, rec.current) {
		if r.good(rec.current, r.o.Now()) {
			return rec.current, nil
		}
	}
	next := rec.current
	if there {
		next = Merge(rec.current, minted)
	}
	rec.drop = leaseNote(lease)
	rec.record.Lease = unless(rec.record.Lease, lease)
	if there {
		rec.record.Failure = nil
	}
	v := saver{Store: r.Store, nonce: lease.ID}
	t, err := v.commit(ctx, r.reader(false), rec, next, nil)
	if err == nil && !there {
		return Token{}, errReplaced
	}
	return t, err
}

// better reports whether minted, got with the credentials of used, is worth
// storing over now.
func better(minted, used, now Token) bool {
	return now.AccessToken == used.AccessToken ||
		minted.RefreshToken != "" && minted.RefreshToken != used.RefreshToken ||
		minted.ExpiresAt.After(now.ExpiresAt)
}

// stillThere reports whether the credential that a refresh of used needs is
// still the one of now.
func stillThere(used, now Token) bool {
	if used.RefreshToken != "" {
		return used.RefreshToken == now.RefreshToken
	}
	return used.GrantToken == now.GrantToken && now.RefreshToken == ""
}

// credentials returns a digest of what a refusal is about.
func (s *Store) credentials(t Token) string {
	return digest(s.o.NameKey, "credentials", t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.GrantToken))
}

// refused returns the refusal that the record keeps, if it still counts.
func (r *refresher) refused(rec record, now time.Time) error {
	a, ok := refusal.Counts(rec.record.Failure, r.credentials(rec.current), now)
	if !ok {
		return nil
	}
	e := RefreshError(a)
	return &e
}

// failure returns what is kept of err, or nil if it is of no use to others.
func (r *refresher) failure(rec record, err error) *codec.Failure {
	var refused *RefreshError
	if !errors.As(err, &refused) {
		return nil
	}
	now := r.o.Now()
	f := refusal.Keep(rec.record.Failure, refusal.Answer(*refused), r.credentials(rec.current), now)
	if f != nil && f.Permanent && r.takeover {
		// The former holder may have used up the credential, and be about to
		// commit what it got for it.
		f.Permanent, f.Retry = false, now.Add(r.o.LeaseTTL).UnixMilli()
	}
	return f
}

// holds reports whether the lease on the record is this one.
func holds(rec record, lease codec.Lease) bool {
	return rec.record.Lease != nil && rec.record.Lease.ID == lease.ID || rec.secret.Note == leaseNote(lease)
}

// unless returns l, or nil if it is lease.
func unless(l *codec.Lease, lease codec.Lease) *codec.Lease {
	if l != nil && l.ID == lease.ID {
		return nil
	}
	return l
}

// release gives the lease back, and leaves word of the failure for those who
// wait. It is done under one's own lease only; if it cannot be done the lease
// lapses by itself.
func (r *refresher) release(ctx context.Context, rec record, lease codec.Lease, f *codec.Failure) {
	for n := range r.o.Attempts {
		keeps := n == 0 && r.unleased && f != nil
		if rec.target() != nil || !holds(rec, lease) && !keeps {
			return
		}
		err := r.releaseOnce(ctx, rec, lease, f)
		if err == nil || errors.Is(err, ErrDenied) || errors.Is(err, ErrRefused) || r.wait(ctx, pause(n+1)) != nil {
			return
		}
		if rec, err = r.read(ctx, r.reader(true)); err != nil {
			return
		}
	}
}

func (r *refresher) releaseOnce(ctx context.Context, rec record, lease codec.Lease, f *codec.Failure) error {
	if l, ok := r.driver.(driver.Leaser); ok && f == nil && rec.record.Lease == nil {
		return l.Note(ctx, rec.name, rec.secret, "")
	}
	rec.drop = leaseNote(lease)
	next := rec.record
	next.Lease = unless(next.Lease, lease)
	if f != nil {
		next.Failure = f
	}
	_, err := r.write(ctx, rec.name, rec.entry, next, lease.ID)
	return err
}
