package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A record gets a name by another key as it gets a user: in the swaps of a
// promotion. All that know both keys find it at every moment, by the one name or
// the other. It keeps its ID. Until Rekey is done, records are created under the old
// name: "create" decides there, whatever order a process has its keys in.

// misplaced reports whether e is named by another key than NameKey. The name of a
// record without a user may be by a token that has been replaced: it says nothing
// then, and stays.
func (c *checker) misplaced(e entry) bool {
	if e.target() != nil || len(c.Store.o.OtherNameKeys) == 0 || c.fits(e) {
		return false
	}
	return slices.ContainsFunc(c.namings(), func(under *Store) bool { return (&checker{Store: under}).fits(e) })
}

// rename moves a record to its name by NameKey.
func (k *rekeyer) rename(ctx context.Context, e entry) error {
	r := k.reader(true)
	_, _ = r.note(e.name, e, nil)
	rec, err := r.view(ctx, e)
	switch {
	case errors.Is(err, ErrNotFound) && len(e.record.Joining) == 0:
		return k.deleteEntry(ctx, e) // it was made for a record that was deleted
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	}
	if len(rec.entry.record.Joining) > 0 || errors.Is(err, ErrNotFound) {
		return k.joined(ctx, r, e)
	}
	v := saver{Store: k.Store, nonce: nonce()}
	if len(rec.record.Absorbed) > 0 {
		_, err := v.commit(ctx, r, rec, rec.current, nil) // what it has absorbed become aliases
		return err
	}
	to, err := k.place(ctx, r, v, rec)
	if err != nil {
		return err
	}
	if err := k.claim(ctx, &rec); err != nil {
		return err
	}
	return v.moveTo(ctx, rec, to)
}

// joined completes what was about to become part of e.
func (k *rekeyer) joined(ctx context.Context, r *reader, e entry) error {
	problems, err := k.joining(ctx, r, e)
	if err != nil {
		return err
	}
	for _, p := range problems {
		if p.mend == nil {
			return fmt.Errorf("%w: %q: %s", ErrCorrupt, e.name, p.detail)
		}
		return p.mend(ctx)
	}
	return k.takeOver(ctx, e.ref())
}

// claim takes the lease of the record if that is a note, which would not move with
// it: no process asks the authorization server while it moves. A lease within the
// record moves along.
func (k *rekeyer) claim(ctx context.Context, rec *record) error {
	l, ok := k.driver.(driver.Leaser)
	if !ok || rec.record.UserName == "" {
		return nil
	}
	now := k.Store.o.Now()
	if held := noteLease(rec.secret.Note); held != nil && held.ID != k.lease && now.Before(time.UnixMilli(held.Until)) {
		return fmt.Errorf("%w: %q is being refreshed", ErrConflict, rec.name)
	}
	mine := leaseNote(codec.Lease{ID: k.lease, Until: now.Add(k.Store.o.LeaseTTL).UnixMilli()})
	if err := l.Note(ctx, rec.name, rec.secret, mine); err != nil {
		return err
	}
	rec.secret.Note, rec.drop = mine, mine
	return nil
}

// place does the first swap. The record to be has all of the old one but its
// tokens; one that is there already, of the same user, becomes the one record.
func (k *rekeyer) place(ctx context.Context, r *reader, v saver, rec record) (entry, error) {
	name := k.derive(rec.current)
	to, err := r.read(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		next := rec.record
		put(&next, Token{UserName: rec.current.UserName, ClientID: rec.current.ClientID})
		next.ID = rec.current.ID
		next.Born, next.Nonces, next.Writes, next.Labels = "", nil, nil, nil
		next.Joining = []codec.Ref{rec.ref()}
		return v.write(ctx, name, entry{}, next, v.nonce)
	case err != nil:
		return entry{}, err
	}
	return v.list(ctx, r, to, rec, rec.current.UserName, rec.current.ClientID)
}

// alias has an alias lead directly to its record, after that has got another name,
// and reports whether it did not. The alias at the old name goes once records are
// created by NameKey, and the record is found by its ID without it: until then it
// keeps another one from being created there.
func (k *rekeyer) alias(ctx context.Context, listed entry) (rewritten bool, err error) {
	err = k.retry(ctx, "rekey", func(*reader) error {
		r := k.reader(true)
		e, err := r.read(ctx, listed.name)
		if errors.Is(err, ErrNotFound) || err == nil && e.record.Alias == nil {
			return nil
		}
		if err != nil {
			return err
		}
		rec, err := r.resolve(ctx, e)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil // doctor removes it
		case err != nil:
			return err
		case rec.ref() != *e.record.Alias:
			rewritten = true
			if k.dry {
				return nil
			}
			_, err = k.write(ctx, e.name, e, aliasOf(e, rec.ref()), nonce())
			return lost(err)
		case k.dry || !k.settled || !k.replaces(rec.record, e) || !k.outlived(e.record.Updated):
			return nil
		}
		return lost(k.driver.Delete(ctx, e.name, e.secret))
	})
	return rewritten, err
}
