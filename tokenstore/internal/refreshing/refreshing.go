// Package refreshing refreshes a record once for many callers. If several goroutines and
// processes find that the access token of the record has expired, only one of them asks the
// authorization server. All of them get the result.
//
// A refusal is an error response of the authorization server. The package defines the order
// of the steps, the refusals that are stored, and the result for a record that changes during
// a refresh. Implementations of Record define where a record is stored, and which process may
// call mint.
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
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// ErrNotPersisted means that the authorization server issued a token that was not stored.
var ErrNotPersisted = errors.New("token is usable but was not stored")

// A Mint asks the authorization server for a new access token. If the authorization server
// refuses the request, the error may wrap a refusal.Answer.
type Mint = func(context.Context, codec.Fields) (codec.Fields, error)

// MintOf converts mint, a function on tokens of type T, to a Mint. It returns nil if mint is
// nil. The functions token and fields convert between T and codec.Fields.
func MintOf[T any](mint func(context.Context, T) (T, error), token func(codec.Fields) T, fields func(T) codec.Fields) Mint {
	if mint == nil {
		return nil
	}
	return func(ctx context.Context, f codec.Fields) (codec.Fields, error) {
		t, err := mint(ctx, token(f))
		return fields(t), err
	}
}

// A MintError holds an error that a Mint returned. A MintError has no method Unwrap, so that
// it does not match an error class of the store.
type MintError struct{ Err error }

// Error returns the text of Err.
func (e MintError) Error() string { return e.Err.Error() }

// Errors from Take after which a refresh tries again.
var (
	// ErrStale means that Take would refuse the refresh because of a state that may be out of
	// date. The refresh then reads the newest state and tries again.
	ErrStale = errors.New("the state of the record may be out of date")

	// ErrLost means that another process has changed the record since the last Read, or that
	// the right has lapsed.
	ErrLost = errors.New("another process has changed the record")

	// ErrContended means that another process may have taken the right at the same time.
	ErrContended = errors.New("another process wanted the right to mint at the same time")

	// ErrLater means that Take has waited without trying to take the right.
	ErrLater = errors.New("the right to mint is tried for later")

	errHeld = errors.New("another process has the right to mint")
)

// A throttledError is an error from Take that matches driver.ErrThrottled.
type throttledError struct{ error }

func (e throttledError) Unwrap() error { return e.error }

// A State is a record as it was read.
type State struct {
	codec.Fields

	// Refusal returns the last stored refusal, or nil. If the field Refusal is nil, no refusal
	// is stored.
	Refusal func(context.Context) *stored.Failure

	// Stale is set if a read of the newest state may return another state.
	Stale bool

	// Abandoned is set if the right to mint was taken over from a process that did not
	// release the right.
	Abandoned bool

	// Written is when the state was stored, by the clock of the process that stored it, or
	// the zero Time if the time is unknown.
	Written time.Time
}

// A Record gives one call of Refresh access to the record that it refreshes.
type Record interface {
	// Read returns the newest state of the record if newest is set, else a recent state.
	Read(ctx context.Context, newest bool) (State, error)

	// Take takes the right to call mint for the record that Read returned last. If another
	// process has the right, Take waits for a moment and returns a nil Right without an error.
	// After ErrStale or a repeated ErrLost, the refresh continues with the newest state of the
	// record. After ErrContended, ErrLater or a first ErrLost, the refresh continues with a
	// recent state.
	Take(ctx context.Context) (Right, error)
}

// A Right is the right to call mint, which one process holds at a time.
type Right interface {
	// Read returns the record as it was when the right was taken.
	Read(ctx context.Context) (State, error)

	// Begin is called just before mint. It returns how long mint may run. If the right has
	// lapsed, the result is not positive.
	Begin() time.Duration

	// Left returns how long attempts to store the result may take.
	Left() time.Duration

	// Commit calls the function plan with the current state of the record. Unless Again is set
	// in the plan, Commit stores the fields of the plan and returns the fields as stored. Commit
	// may be called again after an error.
	Commit(ctx context.Context, plan func(now codec.Fields) rules.RefreshPlan) (codec.Fields, error)

	// Release releases the right, unless Commit has released the right. Release also stores the
	// refusal *keep for other callers, unless keep is nil or Read returned the same refusal.
	Release(ctx context.Context, keep *stored.Failure)
}

// An Engine runs the refreshes of one store. All exported fields must be set, except Patience,
// Observer and Backend. Refresh is safe for concurrent use.
type Engine struct {
	Store    string        // the kind of store, for the log
	Attempts int           // maximum number of attempts at a refresh that loses to other processes
	Grace    time.Duration // how long a permanent refusal counts if the right was taken over
	Patience time.Duration // how long a refresh repeats calls that the service throttles

	Digest func(parts ...string) string // returns a digest of credentials
	Now    func() time.Time
	Wait   func(context.Context, time.Duration) error
	Logger *slog.Logger

	Observer *observe.Observer
	Backend  string // the kind of store, for the Observer

	flights flight.Group[codec.Fields]
}

// Refresh returns the record with the given ID once the record has a fresh access token. The access
// token in the parameter stale does not count as fresh. See tokenstore.Refresher for the errors.
func (e *Engine) Refresh(ctx context.Context, id, stale string, r Record, mint Mint) (codec.Fields, error) {
	if err := ctx.Err(); err != nil {
		return codec.Fields{}, err
	}
	if id == "" || mint == nil {
		return codec.Fields{}, fmt.Errorf("%w: Refresh needs an ID and a function", rules.ErrInvalidToken)
	}
	if err := rules.Validate(codec.Fields{ID: id}); err != nil {
		return codec.Fields{}, err
	}
	c := call{Engine: e, record: r, id: id, stale: stale, mint: mint}
	return e.flights.Do(ctx, id, func() (codec.Fields, bool, error) {
		f, err := c.observed(ctx)
		return f, ctx.Err() != nil && f.AccessToken == "", err
	}, func(f codec.Fields, err error) bool {
		// The call that ran the refresh may have had a different stale token.
		return err != nil || f.AccessToken != stale
	})
}

// A call runs one refresh, for one or more callers of Refresh.
type call struct {
	*Engine
	record Record
	id     string
	stale  string
	mint   Mint

	throttled time.Time         // when the service began to throttle calls; zero if it does not
	pauses    driverkit.Backoff // pauses between calls while the service throttles calls

	seen sight
}

// run returns the record once the record has a fresh access token. This process or another
// process may have requested that token.
func (c *call) run(ctx context.Context) (codec.Fields, error) {
	pauses := driverkit.Backoff{Pause: 32 * time.Millisecond, Longest: time.Second}
	newest := false
	for lost := 0; lost < c.Attempts; {
		now, err := c.record.Read(driver.WithoutRetries(ctx), newest)
		if errors.Is(err, driver.ErrThrottled) {
			if err = c.sitOut(ctx, err); err != nil {
				return codec.Fields{}, err
			}
			newest = false
			continue
		}
		if err != nil || c.fresh(now.Fields) {
			c.seen.written = now.Written
			return now.Fields, err
		}
		f, err := c.attempt(ctx, now)
		if away, ok := errors.AsType[throttledError](err); ok {
			err = cmp.Or(c.sitOut(ctx, away.error), ErrLater)
		}
		switch {
		case errors.Is(err, errHeld):
			c.seen.late = true
			newest, lost = false, 0
			c.throttled = time.Time{}
		case errors.Is(err, ErrLater):
			newest = false
		case errors.Is(err, ErrContended):
			c.seen.late = true
			newest = false
			lost++
		case errors.Is(err, ErrStale):
			newest = true
		case errors.Is(err, ErrLost):
			c.seen.late = true
			newest = lost > 0 // after the first loss, a recent state shows which process has the right
			if lost++; lost == c.Attempts {
				break
			}
			if err := c.Wait(ctx, pauses.Next()); err != nil {
				return codec.Fields{}, err
			}
		default:
			return f, err
		}
	}
	return codec.Fields{}, fmt.Errorf("%w: in each of %d attempts", driver.ErrConflict, c.Attempts)
}

// sitOut waits after a call that failed with err because the service throttled the call.
// During the wait, another process with the right to mint may store a token. Once the service
// has throttled calls for Patience, sitOut returns err.
func (c *call) sitOut(ctx context.Context, err error) error {
	if c.throttled.IsZero() {
		c.throttled = time.Now()
		c.pauses = driverkit.Backoff{Pause: 200 * time.Millisecond, Longest: 2 * time.Second}
	}
	if time.Since(c.throttled) >= c.Patience {
		return err
	}
	return c.Wait(ctx, c.pauses.Next())
}

func (c *call) fresh(f codec.Fields) bool { return rules.Fresh(f, c.stale, c.Now()) }

// attempt takes the right to mint for the record, and refreshes the record. The parameter now is
// the state that was last read.
func (c *call) attempt(ctx context.Context, now State) (codec.Fields, error) {
	if _, err := c.refused(ctx, now); err != nil {
		if now.Stale {
			err = ErrStale
		}
		return codec.Fields{}, err
	}
	right, err := c.record.Take(driver.WithoutRetries(ctx))
	switch {
	case err == nil && right == nil:
		return codec.Fields{}, errHeld
	case errors.Is(err, driver.ErrThrottled):
		return codec.Fields{}, throttledError{err}
	case err != nil:
		return codec.Fields{}, err
	}
	return c.use(ctx, right)
}

// use calls mint under right, and stores the result.
func (c *call) use(ctx context.Context, right Right) (codec.Fields, error) {
	var keep *stored.Failure
	defer func() { right.Release(ctx, keep) }() // even if mint panics or ends its goroutine
	now, err := right.Read(ctx)
	if err != nil || c.fresh(now.Fields) {
		c.seen.written, c.seen.late = now.Written, true
		// A save, or the process that held the right before, stored a fresh token.
		return now.Fields, err
	}
	last, err := c.refused(ctx, now)
	if err != nil {
		keep = last
		return codec.Fields{}, err
	}
	left := right.Begin()
	if left <= 0 {
		return codec.Fields{}, ErrLost // the right lapsed before mint could be called
	}
	c.seen.asks()
	minted, err := c.ask(ctx, now.Fields, left)
	c.seen.answered()
	if err != nil {
		keep, err = c.failed(ctx, now, last, err)
		return codec.Fields{}, err
	}
	// Store the result even if the caller's context is done, because the result may be the
	// only copy of a new refresh token.
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), right.Left())
	defer cancel()
	return c.commit(storeCtx, right, now.Fields, minted)
}

// ask calls mint with a context that ends after the given time, and validates the result.
func (c *call) ask(ctx context.Context, used codec.Fields, left time.Duration) (codec.Fields, error) {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	minted, err := c.mint(ctx, used)
	if err == nil {
		minted, err = rules.Answer(minted)
	}
	if err == nil && minted.AccessToken == "" {
		err = fmt.Errorf("%w: mint returned no access token", rules.ErrInvalidToken)
	}
	return minted, err
}

// credentials returns a digest of the fields to which a refusal applies.
func (e *Engine) credentials(f codec.Fields) string {
	parts := []string{f.ClientID, f.ClientSecret, f.RefreshToken, f.GrantToken}
	if f.Issuer != "" || f.Resource != "" {
		parts = append(parts, f.Issuer, f.Resource)
	}
	return e.Digest(parts...)
}

// refused returns the last stored refusal. If that refusal applies to the current credentials at
// this time, refused also returns the refusal as an error.
func (c *call) refused(ctx context.Context, now State) (last *stored.Failure, err error) {
	if now.Refusal == nil {
		return nil, nil
	}
	last = now.Refusal(ctx)
	if a, ok := refusal.Counts(last, c.credentials(now.Fields), c.Now()); ok {
		err = a
	}
	return last, err
}

// failed returns the refusal to store after mint failed with err, and the error of the refresh.
func (c *call) failed(ctx context.Context, used State, last *stored.Failure, err error) (*stored.Failure, error) {
	keep := last
	if a, ok := errors.AsType[refusal.Answer](err); ok {
		if f := refusal.Keep(last, a, c.credentials(used.Fields), c.Now()); f != nil {
			keep = f
			if used.Abandoned {
				err = c.soften(f)
			}
		}
	}
	if ctx.Err() != nil {
		return keep, ctx.Err()
	}
	return keep, MintError{err}
}

// soften returns f as a refusal.Answer. If f is permanent, soften first makes f temporary. After
// a take-over, the former holder of the right may have used the credentials, and may still store
// new tokens.
func (c *call) soften(f *stored.Failure) refusal.Answer {
	now := c.Now()
	if f.Permanent {
		f.Permanent, f.Retry = false, now.Add(c.Grace).UnixMilli()
	}
	return refusal.Answer{Code: f.Code, RetryAfter: time.UnixMilli(f.Retry).Sub(now)}
}

// commit stores the token that mint returned, the parameter minted. The parameter used is the
// record that mint was called with. commit repeats a failed attempt, unless the record was deleted,
// the error is final, or ctx is done. The error matches ErrNotPersisted if commit returns a token
// that is not stored.
func (c *call) commit(ctx context.Context, right Right, used, minted codec.Fields) (codec.Fields, error) {
	usable := rules.PlanRefresh(used, used, minted, c.stale, c.Now()).Fields
	pauses := driverkit.Backoff{Pause: 4 * time.Millisecond, Longest: time.Second}
	for {
		var plan rules.RefreshPlan
		stored, err := right.Commit(ctx, func(now codec.Fields) rules.RefreshPlan {
			plan = rules.PlanRefresh(used, now, minted, c.stale, c.Now())
			return plan
		})
		lean, spares := rules.Lean(minted)
		switch {
		case spares && (errors.Is(err, rules.ErrTooLarge) || errors.Is(err, rules.ErrInvalidToken)):
			c.Logger.WarnContext(ctx, c.Store+": the scope, ID token and other members of a token response do not fit, and are not stored", "id", c.id)
			minted = lean
		case err == nil && plan.Again:
			return codec.Fields{}, ErrLost // the credentials were replaced meanwhile
		case err == nil:
			c.seen.minted = true
			return stored, nil
		case errors.Is(err, driver.ErrNotFound):
			return usable, fmt.Errorf("%w: the record was deleted meanwhile: %w", ErrNotPersisted, err)
		case final(err), c.Wait(ctx, pauses.Next()) != nil:
			c.Logger.ErrorContext(ctx, c.Store+": a refreshed token was not stored", "id", c.id)
			if ctx.Err() != nil {
				// The context of the commit is done, but the caller's context need not be
				// done. The error must therefore not match context.DeadlineExceeded.
				return usable, fmt.Errorf("%w: %w: %v", ErrNotPersisted, driver.ErrUnavailable, err)
			}
			return usable, fmt.Errorf("%w: %w", ErrNotPersisted, err)
		}
	}
}

// final reports whether another attempt to commit would fail with the same error. ErrCorrupt
// is not final: the record was readable before mint, so another program may be rewriting the
// record.
func final(err error) bool {
	for _, class := range []error{driver.ErrDenied, driver.ErrRefused, rules.ErrTooLarge, rules.ErrInvalidToken, rules.ErrIDMismatch, rules.ErrAmbiguous} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}
