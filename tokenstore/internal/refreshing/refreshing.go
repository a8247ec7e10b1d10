// Package refreshing refreshes a record once for many callers. Of the goroutines and
// processes that find its access token expired, one asks the authorization server, and
// the others get its result.
//
// The package decides on the order of the steps, on the refusals that are kept, and on
// the result for a record that was changed meanwhile. A Record decides where the record
// is stored and which process may mint.
package refreshing

import (
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
)

// ErrNotPersisted means that a refresh succeeded but its result could not be stored.
var ErrNotPersisted = errors.New("token is usable but was not stored")

// A Mint asks the authorization server for a new access token. Its error may hold a
// refusal.Answer.
type Mint = func(context.Context, codec.Fields) (codec.Fields, error)

// MintOf returns the Mint of a function on tokens of type T, or nil.
func MintOf[T any](mint func(context.Context, T) (T, error), token func(codec.Fields) T, fields func(T) codec.Fields) Mint {
	if mint == nil {
		return nil
	}
	return func(ctx context.Context, f codec.Fields) (codec.Fields, error) {
		t, err := mint(ctx, token(f))
		return fields(t), err
	}
}

// A MintError is an error of a Mint. It is not one of the store and has no class.
type MintError struct{ Err error }

// Error returns the text of Err.
func (e MintError) Error() string { return e.Err.Error() }

// Errors after which a refresh tries again.
var (
	// ErrStale means that only the newest state of the record can refuse the refresh.
	ErrStale = errors.New("the state of the record may be out of date")

	// ErrLost means that another process was faster.
	ErrLost = errors.New("another process has changed the record")

	errHeld = errors.New("another process has the right to mint")
)

// A State is a record as it was read.
type State struct {
	codec.Fields

	// Refusal returns the last refusal that is kept, or nil. A nil func means none.
	Refusal func(context.Context) *stored.Failure

	// Stale is set if a read of the newest state may return another state.
	Stale bool

	// Abandoned is set if the right to mint was taken over from a process that did not
	// give it back.
	Abandoned bool
}

// A Record is the record with one ID, in one call of Refresh.
type Record interface {
	// Read returns the record, in its newest state if newest is set, else in a recent
	// one.
	Read(ctx context.Context, newest bool) (State, error)

	// Take takes the right to mint for the record that Read returned last. If another
	// process has the right, Take waits for a moment and returns nil. After ErrLost and
	// ErrStale the refresh goes on with the newest state of the record.
	Take(ctx context.Context) (Right, error)
}

// A Right is the right to mint, which one process has at a time.
type Right interface {
	// Read returns the record as it is under the right.
	Read(ctx context.Context) (State, error)

	// Begin is called just before mint. It returns how long mint may run.
	Begin() time.Duration

	// Left returns how long the storing of the result may be tried.
	Left() time.Duration

	// Commit calls plan with the record as it is now. Unless the plan is to begin
	// again, it stores the fields of the plan and returns them as stored.
	Commit(ctx context.Context, plan func(now codec.Fields) rules.RefreshPlan) (codec.Fields, error)

	// Release gives the right back if Commit has not, and keeps a refusal for other
	// callers. If keep is nil or the refusal that Read returned, Release stores none.
	Release(ctx context.Context, keep *stored.Failure)
}

// An Engine runs the refreshes of one store. Its exported fields must be set.
type Engine struct {
	Store    string        // the kind of store, for the log
	Attempts int           // how often a refresh begins again
	Grace    time.Duration // how long a refusal after a take-over counts at least

	Digest func(parts ...string) string // of credentials
	Now    func() time.Time
	Wait   func(context.Context, time.Duration) error
	Logger *slog.Logger

	flights flight.Group[codec.Fields]
}

// Refresh returns the record with the ID, with an access token other than stale. See
// tokenstore.Refresher.
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
		f, err := c.run(ctx)
		return f, ctx.Err() != nil && f.AccessToken == "", err
	}, func(f codec.Fields, err error) bool {
		// The leader may have had a different context and a different stale token.
		return err != nil || f.AccessToken != stale
	})
}

// A call is one Refresh of one process.
type call struct {
	*Engine
	record Record
	id     string
	stale  string
	mint   Mint
}

// run returns the record once it has a fresh token, whichever process got it.
func (c *call) run(ctx context.Context) (codec.Fields, error) {
	pauses := driverkit.Backoff{Pause: 32 * time.Millisecond, Longest: time.Second}
	newest := false
	for lost := 0; lost < c.Attempts; {
		now, err := c.record.Read(ctx, newest)
		if err != nil || c.fresh(now.Fields) {
			return now.Fields, err
		}
		f, err := c.attempt(ctx, now)
		switch {
		case errors.Is(err, errHeld):
			newest, lost = false, 0
		case errors.Is(err, ErrStale):
			newest = true
		case errors.Is(err, ErrLost):
			newest = true
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

func (c *call) fresh(f codec.Fields) bool { return rules.Fresh(f, c.stale, c.Now()) }

// attempt takes the right to mint for the record that was read, and uses it.
func (c *call) attempt(ctx context.Context, now State) (codec.Fields, error) {
	if _, err := c.refused(ctx, now); err != nil {
		if now.Stale {
			err = ErrStale
		}
		return codec.Fields{}, err
	}
	right, err := c.record.Take(ctx)
	if err == nil && right == nil {
		err = errHeld
	}
	if err != nil {
		return codec.Fields{}, err
	}
	return c.use(ctx, right)
}

// use mints under the right, and stores the result.
func (c *call) use(ctx context.Context, right Right) (codec.Fields, error) {
	var keep *stored.Failure
	defer func() { right.Release(ctx, keep) }() // even if mint panics or ends its goroutine
	now, err := right.Read(ctx)
	if err != nil || c.fresh(now.Fields) {
		// A process that had the right before, or a save, stored the fresh token.
		return now.Fields, err
	}
	last, err := c.refused(ctx, now)
	if err != nil {
		keep = last
		return codec.Fields{}, err
	}
	left := right.Begin()
	if left <= 0 {
		return codec.Fields{}, ErrLost // the right lapsed while it was taken
	}
	minted, err := c.ask(ctx, now.Fields, left)
	if err != nil {
		keep, err = c.failed(ctx, now, last, err)
		return codec.Fields{}, err
	}
	// The result may be the only copy of a new refresh token: it is stored even if the
	// caller has gone.
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), right.Left())
	defer cancel()
	return c.commit(storeCtx, right, now.Fields, minted)
}

// ask calls mint, whose context ends after left.
func (c *call) ask(ctx context.Context, used codec.Fields, left time.Duration) (codec.Fields, error) {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	minted, err := c.mint(ctx, used)
	if err == nil {
		err = rules.Validate(minted)
	}
	if err == nil && minted.AccessToken == "" {
		err = fmt.Errorf("%w: the answer has no access token", rules.ErrInvalidToken)
	}
	return minted, err
}

// credentials returns a digest of the fields that a refusal is about.
func (c *call) credentials(f codec.Fields) string {
	return c.Digest(f.ClientID, f.ClientSecret, f.RefreshToken, f.GrantToken)
}

// refused returns the last refusal that is kept, and an error if the refusal still
// counts.
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

// failed returns the refusal to keep after mint has failed, and the error of the
// refresh.
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

// soften makes a refusal after a take-over temporary. The former holder may have used
// the credential, and be about to store the tokens that it got.
func (c *call) soften(f *stored.Failure) refusal.Answer {
	now := c.Now()
	if f.Permanent {
		f.Permanent, f.Retry = false, now.Add(c.Grace).UnixMilli()
	}
	return refusal.Answer{Code: f.Code, RetryAfter: time.UnixMilli(f.Retry).Sub(now)}
}

// commit stores what mint returned for the record used.
func (c *call) commit(ctx context.Context, right Right, used, minted codec.Fields) (codec.Fields, error) {
	usable := rules.PlanRefresh(used, used, minted, c.stale, c.Now()).Fields
	pauses := driverkit.Backoff{Pause: 4 * time.Millisecond, Longest: time.Second}
	for {
		var plan rules.RefreshPlan
		stored, err := right.Commit(ctx, func(now codec.Fields) rules.RefreshPlan {
			plan = rules.PlanRefresh(used, now, minted, c.stale, c.Now())
			return plan
		})
		switch {
		case err == nil && plan.Again:
			return codec.Fields{}, ErrLost // the credentials were replaced meanwhile
		case err == nil:
			return stored, nil
		case errors.Is(err, driver.ErrNotFound):
			return usable, fmt.Errorf("%w: the record was deleted meanwhile: %w", ErrNotPersisted, err)
		case final(err), c.Wait(ctx, pauses.Next()) != nil:
			c.Logger.ErrorContext(ctx, c.Store+": a refreshed token was not stored", "id", c.id)
			if ctx.Err() != nil {
				// The context of the commit has ended, not that of the caller.
				return usable, fmt.Errorf("%w: %w: %v", ErrNotPersisted, driver.ErrUnavailable, err)
			}
			return usable, fmt.Errorf("%w: %w", ErrNotPersisted, err)
		}
	}
}

// final reports whether an error of a commit would be the same in another attempt. A
// record that cannot be read is not final: it was readable before mint, so an SDK may be
// writing it now.
func final(err error) bool {
	for _, class := range []error{driver.ErrDenied, driver.ErrRefused, rules.ErrTooLarge, rules.ErrInvalidToken, rules.ErrIDMismatch, rules.ErrAmbiguous} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}
