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

// An entry is a stored record as it was read.
type entry struct {
	name   string
	secret driver.Secret // the base of a write over it
	record codec.Record
	drop   string // the note that a write over it removes
}

func (e entry) ref() codec.Ref { return codec.Ref{Name: e.name, Born: e.record.Born} }

// token returns the token in the entry. Its ID is the name, unless the caller
// chose one.
func (e entry) token() Token {
	f := e.record.Fields
	f.ID = either(f.ID, e.name)
	return FromFields(f)
}

// updated returns when the entry was written, by the writer's clock.
func (e entry) updated() time.Time { return time.UnixMilli(e.record.Updated) }

// put sets the token in r, all but the ID.
func put(r *codec.Record, t Token) {
	t.ID = r.ID
	r.Fields = t.Fields()
}

// entry decodes what the driver returned.
func (s *Store) entry(name string, secret driver.Secret) (entry, error) {
	r, err := s.o.Codec.Decode(name, secret.Data)
	if err != nil {
		return entry{}, fmt.Errorf("%w: secret %q: %w", ErrCorrupt, name, err)
	}
	if is := secret.Incarnation; is != "" && r.Born != "" && r.Born != is {
		return entry{}, fmt.Errorf("%w: secret %q: it is a state of an earlier incarnation", ErrCorrupt, name)
	}
	secret.Labels = driverLabels(r.Labels)
	return entry{name: name, secret: secret, record: r}, nil
}

// get reads a record in one call.
func (s *Store) get(ctx context.Context, name string) (entry, error) {
	secret, err := s.driver.Get(ctx, name)
	if err != nil {
		return entry{}, err
	}
	return s.entry(name, secret)
}

// fresh reads the newest state of a record that can be proved, at least as new
// as than.
func (s *Store) fresh(ctx context.Context, name string, than entry) (entry, error) {
	secret, err := s.driver.Fresh(ctx, name, than.secret)
	if err != nil {
		return entry{}, err
	}
	return s.entry(name, secret)
}

// write stores r under name: over base, or, if base is the zero entry, as a new
// record. It fails with ErrConflict, ErrExists or ErrNotFound only if it is
// certain that nothing was written, and never will be. labelNonce is the one of
// the operation: a write that is tried again adds the same labels.
func (s *Store) write(ctx context.Context, name string, base entry, r codec.Record, labelNonce string) (entry, error) {
	mine := nonce()
	r.Nonces = append([]string{mine}, r.Nonces...)
	r.Nonces = r.Nonces[:min(len(r.Nonces), maxNonces)]
	now := s.o.Now().UnixMilli()
	if s.properties.DailyWrites > 0 {
		r.Writes = counted(r, now)
	}
	r.Updated = now
	if r.Born == "" {
		r.Born = mine
	}
	r.Labels = s.relabeled(name, base, s.labels(r, base.record.Labels, labelNonce))
	data, err := s.o.Codec.Encode(name, r)
	if err != nil {
		return entry{}, err
	}
	if len(data) > s.properties.MaxSize {
		return entry{}, fmt.Errorf("%w: it would have %d bytes, the limit is %d", ErrTooLarge, len(data), s.properties.MaxSize)
	}
	payload := driver.Payload{Data: data, Labels: driverLabels(r.Labels), Drop: base.drop, Incarnation: r.Born}
	written := entry{name: name, secret: driver.Secret{Payload: driver.Payload{Data: data, Labels: driverLabels(r.Labels)}}, record: r}
	if base.name == "" {
		written.secret.Version, err = s.driver.Create(ctx, name, payload)
	} else {
		written.secret.Version, err = s.driver.Update(ctx, name, base.secret, payload)
	}
	if err == nil {
		s.adopt(ctx)
		return written, nil
	}
	for _, certain := range []error{driver.ErrConflict, driver.ErrExists, driver.ErrNotFound, driver.ErrDenied, driver.ErrRefused} {
		if errors.Is(err, certain) {
			return entry{}, err
		}
	}
	return s.outcome(ctx, name, base, mine, err)
}

// relabeled gives those of the labels of a write that its base does not have the
// nonces that the driver wants them to have.
func (s *Store) relabeled(name string, base entry, labels []codec.Label) []codec.Label {
	labeler, ok := s.driver.(driver.Labeler)
	if !ok {
		return labels
	}
	added := slices.DeleteFunc(slices.Clone(labels), func(l codec.Label) bool { return slices.Contains(base.record.Labels, l) })
	kept := slices.DeleteFunc(labels, func(l codec.Label) bool { return slices.Contains(added, l) })
	for _, l := range labeler.Relabel(name, base.secret.Version, driverLabels(added)) {
		kept = append(kept, codec.Label(l))
	}
	slices.SortFunc(kept, compareLabels)
	return kept
}

// hours is how many hours a day can have a part in.
const hours = 25

// counted returns r.Writes with one write more, at the given time.
func counted(r codec.Record, now int64) []int {
	passed := max(now/time.Hour.Milliseconds()-r.Updated/time.Hour.Milliseconds(), 0)
	counts := make([]int, min(passed, hours), hours+len(r.Writes))
	counts = append(counts, r.Writes...)
	counts = counts[:min(len(counts), hours)]
	if len(counts) == 0 {
		return []int{1}
	}
	counts[0]++
	return counts
}

// outcome decides whether the write with the given nonce was applied though err
// came back.
func (s *Store) outcome(ctx context.Context, name string, base entry, mine string, err error) (entry, error) {
	now, readErr := s.fresh(ctx, name, base)
	switch {
	case errors.Is(readErr, ErrNotFound) && base.name != "":
		return entry{}, readErr
	case readErr != nil:
		return entry{}, err
	case slices.Contains(now.record.Nonces, mine):
		return now, nil
	case base.name == "":
		return entry{}, fmt.Errorf("%w: another writer created it", driver.ErrExists)
	case now.secret.Version != base.secret.Version:
		return entry{}, fmt.Errorf("%w: another writer came first", ErrConflict)
	}
	return entry{}, err
}

// addEarlier notes that the token behind name is no longer the present one. Of
// each kind the first and the last are kept.
func addEarlier(earlier []string, name string) []string {
	if slices.Contains(earlier, name) {
		return earlier
	}
	var kind, others []string
	for _, n := range earlier {
		if n[0] == name[0] {
			kind = append(kind, n)
		} else {
			others = append(others, n)
		}
	}
	if len(kind) == maxEarlier {
		kind = kind[:maxEarlier-1]
	}
	return append(append(others, kind...), name)
}

// noteMerged adds to r, which takes over the tokens of e, what would otherwise be
// forgotten of it. It reports whether the IDs that find e are among that: if they
// are too many, e has to stay, as an alias.
func (s *Store) noteMerged(r *codec.Record, e entry) bool {
	s.noteEarlier(r, e.token())
	ids := slices.Clone(r.IDs)
	for _, name := range s.idsOf(e) {
		if !slices.Contains(ids, name) && !(r.ID != "" && name == s.nameOfID(r.ID)) {
			ids = append(ids, name)
		}
	}
	if len(ids) > maxIDs {
		return false
	}
	r.IDs = ids
	return true
}

// idsOf returns the names of all IDs that find e.
func (s *Store) idsOf(e entry) []string {
	names := append([]string{e.name}, e.record.IDs...)
	if e.record.ID != "" {
		names = append(names, s.nameOfID(e.record.ID))
	}
	for _, ref := range e.record.Absorbed {
		names = append(names, ref.Name)
	}
	return names
}

// replaces reports whether r is found by all IDs that find e.
func (s *Store) replaces(r codec.Record, e entry) bool {
	return !slices.ContainsFunc(s.idsOf(e), func(name string) bool {
		return !slices.Contains(r.IDs, name) && !(r.ID != "" && name == s.nameOfID(r.ID))
	})
}

// labelled reports whether the secret of u carries the labels for the IDs that find
// e. A service may have had no room for them, or an operator removed them. Of a
// driver that cannot tell, what u was committed with counts.
func (s *Store) labelled(ctx context.Context, u, e entry) (bool, error) {
	var want []driver.Label
	for _, name := range s.idsOf(e) {
		t, ok := nameTerm(name)
		if !ok {
			continue
		}
		by := s.queries([]term{t})
		i := slices.IndexFunc(u.record.Labels, func(l codec.Label) bool {
			return slices.Contains(by, driver.Label{Key: l.Key, Value: l.Value})
		})
		if i < 0 {
			return false, nil
		}
		want = append(want, driver.Label(u.record.Labels[i]))
	}
	inspector, ok := s.driver.(driver.Inspector)
	if !ok || len(want) == 0 {
		return true, nil
	}
	present, err := inspector.Present(ctx, u.name, want)
	missing := slices.ContainsFunc(want, func(l driver.Label) bool { return !carries(present, l) })
	return err == nil && !missing, err
}

// aliasOf returns what is left of e once it has become part of the record that ref
// names: where it went, and the IDs that find it.
func aliasOf(e entry, ref codec.Ref) codec.Record {
	return codec.Record{Fields: codec.Fields{ID: e.record.ID}, Born: e.record.Born, Alias: &ref, IDs: e.record.IDs}
}

// outlived reports whether what was committed at the given time, by any clock, is
// seen by every search.
func (s *Store) outlived(since int64) bool {
	lag := s.properties.ListLag
	switch lag {
	case 0:
		return true
	case driver.Unbounded:
		lag = unboundedLag
	}
	return s.o.Now().Sub(time.UnixMilli(since))-clockSkew >= lag
}

// unboundedLag is how long searches are taken to be out of date where the service
// documents no bound.
const unboundedLag = 24 * time.Hour

// noteEarlier adds to r what its present tokens, compared with those of before,
// have replaced.
func (s *Store) noteEarlier(r *codec.Record, before Token) {
	if before.GrantToken != "" && string(before.GrantToken) != r.GrantToken {
		r.Earlier = addEarlier(r.Earlier, s.grantName(before.ClientID, before.GrantToken))
	}
	if before.RefreshToken != "" && string(before.RefreshToken) != r.RefreshToken {
		r.Earlier = addEarlier(r.Earlier, s.refreshName(before.ClientID, before.RefreshToken))
	}
}
