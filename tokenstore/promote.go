package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
)

// promote moves the record from, which has no user, to the record of a user, in
// four swaps:
//
//  1. The user's record gets from into its joining list. If there is none, one
//     is created that has nothing but this list; it is not a record yet.
//  2. from gets "moved": its tokens stay in it, and it is not changed any more.
//  3. The user's record takes over the tokens, and from is absorbed.
//  4. from becomes an alias.
//
// After each of them every reader finds the one token by either name: before the
// second in from, after it in the user's record, which reads from until the
// third. Whoever writes to the user's record does the third and fourth. Only an
// Update does the third: if the user's record is deleted meanwhile, from is
// deleted with it, and nobody brings it back.
//
// Entries refer to each other by name and life (codec.Record.Born), so that
// neither side is mistaken for a later record of the same name.
//
// promote never returns nil: what is to be saved is still to be merged into the
// user's record, by the next attempt.
func (v *saver) promote(ctx context.Context, r *reader, from record, user, client string) error {
	to, err := v.join(ctx, r, from, user, client)
	if err != nil {
		return lost(err)
	}
	if err := v.moveTo(ctx, from, to); err != nil {
		return lost(err)
	}
	return again{errors.New("moved")}
}

// moveTo does the swaps after the first: to has from in its joining list.
func (v *saver) moveTo(ctx context.Context, from record, to entry) error {
	moved := from.record
	ref := to.ref()
	moved.Moved = &ref
	at, err := v.write(ctx, from.name, from.entry, moved, v.nonce)
	if err != nil {
		return err
	}
	v.moved = to.name
	after := v.reader(false)
	_, _ = after.note(to.name, to, nil)
	_, _ = after.note(at.name, at, nil)
	rec, err := after.view(ctx, to)
	if err == nil {
		_, err = v.commit(ctx, after, rec, rec.current, nil)
	}
	if errors.Is(err, ErrNotFound) {
		// Deleted meanwhile. What remains of from is of no use, once that is
		// proved.
		_ = v.bury(ctx, at)
	}
	return err
}

// join does the first swap. It returns the user's entry.
func (v *saver) join(ctx context.Context, r *reader, from record, user, client string) (entry, error) {
	name, err := v.userRecord(ctx, r, user, client)
	if err != nil {
		return entry{}, err
	}
	to, err := r.read(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return v.write(ctx, name, entry{}, codec.Record{Fields: codec.Fields{UserName: user, ClientID: client}, Joining: []codec.Ref{from.ref()}}, v.nonce)
	case err != nil:
		return entry{}, err
	}
	return v.list(ctx, r, to, from, user, client)
}

// list puts from on the joining list of to.
func (v *saver) list(ctx context.Context, r *reader, to entry, from record, user, client string) (entry, error) {
	switch {
	case to.target() != nil:
		if _, err := r.resolve(ctx, to); !errors.Is(err, errDead) {
			return entry{}, fmt.Errorf("%w: %q has moved", ErrCorrupt, to.name)
		}
		if err := v.bury(ctx, to); err != nil {
			return entry{}, err
		}
		return entry{}, fmt.Errorf("%w: %q had moved to a record that was deleted", ErrConflict, to.name)
	case slices.Contains(to.record.Joining, from.ref()) && v.properties.ReadLag == 0:
		return to, nil
	case slices.Contains(to.record.Joining, from.ref()):
		// Another process has done it. It may be a record that was deleted since, and
		// whatever moves to that is lost: only a write proves that it is there.
		return v.write(ctx, to.name, to, to.record, v.nonce)
	}
	next := to.record
	next.UserName, next.ClientID = user, client
	v.settle(ctx, r, to, &next)
	if len(next.Joining)+len(next.Absorbed) >= maxJoining {
		return entry{}, fmt.Errorf("%w: too many records are about to become %q", ErrConflict, to.name)
	}
	next.Joining = append(slices.Clone(next.Joining), from.ref())
	return v.write(ctx, to.name, to, next, v.nonce)
}

// userRecord returns the name of the record of a user and client, or the one that
// it is to be created under.
func (v *saver) userRecord(ctx context.Context, r *reader, user, client string) (string, error) {
	for _, under := range v.namings() {
		name := under.userName(user, client)
		e, err := r.read(ctx, name)
		switch {
		case err == nil && e.target() == nil:
			return name, nil
		case err != nil && !errors.Is(err, ErrNotFound):
			return "", err
		}
	}
	key, err := v.naming(ctx)
	return v.under(key).userName(user, client), err
}

// alias does the fourth swap: it leaves of from, which was merged into to, only
// where it went. If that fails a later writer does it.
func (v *saver) alias(ctx context.Context, from, to entry) {
	ref := to.ref()
	_, err := v.write(ctx, from.name, from, aliasOf(from, ref), v.nonce)
	if err != nil && !errors.Is(err, ErrConflict) {
		v.o.Logger.WarnContext(ctx, "tokenstore: a record that was merged into another one is not an alias yet", "name", from.name, "into", to.name)
	}
}

// bury deletes an entry that has moved to a record that is gone. Where reads may
// be out of date, that it is gone is first proved by a write: only a Create or an
// Update decides.
func (v *saver) bury(ctx context.Context, dead entry) error {
	to := dead.target()
	if v.properties.ReadLag > 0 {
		grave, err := v.fresh(ctx, to.Name, entry{})
		switch {
		case errors.Is(err, ErrNotFound):
			grave, err = v.write(ctx, to.Name, entry{}, codec.Record{}, v.nonce)
			if err == nil {
				err = v.driver.Delete(ctx, to.Name, grave.secret)
			}
		case err == nil && grave.record.Born == to.Born:
			err = ErrConflict // it is there after all
		case err == nil:
			_, err = v.write(ctx, to.Name, grave, grave.record, v.nonce)
		}
		if err != nil {
			return lost(err)
		}
	}
	return lost(v.driver.Delete(ctx, dead.name, dead.secret))
}
