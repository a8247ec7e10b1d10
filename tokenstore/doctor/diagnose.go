package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A problem is a fault of an entry, with its repair.
type problem struct {
	kind   Kind
	detail string
	remedy Remedy
	action string
	repair func(context.Context) error // nil if only an operator can decide
	err    error                       // the error that the finding reports, or nil
}

// diagnose returns the problems of e, which r has just read.
func (c *checker) diagnose(ctx context.Context, r *ledger.View, e ledger.Entry) ([]problem, error) {
	if to := e.Target(); to != nil {
		return c.moved(ctx, r, e, *to)
	}
	problems, err := c.joining(ctx, r, e)
	if err != nil {
		return nil, err
	}
	local := c.local(e)
	if absent, err := c.absent(ctx, e); err != nil {
		return nil, err
	} else if len(absent) > 0 {
		local = append(local, c.missing(e, absent))
	}
	return append(problems, local...), nil
}

// moved returns the problems of e, an entry that leads to another entry. The parameter to refers
// to the other entry.
func (c *checker) moved(ctx context.Context, r *ledger.View, e ledger.Entry, to stored.Ref) ([]problem, error) {
	u, err := r.Reread(ctx, ledger.Name(to.Name))
	gone := errors.Is(err, driver.ErrNotFound) || err == nil && u.Born != to.Born
	switch {
	case c.passes(ctx, to.Name, err):
		return []problem{{kind: KindPromotionUnfinished, remedy: RemedyManual, err: ledger.Unreadable(ledger.Name(to.Name), err),
			detail: fmt.Sprintf("it leads to %q, which cannot be read", to.Name)}}, nil
	case gone:
		return []problem{c.dead(e, to)}, nil
	case err != nil:
		return nil, err
	case u.Target() != nil:
		return []problem{{kind: KindPromotionUnfinished, remedy: RemedyManual,
			detail: fmt.Sprintf("it leads to %q, which itself has moved: no writer does that", to.Name)}}, nil
	case e.Alias != nil:
		return c.redundant(ctx, e, u)
	case c.underWay(e) || c.underWay(u):
		return nil, nil
	}
	return c.unfinished(ctx, r, e, u)
}

// dead returns the problem that e leads to a deleted incarnation. The parameter to refers to that
// incarnation.
func (c *checker) dead(e ledger.Entry, to stored.Ref) problem {
	p := problem{kind: KindDead, remedy: RemedyRepair, action: "delete it",
		detail: fmt.Sprintf("it had moved to %q, which was deleted", to.Name),
		repair: func(ctx context.Context) error { return c.ledger.Writer().RemoveDead(ctx, e) }}
	if e.Alias != nil {
		p.kind, p.detail = KindAliasBroken, fmt.Sprintf("it leads to %q, which was deleted", to.Name)
	}
	return p
}

// unfinished returns the problem that the move of e to u is not complete.
func (c *checker) unfinished(ctx context.Context, r *ledger.View, e, u ledger.Entry) ([]problem, error) {
	p := problem{kind: KindPromotionUnfinished, remedy: RemedyRepair, action: "complete it"}
	switch {
	case slices.Contains(u.Joining, e.Ref()):
		p.detail = fmt.Sprintf("it has moved to %q, which has not taken over its tokens", u.Name)
		p.repair = func(ctx context.Context) error { return c.ledger.Writer().TakeOver(ctx, u.Ref()) }
	case slices.Contains(u.Absorbed, e.Ref()):
		p.detail = fmt.Sprintf("%q has taken over its tokens, and it is no alias yet", u.Name)
		p.repair = func(ctx context.Context) error { return ledger.Lost(c.ledger.Writer().Redirect(ctx, e, u.Ref())) }
	default:
		// Between the reads of e and u, e may have become a redirect, which u need not list.
		if now, err := r.Reread(ctx, e.Name); err != nil || now.Secret().Version != e.Secret().Version {
			return nil, ledger.Again(fmt.Errorf("%w: %q", driver.ErrConflict, e.Name))
		}
		p.detail = fmt.Sprintf("it has moved to %q, which does not know of it", u.Name)
		p.repair = func(ctx context.Context) error { return c.ledger.Writer().Relist(ctx, u, e) }
	}
	return []problem{p}, nil
}

// redundant reports the redirect e as a problem if searches find u by the IDs of e, so that e can
// be deleted. The deletion is safe once every search sees the labels of u. Until then, the deletion
// is safe only while no other process writes.
func (c *checker) redundant(ctx context.Context, e, u ledger.Entry) ([]problem, error) {
	if !c.ledger.Replaces(u, e) {
		return nil, nil // an ID leads to the record only through e
	}
	if found, err := c.ledger.Labelled(ctx, u, e); err != nil || !found {
		return nil, err
	}
	remedy := RemedyPurge
	if c.o.Grace < 0 || c.ledger.Outlived(e.Updated) && !c.underWay(e) {
		remedy = RemedyRepair
	}
	return []problem{{kind: KindAlias, remedy: remedy, action: "delete it",
		detail: fmt.Sprintf("%q is labelled with the IDs that find it", u.Name),
		repair: func(ctx context.Context) error {
			return ledger.Lost(c.ledger.Driver.Delete(ctx, string(e.Name), e.Secret()))
		}}}, nil
}

// joining returns the problems of the records in the joining list of u, except records that
// have already moved, which examine diagnoses separately.
func (c *checker) joining(ctx context.Context, r *ledger.View, u ledger.Entry) ([]problem, error) {
	var problems []problem
	var stale []stored.Ref
	for _, ref := range u.Joining {
		from, err := r.Reread(ctx, ledger.Name(ref.Name))
		switch {
		case c.passes(ctx, ref.Name, err):
			problems = append(problems, problem{kind: KindPromotionUnfinished, remedy: RemedyManual, err: ledger.Unreadable(ledger.Name(ref.Name), err),
				detail: fmt.Sprintf("%q was about to become part of it, and cannot be read", ref.Name)})
		case errors.Is(err, driver.ErrNotFound), err == nil && (from.Born != ref.Born || from.Alias != nil):
			stale = append(stale, ref)
		case err != nil:
			return nil, err
		case from.Moved != nil, c.underWay(u):
		case !movable(from, u):
			problems = append(problems, problem{kind: KindPromotionUnfinished, remedy: RemedyManual,
				detail: fmt.Sprintf("%q was about to become part of it, and is another user's or client's now", ref.Name)})
		default:
			problems = append(problems, problem{kind: KindPromotionUnfinished, remedy: RemedyRepair, action: "complete it",
				detail: fmt.Sprintf("%q was about to become part of it, and has not moved", ref.Name),
				repair: func(ctx context.Context) error { return c.ledger.Writer().Complete(ctx, from, u) }})
		}
	}
	if len(stale) > 0 {
		problems = append(problems, problem{kind: KindPromotionStale, remedy: RemedyRepair, action: "do not wait for them",
			detail: fmt.Sprintf("it waits for %d records that are gone", len(stale)),
			repair: func(ctx context.Context) error { return c.ledger.Writer().Unlist(ctx, u, stale) }})
	}
	return problems, nil
}

// movable reports whether an entry in the joining list of u can be merged into u. The parameter
// from is that entry.
func movable(from, u ledger.Entry) bool {
	return rules.CanBecome(from.Fields, u.Fields) // Rekey also moves entries that have a user
}

// underWay reports whether e was written less than Grace ago. The operation that wrote e may then
// still be in progress.
func (c *checker) underWay(e ledger.Entry) bool {
	return c.o.Grace > 0 && c.ledger.Now().Sub(e.WrittenAt()) < c.o.Grace
}

// local returns the problems of e that do not depend on other entries. e must not lead to
// another entry.
func (c *checker) local(e ledger.Entry) []problem {
	if !rules.HasCredential(e.Token) && len(e.Joining) == 0 {
		return c.empty(e)
	}
	var problems []problem
	if kind := c.misnamed(e); kind != "" {
		detail := "read it with the key that it was written with, and save it under this one"
		if kind == KindNameUnkeyed {
			detail = `rekey renames it while "no key" follows the current keys`
		}
		return append(problems, problem{kind: kind, remedy: RemedyManual,
			detail: "neither its labels nor its name are touched; " + detail})
	}
	problems = append(problems, c.labelProblems(e)...)
	return append(problems, c.lease(e)...)
}

// empty returns the problem of an entry that has no token and to which no record is moving.
func (c *checker) empty(e ledger.Entry) []problem {
	if c.underWay(e) {
		return nil
	}
	p := problem{kind: KindEmpty, detail: "it holds no token"}
	t := e.Token
	if rest := rules.WithIdentity(codec.Fields{ID: t.ID}, t); t != rest || e.ID != "" {
		p.remedy, p.detail = RemedyManual, "it holds no token, but other fields, which no store writes without a token"
		return []problem{p}
	}
	p.remedy, p.action = RemedyRepair, "delete it"
	p.repair = func(ctx context.Context) error { return ledger.Lost(c.ledger.Delete(ctx, e)) }
	return []problem{p}
}

// misnamed returns the kind of fault in the name of e, or "" if the name fits.
func (c *checker) misnamed(e ledger.Entry) Kind {
	switch {
	case c.ledger.Namer().Fits(e):
		return ""
	case ledger.Namer{}.Fits(e):
		return KindNameUnkeyed
	}
	return KindNameForeign
}

// lease returns a problem if a lease on e ended at least ledger.ClockSkew ago. The lease may be
// in the record or in a note.
func (c *checker) lease(e ledger.Entry) []problem {
	lapsed := func(l *stored.Lease) bool {
		return l != nil && c.ledger.Now().Sub(time.UnixMilli(l.Until)) >= ledger.ClockSkew
	}
	p := problem{kind: KindLeaseLapsed, remedy: RemedyRepair, action: "remove it"}
	switch {
	case lapsed(e.Lease):
		p.detail = fmt.Sprintf("the lease ended on %s", time.UnixMilli(e.Lease.Until).UTC().Format(time.RFC3339))
		p.repair = func(ctx context.Context) error {
			next := e
			next.Lease = nil
			_, err := c.ledger.Rewrite(ctx, next, nil)
			return ledger.Lost(err)
		}
	case lapsed(e.Noted()):
		l := c.ledger.Leaser
		if l == nil {
			return nil
		}
		p.detail = "the note beside the secret is a lease that has ended"
		p.repair = func(ctx context.Context) error { return ledger.Lost(l.Note(ctx, string(e.Name), e.Secret(), "")) }
	default:
		return nil
	}
	return []problem{p}
}
