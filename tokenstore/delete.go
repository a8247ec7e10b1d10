package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// DeleteToken implements TokenStore.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.error("delete", id, s.delete(ctx, id, nil))
}

// delete deletes the record with the ID. If check is not nil it is called with the
// newest state that can be proved, and its error leaves the record as it is.
func (s *Store) delete(ctx context.Context, id string, check func(record) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	like := Token{ID: id}
	if err := Validate(like); err != nil {
		return err
	}
	if id == "" {
		return fmt.Errorf("%w: the ID is empty", ErrInvalidToken)
	}
	return s.retry(ctx, "delete", func(r *reader) error {
		if check != nil {
			r = s.reader(true) // a stale state does not show a change
		}
		rec, _, err := s.only(ctx, r, like)
		switch {
		case errors.Is(err, ErrNotFound) && derived(id):
			return s.deleteRest(ctx, r, id)
		case errors.Is(err, ErrNotFound):
			return nil
		case err == nil && check != nil:
			err = check(rec)
		}
		if err != nil {
			return err
		}
		return s.deleteRecord(ctx, rec)
	})
}

// deleteRest deletes what there may be of a record that is not found: what a
// deletion has left that broke off, or an entry that had moved to a record which
// was deleted.
func (s *Store) deleteRest(ctx context.Context, r *reader, id string) error {
	r.mu.Lock()
	e, there := r.known[id]
	r.mu.Unlock()
	switch {
	case !there:
		return s.complete(ctx, id, driver.Secret{})
	case e.target() == nil:
		return nil // it waits for another record to move to it, which has an ID of its own
	}
	v := saver{Store: s, nonce: nonce()}
	return v.bury(ctx, e)
}

// deleteRecord deletes a record, and then what holds its tokens elsewhere: those
// that have moved to it are gone with it, but their secrets would stay.
func (s *Store) deleteRecord(ctx context.Context, rec record) error {
	if err := s.deleteEntry(ctx, rec.entry); err != nil {
		return lost(err)
	}
	for _, p := range rec.pending {
		s.sweep(ctx, p)
	}
	left := slices.Clone(rec.record.Absorbed)
	for _, redirect := range rec.record.Redirects {
		left = append(left, redirect.Ref)
	}
	for _, ref := range left {
		// A read that is out of date may not show what holds tokens.
		if e, err := s.fresh(ctx, ref.Name, entry{}); err == nil && e.record.Born == ref.Born {
			s.sweep(ctx, e)
		}
	}
	return nil
}

// sweep deletes what is of no use any more. If that fails it does no harm.
func (s *Store) sweep(ctx context.Context, e entry) {
	if err := s.driver.Delete(ctx, e.name, e.secret); err != nil {
		s.o.Logger.WarnContext(ctx, "tokenstore: what remains of a deleted record could not be removed", "name", e.name)
	}
}

// deleteEntry deletes an entry, and finds out whether it is gone if that is not
// known.
func (s *Store) deleteEntry(ctx context.Context, e entry) error {
	err := s.driver.Delete(ctx, e.name, e.secret)
	if err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrDenied) || errors.Is(err, ErrRefused) {
		return err
	}
	now, readErr := s.fresh(ctx, e.name, e)
	switch {
	case errors.Is(readErr, ErrNotFound):
		return s.complete(ctx, e.name, e.secret)
	case readErr == nil && now.record.Born != e.record.Born && s.properties.ReadLag == 0:
		return nil // e was there when it was read, and is not any more
	case readErr == nil && now.secret.Version != e.secret.Version:
		// Where reads may be out of date, e may have been gone for long when it was
		// read: what is there now may be what is to be deleted.
		return fmt.Errorf("%w: another writer came first", ErrConflict)
	}
	return err
}

// complete repeats a deletion that may have broken off: what was deleted is gone
// for readers, but what was before may still be there. If something else has the
// name by now, there is nothing to complete; unless reads may be out of date, and
// it may have been there all the time.
func (s *Store) complete(ctx context.Context, name string, base driver.Secret) error {
	err := s.driver.Delete(ctx, name, base)
	switch {
	case !errors.Is(err, ErrConflict):
		return err
	case s.properties.ReadLag > 0:
		return lost(err)
	}
	return nil
}

// deleteWorkers is how many deletions DeleteTokens has under way at once.
const deleteWorkers = 16

// DeleteTokens implements TokenStore.
func (s *Store) DeleteTokens(ctx context.Context) error {
	return s.error("delete all", "", s.deleteAll(ctx))
}

func (s *Store) deleteAll(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	var entries []entry
	var unread []*UnreadableError
	marked, err := s.keyed()
	if err != nil {
		return err
	}
	for named, err := range ours(s.driver.List(ctx)) {
		if named.Name == markerName {
			marked = true
			continue
		}
		var e entry
		if err == nil {
			e, err = s.entry(named.Name, named.Secret)
		}
		err = listedErr(ctx, named.Name, err)
		switch u := onlyUnreadable(err); {
		case u != nil:
			unread = append(unread, u)
		case err != nil:
			return err
		default:
			// What a deletion needs, and not the tokens of all users at once.
			e.secret.Data = nil
			e.record = codec.Record{Born: e.record.Born}
			entries = append(entries, e)
		}
	}
	errs := make([]error, len(entries))
	slots := make(chan struct{}, deleteWorkers)
	var wait sync.WaitGroup
	for i, e := range entries {
		slots <- struct{}{}
		wait.Go(func() {
			if err := s.deleteListed(ctx, e); err != nil {
				errs[i] = fmt.Errorf("secret %q was not deleted: %w", e.name, err)
			}
			<-slots
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := errors.Join(errors.Join(errs...), joinUnreadable(unread)); err != nil {
		return err
	}
	if !marked {
		return nil
	}
	return s.removeMarker(ctx)
}

// deleteListed deletes an entry whatever its state has become.
func (s *Store) deleteListed(ctx context.Context, e entry) error {
	first := true
	return s.retry(ctx, "delete all", func(*reader) error {
		if !first {
			var err error
			if e, err = s.fresh(ctx, e.name, entry{}); errors.Is(err, driver.ErrNotFound) {
				return nil
			} else if err != nil {
				return err
			}
		}
		first = false
		return lost(s.deleteEntry(ctx, e))
	})
}
