package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// DeleteRecord deletes a record, and then the entries that hold its tokens elsewhere.
// Readers do not find an entry that leads to a deleted record, but its secret would
// stay.
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
		// A stale read may not show an entry that holds tokens.
		if e, err := l.Newest(ctx, Name(ref.Name), Entry{}); err == nil && e.Born == ref.Born {
			l.sweep(ctx, e)
		}
	}
	return nil
}

// sweep deletes an entry that no reader needs. A failure is logged and does no harm.
func (l *Ledger) sweep(ctx context.Context, e Entry) {
	if err := l.Driver.Delete(ctx, string(e.Name), e.secret); err != nil {
		l.Logger.WarnContext(ctx, "tokenstore: what remains of a deleted record could not be removed", "name", string(e.Name))
	}
}

// Delete deletes an entry. If the outcome is unknown, it finds out whether the entry is
// gone.
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
		return nil // e existed when it was read, and does not exist any more
	case readErr == nil && now.secret.Version != e.secret.Version:
		// A stale read may have returned an e that was deleted long ago. The entry that
		// exists now may then be the one to delete.
		return fmt.Errorf("%w: another writer came first", driver.ErrConflict)
	}
	return err
}

// CompleteDelete repeats a deletion that may have been abandoned: readers no longer see
// the entry, but its earlier states may still exist. If the name belongs to another
// entry by now, nothing is left to complete. Where reads may be out of date, that entry
// may have existed all the time: CompleteDelete then returns a Retryable error.
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

// deleteWorkers is how many deletions DeleteAll makes at once.
const deleteWorkers = 16

// DeleteAll deletes all entries that can be read, whatever their state becomes
// meanwhile, and then the marker of keys. It leaves unreadable entries alone, and
// returns an error that joins an *UnreadableError for each of them.
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
	slots := make(chan struct{}, deleteWorkers)
	var wait sync.WaitGroup
	for i, e := range all.entries {
		slots <- struct{}{}
		wait.Go(func() {
			if err := l.deleteListed(ctx, e); err != nil {
				errs[i] = fmt.Errorf("secret %q was not deleted: %w", e.Name, err)
			}
			<-slots
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	err = errors.Join(errors.Join(errs...), JoinUnreadable(all.unread))
	if err != nil || !keyed && !all.marked {
		return err
	}
	return l.removeMarker(ctx)
}

// A deletable holds what DeleteAll finds in a store.
type deletable struct {
	entries []Entry
	unread  []*UnreadableError
	marked  bool // the store has a marker of keys
}

func (l *Ledger) deletable(ctx context.Context) (all deletable, err error) {
	listed := l.list(ctx, func() { all.marked = true })
	for e, err := range l.entries(ctx, own(listed)) {
		switch u := OnlyUnreadable(err); {
		case u != nil:
			all.unread = append(all.unread, u)
		case err != nil:
			return all, err
		default:
			// A deletion needs only the version. With Data, the list would hold the
			// tokens of all users at once.
			e.secret.Data = nil
			all.entries = append(all.entries, Entry{Record: stored.Record{Born: e.Born}, Name: e.Name, secret: e.secret})
		}
	}
	return all, nil
}

// deleteListed deletes an entry, whatever its present state is.
func (l *Ledger) deleteListed(ctx context.Context, e Entry) error {
	return l.Retry(ctx, "delete all", func(v *View) (err error) {
		if v.Fresh() {
			e, err = v.Read(ctx, e.Name)
			if errors.Is(err, driver.ErrNotFound) {
				return nil
			}
		}
		if err == nil {
			err = Lost(l.Delete(ctx, e))
		}
		return err
	})
}
