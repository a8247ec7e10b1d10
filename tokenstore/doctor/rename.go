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

// A record moves to a name under another key by the swaps of a promotion: see package ledger.
// Programs that have both keys always find the record under one of the names. The record keeps
// its ID. Until Rekey is done, all processes name new records under the old key, regardless of
// the order of their keys. Two processes therefore cannot create the same record under two
// names.

// misplaced reports whether the name of e derives from a name key other than the current one.
// It returns false for a name that derives from a replaced token, because such a name cannot
// be checked.
func (c *checker) misplaced(e ledger.Entry) bool {
	if e.Target() != nil || len(c.ledger.NameKeys) == 1 || c.ledger.Namer().Fits(e) {
		return false
	}
	return slices.ContainsFunc(c.ledger.Namers(), func(n ledger.Namer) bool { return n.Fits(e) })
}

// rename makes the next writes that move e to its name under the current name key. If other
// entries are moving to e, or are merged into e but are not redirects yet, rename instead makes
// the next writes of these moves.
func (k *rekeyer) rename(ctx context.Context, e ledger.Entry) error {
	r := k.ledger.View(true)
	r.Remember(e)
	rec, err := r.Record(ctx, e)
	switch {
	case errors.Is(err, driver.ErrNotFound) && len(e.Joining) == 0:
		return k.ledger.Delete(ctx, e) // e was created only for another entry to move to, and no entry is moving to e
	case err != nil && !errors.Is(err, driver.ErrNotFound):
		return err
	}
	if len(rec.Joining) > 0 || errors.Is(err, driver.ErrNotFound) {
		return k.joined(ctx, r, e)
	}
	w := k.ledger.Writer()
	if len(rec.Absorbed) > 0 {
		_, err := w.Commit(ctx, r, rec, rec.Token, nil) // merged entries become redirects
		return err
	}
	to, err := k.place(ctx, r, w, rec)
	if err != nil {
		return err
	}
	if err := k.claim(ctx, &rec); err != nil {
		return err
	}
	return w.Move(ctx, rec, to)
}

// joined continues the moves of the records in the joining list of e by one step.
func (k *rekeyer) joined(ctx context.Context, r *ledger.View, e ledger.Entry) error {
	problems, err := k.joining(ctx, r, e)
	if err != nil {
		return err
	}
	switch {
	case len(problems) == 0:
		return k.ledger.Writer().TakeOver(ctx, e.Ref())
	case problems[0].repair == nil:
		return fmt.Errorf("%w: %q: %s", driver.ErrCorrupt, e.Name, problems[0].detail)
	}
	return problems[0].repair(ctx)
}

// claim takes the lease on rec if leases on rec are in a note, which does not move with the record.
// No other process then refreshes the record during the move. If leases on rec are in the record,
// claim does nothing. The error matches driver.ErrConflict if another process holds the lease.
func (k *rekeyer) claim(ctx context.Context, rec *ledger.Entry) error {
	l := k.ledger.Leaser
	if l == nil || rec.UserName == "" {
		return nil
	}
	now := k.ledger.Now()
	if held := rec.Noted(); held != nil && held.ID != k.lease && now.Before(time.UnixMilli(held.Until)) {
		return fmt.Errorf("%w: %q is being refreshed", driver.ErrConflict, rec.Name)
	}
	mine := ledger.Note(stored.Lease{ID: k.lease, Until: now.Add(k.leaseTTL).UnixMilli()})
	if err := l.Note(ctx, string(rec.Name), rec.Secret(), mine); err != nil {
		return err
	}
	*rec = rec.WithNote(mine).DropNote()
	return nil
}

// place makes the first swap of a move, and returns the entry under the new name. A new entry
// gets the data of rec except the tokens. If the new name already has a record, rec will be
// merged into that record.
func (k *rekeyer) place(ctx context.Context, r *ledger.View, w *ledger.Writer, rec ledger.Entry) (ledger.Entry, error) {
	next := rec.Record
	next.Fields = rules.WithIdentity(codec.Fields{ID: rec.Token.ID}, rec.Token)
	next.Born, next.Nonces, next.Writes, next.Labels, next.Former = "", nil, nil, nil, nil
	return w.Join(ctx, r, k.ledger.Namer().Of(rec.Token), rec, next)
}

// alias makes a redirect lead directly to its record after the record was renamed. The returned
// bool reports whether the redirect needed a rewrite. A redirect under the old name prevents the
// creation of another record under that name. alias therefore deletes the redirect only once
// new records are named under the current name key, and searches find the record without the
// redirect.
func (k *rekeyer) alias(ctx context.Context, listed ledger.Entry) (rewritten bool, err error) {
	err = k.ledger.Retry(ctx, "rekey", func(*ledger.View) error {
		r := k.ledger.View(true)
		e, err := r.Read(ctx, listed.Name)
		if errors.Is(err, driver.ErrNotFound) || err == nil && e.Alias == nil {
			return nil
		}
		if err != nil {
			return err
		}
		rec, err := r.Resolve(ctx, e)
		switch {
		case errors.Is(err, driver.ErrNotFound):
			return nil // Check removes the redirect
		case err != nil:
			return err
		case rec.Ref() != *e.Alias:
			rewritten = true
			if k.dry {
				return nil
			}
			return ledger.Lost(k.ledger.Writer().Redirect(ctx, e, rec.Ref()))
		case k.dry || !k.settled || !k.ledger.Replaces(rec, e) || !k.ledger.Outlived(e.Updated):
			return nil
		}
		return ledger.Lost(k.ledger.Driver.Delete(ctx, string(e.Name), e.Secret()))
	})
	return rewritten, err
}
