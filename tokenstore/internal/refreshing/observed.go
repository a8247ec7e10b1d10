package refreshing

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/observed"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// A sight collects the facts about a call that are reported to the Observer.
type sight struct {
	on      bool // there is an Observer
	begun   time.Time
	right   time.Time     // when this process last got the right and called mint; zero if never
	asking  time.Time     // when the last call of mint began
	asked   time.Duration // how long mint ran in total
	late    bool          // another process held or wanted the right, or changed the record
	minted  bool          // the result of mint is stored
	written time.Time     // when the adopted state was stored
}

// asks records the start of mint.
func (s *sight) asks() {
	if s.on {
		s.asking = time.Now()
		s.right = s.asking
	}
}

// answered records the end of mint.
func (s *sight) answered() {
	if s.on {
		s.asked += time.Since(s.asking)
	}
}

// observed calls the method run, and reports the call to the Observer.
func (c *call) observed(ctx context.Context) (f codec.Fields, err error) {
	if c.Observer == nil || c.Observer.Refresh == nil {
		return c.run(ctx)
	}
	c.seen = sight{on: true, begun: time.Now()}
	ctx, done := c.Observer.Refresh(ctx, c.Backend)
	ended := false
	defer func() {
		r := c.outcome(err)
		if !ended { // mint panicked or ended its goroutine
			r.Result, r.Class = observe.ResultUnanswered, observe.ClassServer
		}
		done(r)
	}()
	f, err = c.run(ctx)
	ended = true
	return f, err
}

// outcome returns the report for the Observer about a refresh that ended with err.
func (c *call) outcome(err error) observe.Refreshed {
	until := c.seen.right
	if until.IsZero() {
		until = time.Now()
	}
	r := observe.Refreshed{Waited: until.Sub(c.seen.begun), Asked: c.seen.asked}
	r.Result, r.Class = c.result(err)
	if r.Result == observe.ResultAdopted && !c.seen.written.IsZero() {
		r.Lag = max(c.Now().Sub(c.seen.written), 0)
	}
	return r
}

func (c *call) result(err error) (observe.Result, observe.Class) {
	switch {
	case err == nil && c.seen.minted:
		return observe.ResultMinted, ""
	case err == nil && c.seen.late:
		return observe.ResultAdopted, ""
	case err == nil:
		return observe.ResultCurrent, ""
	case errors.Is(err, ErrNotPersisted):
		return observe.ResultNotPersisted, observed.Class(err)
	}
	failed, ofMint := errors.AsType[MintError](err)
	if ofMint {
		err = failed.Err
	}
	if a, ok := errors.AsType[refusal.Answer](err); ok {
		if ofMint {
			return observe.ResultRefused, ofRefusal(a)
		}
		return observe.ResultRefusalKept, ofRefusal(a)
	}
	class := observed.Class(err)
	switch {
	case ofMint && class == observe.ClassOther:
		return observe.ResultUnanswered, observe.ClassServer
	case ofMint:
		return observe.ResultUnanswered, class
	case class == observe.ClassCanceled, class == observe.ClassDeadline:
		return observe.ResultCanceled, class
	}
	return observe.ResultFailed, class
}

func ofRefusal(a refusal.Answer) observe.Class {
	switch {
	case a.Client:
		return observe.ClassClient
	case a.Permanent:
		return observe.ClassReauth
	}
	return observe.ClassTemporary
}
