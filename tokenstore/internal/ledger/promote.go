package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A promotion takes a record that has no user, and moves it to the record of a user. Rekey moves a
// record to another name in the same way. The entry that moves is called the old entry here. It is
// the parameter from in the functions below. A promotion makes four swaps, which are writes by
// compare-and-swap:
//
//   1. The old entry is added to the joining list of the user's record. If the user's entry does
//      not exist, the swap creates the entry with only this list. The new entry is not a record
//      yet.
//   2. The old entry is frozen: its field Moved is set. Only the fourth swap overwrites a frozen
//      entry.
//   3. The user's record takes over the tokens of the old entry, which is then merged.
//   4. The old entry becomes a redirect.
//
// Readers find the token after each swap. Until the second swap, the token is in the old entry.
// After the second swap, both names lead to the user's record. Until the third swap, readers of
// the user's record also read the old entry. Every Commit to the user's record makes the third
// and the fourth swap. The third swap is always an Update. If another process deletes the user's
// record meanwhile, that process also deletes the old entry, and no swap creates the user's record
// again.
//
// Entries refer to each other by name and incarnation (stored.Record.Born). A reference
// therefore never leads to a later entry with the same name.

// errMoved means that the record has moved. The next attempt finds the record under the name
// of the user's record.
var errMoved = Again(errors.New("moved"))

// maxJoining is the maximum number of entries in the joining and absorbed lists of one
// record, together.
const maxJoining = 8

// MostRepairs is an upper bound on the number of repairs that one entry needs.
const MostRepairs = 4 * maxJoining

// Promote moves the entry given by from, a record without a user, to the record of the user and
// client in the parameter as. Promote always returns an error. After a successful move, the error
// is Retryable, and the next attempt finds the user's record.
func (w *Writer) Promote(ctx context.Context, v *View, from Entry, as codec.Fields) error {
	to, err := w.join(ctx, v, from, rules.Identity(as))
	if err != nil {
		return Lost(err)
	}
	if err := w.Move(ctx, from, to); err != nil {
		return Lost(err)
	}
	return errMoved
}

// join makes the first swap. It returns the user's entry.
func (w *Writer) join(ctx context.Context, v *View, from Entry, as codec.Fields) (Entry, error) {
	name, err := w.userRecord(ctx, v, as)
	if err != nil {
		return Entry{}, err
	}
	return w.Join(ctx, v, name, from, stored.Record{Fields: as})
}

// userRecord returns the name of the record of the user and client in the parameter as. If no such
// record exists, userRecord returns the name under which to create the record.
func (w *Writer) userRecord(ctx context.Context, v *View, as codec.Fields) (Name, error) {
	for _, n := range w.Namers() {
		name := n.Of(as)
		e, err := v.Read(ctx, name)
		switch {
		case err == nil && e.Target() == nil:
			return name, nil
		case err != nil && !errors.Is(err, driver.ErrNotFound):
			return "", err
		}
	}
	n, err := w.NamerForNew(ctx)
	return n.Of(as), err
}

// Join puts the old entry, the parameter from, on the joining list of the named entry, which
// belongs to the user and client of r. If the entry does not exist, Join creates the entry from r.
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
		// Another process has already put the old entry on the list of a record that may have been
		// deleted since. An entry that moves to a deleted record is lost, so prove by a write that
		// the record exists.
		return w.Update(ctx, to, next)
	}
	next.Fields = rules.WithIdentity(next.Fields, r.Fields)
	w.settle(ctx, v, to, &next)
	if len(next.Joining)+len(next.Absorbed) >= maxJoining {
		return Entry{}, fmt.Errorf("%w: too many records are about to become %q", driver.ErrConflict, to.Name)
	}
	next.Joining = append(slices.Clone(next.Joining), from.Ref())
	return w.Update(ctx, to, next)
}

// clear deletes an entry that has the name of a user's record, if the entry leads to a deleted
// record. It always returns an error, because this attempt of the promotion cannot continue.
func (w *Writer) clear(ctx context.Context, v *View, dead Entry) error {
	if _, err := v.Resolve(ctx, dead); !errors.Is(err, errDead) {
		return fmt.Errorf("%w: %q has moved", driver.ErrCorrupt, dead.Name)
	}
	if err := w.RemoveDead(ctx, dead); err != nil {
		return err
	}
	return fmt.Errorf("%w: %q had moved to a record that was deleted", driver.ErrConflict, dead.Name)
}

// Move makes the second, third and fourth swap. The joining list of the user's entry, the parameter
// to, must contain the old entry.
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
		// Another process has deleted the user's record, which included the old entry.
		_ = w.RemoveDead(ctx, at)
	}
	return err
}

// freeze makes the second swap.
func (w *Writer) freeze(ctx context.Context, from Entry, to stored.Ref) (Entry, error) {
	next := from.Record
	next.Moved = &to
	return w.Update(ctx, from, next)
}

// Complete makes the second, third and fourth swap of an abandoned promotion. It does not
// undo the first swap, because the writer of that swap may only be slow. The slow writer
// would then move the record to an entry that does not list the record.
func (w *Writer) Complete(ctx context.Context, from, to Entry) error {
	if _, err := w.freeze(ctx, from, to.Ref()); err != nil {
		return Lost(err)
	}
	return w.TakeOver(ctx, to.Ref())
}

// TakeOver makes the third and the fourth swap for all entries that have moved to one record.
// The parameter to refers to that record.
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

// Redirect makes the fourth swap. It replaces an entry, the parameter from, which was merged into
// another entry, with a redirect. The parameter to refers to the other entry. The redirect keeps
// the IDs that find the merged entry.
func (w *Writer) Redirect(ctx context.Context, from Entry, to stored.Ref) error {
	left := stored.Record{Fields: codec.Fields{ID: from.ID}, Born: from.Born, Alias: &to, IDs: from.IDs}
	_, err := w.Update(ctx, from, left)
	return err
}

// redirect makes the fourth swap after a commit. If the swap fails, a later writer makes the
// swap.
func (w *Writer) redirect(ctx context.Context, from, to Entry) {
	err := w.Redirect(ctx, from, to.Ref())
	if err != nil && !errors.Is(err, driver.ErrConflict) {
		w.Logger.WarnContext(ctx, "tokenstore: an entry that was merged into a record is not a redirect yet", "name", string(from.Name), "into", string(to.Name))
	}
}

// Relist puts a frozen entry, the parameter from, on the joining list of the record u, to which the
// entry has moved. The list lacks the entry only if another program changed the list.
func (w *Writer) Relist(ctx context.Context, u, from Entry) error {
	next := u.Record
	next.Joining = append(slices.Clone(next.Joining), from.Ref())
	_, err := w.Update(ctx, u, next)
	return Lost(err)
}

// Unlist removes refs from the joining list of u. The refs must name redirects or former
// incarnations, because such entries cannot move to u. If an unlisted entry moved to u, the
// tokens of the entry would be lost. If reads lag, Unlist first proves, by writes if
// necessary, that no entry in refs can move to u.
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

// proveUnable returns an error unless the incarnation ref does not exist or is a redirect.
func (w *Writer) proveUnable(ctx context.Context, ref stored.Ref) error {
	if w.Properties.ReadLag == 0 {
		return nil // reads do not lag, so the read of the caller is proof
	}
	now, err := w.Newest(ctx, Name(ref.Name), Entry{})
	switch {
	case err == nil && now.Born == ref.Born && now.Alias != nil:
		return nil // a redirect stays a redirect
	case err == nil && now.Born != ref.Born && now.Target() != nil:
		// A frozen entry must not be overwritten, so no write can prove that the incarnation
		// ref is gone.
		return fmt.Errorf("%w: whether %q is gone cannot be proved", driver.ErrUnavailable, ref.Name)
	}
	return w.proveOver(ctx, ref, now, err)
}

// proveOver proves by a Create or an Update that the incarnation ref does not exist. now and
// err are the result of a read of the name in ref, which may be out of date.
func (w *Writer) proveOver(ctx context.Context, ref stored.Ref, now Entry, err error) error {
	switch {
	case errors.Is(err, driver.ErrNotFound):
		// If the response to Create was lost, another process may have written to the created
		// entry. That entry has more than one nonce, and must not be deleted.
		now, err = w.Create(ctx, Name(ref.Name), stored.Record{})
		if err == nil && len(now.Nonces) == 1 {
			err = w.Driver.Delete(ctx, ref.Name, now.secret)
		}
	case err == nil && now.Born == ref.Born:
		err = driver.ErrConflict // the incarnation exists after all
	case err == nil:
		_, err = w.Update(ctx, now, now.Record)
	}
	return Lost(err)
}

// RemoveDead deletes an entry that leads to a deleted record. If reads lag, RemoveDead first proves
// by a write that the record does not exist.
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
