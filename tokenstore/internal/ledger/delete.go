package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// DeleteRecord deletes rec, and then the entries that have moved to rec, because these
// entries may hold tokens. Once rec is deleted, readers do not find these entries, so a
// failure to delete one of them is not an error. The error is Retryable if another writer has
// changed rec.
func (l *Ledger) DeleteRecord(ctx context.Context, rec Entry) error {
	if err := l.Delete(ctx, rec); err != nil {
		return Lost(err)
	}
	for _, from := range rec.Frozen {
		l.sweep(ctx, from)
	}
	left := slices.Clone(rec.Absorbed)
	for _, redirect := range rec.Redirects {
		left = append(left, redirect.Ref)
	}
	for _, ref := range left {
		// A stale read might miss an entry that holds tokens.
		if e, err := l.Newest(ctx, Name(ref.Name), Entry{}); err == nil && e.Born == ref.Born {
			l.sweep(ctx, e)
		}
	}
	return nil
}

// sweep deletes an entry that no reader needs, and logs a failure.
func (l *Ledger) sweep(ctx context.Context, e Entry) {
	if err := l.Driver.Delete(ctx, string(e.Name), e.secret); err != nil {
		l.Logger.WarnContext(ctx, "tokenstore: what remains of a deleted record could not be removed", "name", string(e.Name))
	}
}

// Delete deletes e. If the outcome of the deletion is unknown, Delete reads the entry to find
// out. If another writer has changed the entry, the error matches driver.ErrConflict.
func (l *Ledger) Delete(ctx context.Context, e Entry) error {
	err := l.Driver.Delete(ctx, string(e.Name), e.secret)
	if err == nil || isOneOf(err, driver.ErrConflict, driver.ErrDenied, driver.ErrRefused) {
		return err
	}
	now, readErr := l.Newest(ctx, e.Name, e)
	switch {
	case errors.Is(readErr, driver.ErrNotFound):
		return l.CompleteDelete(ctx, e.Name, e.secret)
	case readErr == nil && now.Born != e.Born && l.Properties.ReadLag == 0:
		return nil // reads do not lag, so e was current when it was read, and was deleted since
	case readErr == nil && now.secret.Version != e.secret.Version:
		// If reads lag, e may be the stale state of an entry that was deleted long ago. The
		// caller may then have to delete the current entry.
		return fmt.Errorf("%w: another writer came first", driver.ErrConflict)
	}
	return err
}

// CompleteDelete repeats a deletion that may have been abandoned after readers ceased to see
// the entry, but before all of its states were removed. If another entry has the name, the
// deletion was completed, and CompleteDelete returns nil. If reads lag, however, the other
// entry may be older than the deletion, and CompleteDelete returns a Retryable error.
func (l *Ledger) CompleteDelete(ctx context.Context, name Name, base driver.Secret) error {
	err := l.Driver.Delete(ctx, string(name), base)
	switch {
	case !errors.Is(err, driver.ErrConflict):
		return err
	case l.Properties.ReadLag > 0:
		return Lost(err)
	}
	return nil
}

// DeleteAll deletes all entries that can be read, even if other processes change the entries
// meanwhile, and then the marker of keys. It keeps unreadable entries. The error joins an
// *UnreadableError for each unreadable entry and the errors of the entries that could not be
// deleted. After any error, DeleteAll keeps the marker. If the service throttles deletions,
// DeleteAll paces the deletions.
func (l *Ledger) DeleteAll(ctx context.Context) error {
	keyed, err := l.keyed()
	if err != nil {
		return err
	}
	all, err := l.deletable(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(all.entries))
	throttled := pace.New(func(err error) bool { return errors.Is(err, driver.ErrThrottled) }, 0).Each(ctx, len(errs), func(ctx context.Context, i int) error {
		e := all.entries[i]
		err := l.deleteListed(ctx, e)
		if err != nil {
			err = fmt.Errorf("secret %q was not deleted: %w", e.Name, err)
		}
		if errors.Is(err, driver.ErrThrottled) {
			return err
		}
		errs[i] = err // the other entries are still deleted
		return nil
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	err = errors.Join(throttled, errors.Join(errs...), JoinUnreadable(all.unread))
	if err != nil || !keyed && !all.marked {
		return err
	}
	return l.removeMarker(ctx)
}

// A deletable lists the secrets that DeleteAll finds in a store.
type deletable struct {
	entries []Entry
	unread  []*UnreadableError
	marked  bool // the store has a marker of keys
}

func (l *Ledger) deletable(ctx context.Context) (all deletable, err error) {
	listed := l.list(ctx, func(named driver.Named, _ error) { all.marked = all.marked || named.Name == markerName })
	for e, err := range l.entries(ctx, own(listed)) {
		switch u := OnlyUnreadable(err); {
		case u != nil:
			all.unread = append(all.unread, u)
		case err != nil:
			return all, err
		default:
			// Do not keep the tokens of all users in memory: a deletion does not need Data.
			e.secret.Data = nil
			all.entries = append(all.entries, Entry{
				Record: stored.Record{Born: e.Born, Moved: e.Moved, Alias: e.Alias}, Name: e.Name, secret: e.secret,
			})
		}
	}
	all.forgetListed()
	return all, nil
}

// forgetListed clears the target of each entry that leads to a listed secret, because
// DeleteAll processes each listed secret anyway. The remaining targets are records to which
// entries have moved while the driver listed the secrets.
func (d *deletable) forgetListed() {
	listed := map[Name]bool{}
	for _, e := range d.entries {
		listed[e.Name] = true
	}
	for _, u := range d.unread {
		listed[Name(u.Name)] = true
	}
	for i, e := range d.entries {
		if to := e.Target(); to != nil && listed[Name(to.Name)] {
			d.entries[i].Moved, d.entries[i].Alias = nil, nil
		}
	}
}

// deleteListed deletes an entry, even if the entry has changed since the driver listed it. If
// the entry has moved, deleteListed first deletes the record to which the entry has moved,
// because the list may not contain that record.
func (l *Ledger) deleteListed(ctx context.Context, e Entry) error {
	return l.Retry(ctx, "delete all", func(v *View) (err error) {
		if v.Fresh() {
			e, err = v.Read(ctx, e.Name)
			if errors.Is(err, driver.ErrNotFound) {
				return nil
			}
		}
		if err == nil && e.Target() != nil {
			err = l.deleteTarget(ctx, v, e)
		}
		if err == nil {
			err = Lost(l.Delete(ctx, e))
		}
		return err
	})
}

// deleteTarget deletes the record that e leads to. It returns nil if the record does not
// exist.
func (l *Ledger) deleteTarget(ctx context.Context, v *View, e Entry) error {
	rec, err := v.Resolve(ctx, e)
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return nil
	case err != nil:
		return Lost(err)
	}
	return l.DeleteRecord(ctx, rec)
}
