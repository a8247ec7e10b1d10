package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A promotion moves the record from, which has no user, to the record of a user, in
// four swaps:
//
//   1. The user's record gets from into its joining list. If it does not exist, it is
//      created with nothing but this list, and is not a record yet.
//   2. from is frozen: it gets "moved", and nothing but the fourth swap changes it.
//   3. The user's record takes over the tokens, and from is merged.
//   4. from becomes a redirect.
//
// After each swap every reader finds the one token by either name. Before the second
// swap the token is in from. After it, the token is in the user's record, whose readers
// also read from until the third swap. Every writer to the user's record does the third
// and the fourth. Only an Update does the third: if another process deletes the user's
// record meanwhile, it deletes from with it, and no swap brings it back.
//
// Entries refer to each other by name and incarnation (stored.Record.Born). Neither
// side is taken for a later record of the same name.

// errMoved means that the next attempt finds the record at its user's name.
var errMoved = Again(errors.New("moved"))

// maxJoining is how many records may be moving to one record.
const maxJoining = 8

// MostRepairs is more than the repairs that one entry can need: each record that moves
// to it takes two.
const MostRepairs = 4 * maxJoining

// Promote moves from to the record of a user. It never returns nil: the next attempt
// merges the token that is saved into the user's record.
func (w *Writer) Promote(ctx context.Context, v *View, from Entry, user, client string) error {
	to, err := w.join(ctx, v, from, user, client)
	if err != nil {
		return Lost(err)
	}
	if err := w.Move(ctx, from, to); err != nil {
		return Lost(err)
	}
	return errMoved
}

// join does the first swap. It returns the user's entry.
func (w *Writer) join(ctx context.Context, v *View, from Entry, user, client string) (Entry, error) {
	name, err := w.userRecord(ctx, v, user, client)
	if err != nil {
		return Entry{}, err
	}
	return w.Join(ctx, v, name, from, stored.Record{Fields: codec.Fields{UserName: user, ClientID: client}})
}

// userRecord returns the name of the record of a user and client, or the name to
// create it under.
func (w *Writer) userRecord(ctx context.Context, v *View, user, client string) (Name, error) {
	for _, n := range w.Namers() {
		name := n.User(user, client)
		e, err := v.Read(ctx, name)
		switch {
		case err == nil && e.Target() == nil:
			return name, nil
		case err != nil && !errors.Is(err, driver.ErrNotFound):
			return "", err
		}
	}
	n, err := w.NamerForNew(ctx)
	return n.User(user, client), err
}

// Join puts from on the joining list of the named entry, which it creates from r if
// it does not exist. The entry is that of the user and client of r.
func (w *Writer) Join(ctx context.Context, v *View, name Name, from Entry, r stored.Record) (Entry, error) {
	to, err := v.Read(ctx, name)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		r.Joining = []stored.Ref{from.Ref()}
		return w.Create(ctx, name, r)
	case err != nil:
		return Entry{}, err
	case to.Target() != nil:
		return Entry{}, w.clear(ctx, v, to)
	}
	next := to.Record
	if slices.Contains(to.Joining, from.Ref()) {
		if w.Properties.ReadLag == 0 {
			return to, nil
		}
		// Another process has listed from, in a record that may have been deleted
		// since. An entry that moves to a deleted record is lost, and only a write
		// proves that the record exists.
		return w.Update(ctx, to, next)
	}
	next.UserName, next.ClientID = r.UserName, r.ClientID
	w.settle(ctx, v, to, &next)
	if len(next.Joining)+len(next.Absorbed) >= maxJoining {
		return Entry{}, fmt.Errorf("%w: too many records are about to become %q", driver.ErrConflict, to.Name)
	}
	next.Joining = append(slices.Clone(next.Joining), from.Ref())
	return w.Update(ctx, to, next)
}

// clear removes an entry that leads to a deleted record from a user's name. It returns
// the reason why this attempt of the promotion ends.
func (w *Writer) clear(ctx context.Context, v *View, dead Entry) error {
	if _, err := v.Resolve(ctx, dead); !errors.Is(err, errDead) {
		return fmt.Errorf("%w: %q has moved", driver.ErrCorrupt, dead.Name)
	}
	if err := w.RemoveDead(ctx, dead); err != nil {
		return err
	}
	return fmt.Errorf("%w: %q had moved to a record that was deleted", driver.ErrConflict, dead.Name)
}

// Move does the swaps after the first. The joining list of to has from.
func (w *Writer) Move(ctx context.Context, from, to Entry) error {
	at, err := w.freeze(ctx, from, to.Ref())
	if err != nil {
		return err
	}
	w.MovedTo = to.Name
	v := w.ViewOf(to, at)
	rec, err := v.Record(ctx, to)
	if err == nil {
		_, err = w.Commit(ctx, v, rec, rec.Token, nil)
	}
	if errors.Is(err, driver.ErrNotFound) {
		// Another process has deleted the user's record, and from with it.
		_ = w.RemoveDead(ctx, at)
	}
	return err
}

// freeze does the second swap.
func (w *Writer) freeze(ctx context.Context, from Entry, to stored.Ref) (Entry, error) {
	next := from.Record
	next.Moved = &to
	return w.Update(ctx, from, next)
}

// Complete does the second swap of an abandoned promotion, and those that follow. The
// first swap is never undone: its writer may only be slow, and the record that it moves
// would be lost.
func (w *Writer) Complete(ctx context.Context, from, to Entry) error {
	if _, err := w.freeze(ctx, from, to.Ref()); err != nil {
		return Lost(err)
	}
	return w.TakeOver(ctx, to.Ref())
}

// TakeOver does the third and the fourth swap for all entries that have moved to the
// record.
func (w *Writer) TakeOver(ctx context.Context, to stored.Ref) error {
	v := w.View(true)
	u, err := v.Read(ctx, Name(to.Name))
	if err != nil {
		return Lost(err)
	}
	rec, err := v.Record(ctx, u)
	if err != nil {
		return Lost(err)
	}
	_, err = w.Commit(ctx, v, rec, rec.Token, nil)
	return err
}

// Redirect does the fourth swap. It reduces from, which was merged into to, to a
// reference to that record and the IDs that find from.
func (w *Writer) Redirect(ctx context.Context, from Entry, to stored.Ref) error {
	left := stored.Record{Fields: codec.Fields{ID: from.ID}, Born: from.Born, Alias: &to, IDs: from.IDs}
	_, err := w.Update(ctx, from, left)
	return err
}

// redirect does the fourth swap after a commit. If it fails, a later writer does it.
func (w *Writer) redirect(ctx context.Context, from, to Entry) {
	err := w.Redirect(ctx, from, to.Ref())
	if err != nil && !errors.Is(err, driver.ErrConflict) {
		w.Logger.WarnContext(ctx, "tokenstore: a record that was merged into another one is not an alias yet", "name", string(from.Name), "into", string(to.Name))
	}
}

// Relist adds from, which has moved to u, to the joining list of u. No writer leaves
// such an entry unlisted.
func (w *Writer) Relist(ctx context.Context, u, from Entry) error {
	next := u.Record
	next.Joining = append(slices.Clone(next.Joining), from.Ref())
	_, err := w.Update(ctx, u, next)
	return Lost(err)
}

// Unlist removes entries that can no longer move to u from its joining list: they are
// redirects, or their incarnations are over. Where reads may be out of date, writes
// prove that first, because the tokens of an entry that has moved would be lost.
func (w *Writer) Unlist(ctx context.Context, u Entry, refs []stored.Ref) error {
	for _, ref := range refs {
		if err := w.proveUnable(ctx, ref); err != nil {
			return err
		}
	}
	next := u.Record
	next.Joining = slices.DeleteFunc(slices.Clone(next.Joining), func(ref stored.Ref) bool { return slices.Contains(refs, ref) })
	_, err := w.Update(ctx, u, next)
	return Lost(err)
}

// proveUnable fails unless the incarnation ref is over or ref is a redirect.
func (w *Writer) proveUnable(ctx context.Context, ref stored.Ref) error {
	if w.Properties.ReadLag == 0 {
		return nil // without lag, the read of the caller was proof
	}
	now, err := w.Newest(ctx, Name(ref.Name), Entry{})
	switch {
	case err == nil && now.Born == ref.Born && now.Alias != nil:
		return nil // a redirect stays one
	case err == nil && now.Born != ref.Born && now.Target() != nil:
		// A frozen entry is not written over, and so proves nothing.
		return fmt.Errorf("%w: whether %q is gone cannot be proved", driver.ErrUnavailable, ref.Name)
	}
	return w.proveOver(ctx, ref, now, err)
}

// proveOver proves by a write that the incarnation ref is over. now and err are the
// result of a read of its name, which may be out of date: only a Create or an Update
// decides.
func (w *Writer) proveOver(ctx context.Context, ref stored.Ref, now Entry, err error) error {
	switch {
	case errors.Is(err, driver.ErrNotFound):
		now, err = w.Create(ctx, Name(ref.Name), stored.Record{})
		if err == nil {
			err = w.Driver.Delete(ctx, ref.Name, now.secret)
		}
	case err == nil && now.Born == ref.Born:
		err = driver.ErrConflict // it exists after all
	case err == nil:
		_, err = w.Update(ctx, now, now.Record)
	}
	return Lost(err)
}

// RemoveDead deletes an entry that leads to a deleted record. Where reads may be out of
// date, a write first proves that the record is gone.
func (w *Writer) RemoveDead(ctx context.Context, dead Entry) error {
	to := dead.Target()
	if w.Properties.ReadLag > 0 {
		now, err := w.Newest(ctx, Name(to.Name), Entry{})
		if err := w.proveOver(ctx, *to, now, err); err != nil {
			return err
		}
	}
	return Lost(w.Driver.Delete(ctx, string(dead.Name), dead.secret))
}
