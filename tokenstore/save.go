package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
)

// SaveToken implements TokenStore.
func (s *Store) SaveToken(ctx context.Context, t Token) (Token, error) {
	saved, err := s.save(ctx, t)
	return saved, s.error("save", t.ID, err)
}

func (s *Store) save(ctx context.Context, t Token) (Token, error) {
	if err := s.begin(ctx); err != nil {
		return Token{}, err
	}
	if err := Validate(t); err != nil {
		return Token{}, err
	}
	var saved Token
	v := saver{Store: s, nonce: nonce()}
	err := s.retry(ctx, "save", func(r *reader) (err error) {
		saved, err = v.attempt(ctx, r, normal(t))
		return err
	})
	if err != nil {
		return Token{}, err
	}
	return saved, nil
}

// A saver is one SaveToken.
type saver struct {
	*Store
	nonce string // of the labels it adds

	// moved is the name of the record that the token's record was moved to by an
	// attempt before. A search for the caller's own ID may not find it there yet.
	moved string
}

// attempt tries to save once. It fails with again if another writer came first.
func (v *saver) attempt(ctx context.Context, r *reader, t Token) (Token, error) {
	records, err := v.targets(ctx, r, t)
	if err != nil {
		return Token{}, err
	}
	candidates := v.candidates(records, t)
	plan, err := PlanSave(t, candidates)
	unread := r.unread()
	if stale := !r.fresh && v.properties.ReadLag > 0; stale &&
		(unread != nil || err != nil || plan.Record < 0 && derived(plan.Token.ID) || plan.Record >= 0 && !plan.Changed) {
		// Before it is refused, or nothing is done, the newest states are asked for.
		return v.attempt(ctx, r.fresher(), t)
	}
	switch {
	case unread != nil && (err != nil || plan.Record < 0 || !settled(t, candidates[plan.Record])):
		// It may be the one that t belongs to: a second record is not created
		// beside it, nor another one changed in its place.
		return Token{}, unread
	case err != nil:
		return Token{}, err
	case plan.Record < 0:
		i := slices.IndexFunc(records, func(rec record) bool { return v.wasNamed(rec, plan.Token) })
		if i >= 0 && !r.fresh {
			return v.attempt(ctx, r.fresher(), t)
		}
		if i >= 0 {
			return Token{}, fmt.Errorf("%w: the record that was created with this token is %q, of a user or another client", ErrIDMismatch, records[i].current.ID)
		}
		return v.create(ctx, r, plan.Token)
	}
	return v.merge(ctx, r, t, plan, records)
}

// merge does what the plan says to a record that is there, or moves it first.
func (v *saver) merge(ctx context.Context, r *reader, t Token, plan Plan, records []record) (Token, error) {
	into := records[plan.Record]
	var rest []record
	for _, i := range plan.Absorb {
		if t.ID != "" || records[i].record.Lease == nil { // whoever refreshes it would not find it again
			rest = append(rest, records[i])
		}
	}
	if t.ID != "" && len(rest) > 0 || into.current.UserName == "" && plan.Token.UserName != "" {
		if err := v.fits(into, plan.Token); err != nil {
			return Token{}, err
		}
	}
	switch {
	case t.ID != "" && len(rest) > 0:
		return Token{}, v.promote(ctx, r, rest[0], into.current.UserName, into.current.ClientID)
	case into.current.UserName == "" && plan.Token.UserName != "":
		return Token{}, v.promote(ctx, r, into, plan.Token.UserName, plan.Token.ClientID)
	case !plan.Changed && len(into.pending) == 0:
		return plan.Token, nil
	}
	return v.commit(ctx, r, into, plan.Token, rest)
}

// room is what a record needs, at most, to say what it has absorbed.
const room = 4 << 10

// fits reports whether the record that a promotion ends in can be stored. It is
// asked before the first of the swaps: a record that others are bound to disappear
// into, and that cannot take them, could not be written any more.
func (v *saver) fits(into record, t Token) error {
	r := into.record
	put(&r, t)
	r.Labels = v.labels(r, into.record.Labels, v.nonce)
	data, err := v.o.Codec.Encode(into.name, r)
	if err == nil && len(data)+room > v.properties.MaxSize {
		err = fmt.Errorf("%w: it would have %d bytes, the limit is %d", ErrTooLarge, len(data)+room, v.properties.MaxSize)
	}
	return err
}

// targets returns the records that t may be merged into.
func (v *saver) targets(ctx context.Context, r *reader, t Token) ([]record, error) {
	if t.ID == "" {
		return v.match(ctx, r, t, nil)
	}
	names, terms := v.keys(t)
	if v.moved != "" {
		names = append(names, v.moved)
	}
	records, err := r.collect(ctx, names, terms)
	if err != nil {
		return nil, err
	}
	found := byID(t.ID, v.candidates(records, t))
	user := t
	user.ID = ""
	switch {
	case len(found) == 0 && r.unread() != nil:
		return nil, nil
	case len(found) == 0:
		// The ID is new. The user, or the token, must be so too.
		if derived(t.ID) {
			terms = append(terms, v.formerTerms(t.ID)...)
		}
		return v.match(ctx, r, user, terms)
	case t.UserName != "" && records[found[0]].current.UserName == "":
		// The record gets its user, who may have one already.
		user.ClientID = either(t.ClientID, records[found[0]].current.ClientID)
		return v.match(ctx, r, user, nil)
	}
	return records, nil
}

// match returns, besides what r knows already, the records that a token without
// an ID may be merged into: those it describes, the one of its derived name, and
// those that hold what that name is derived from.
func (v *saver) match(ctx context.Context, r *reader, t Token, terms []term) ([]record, error) {
	names, more := v.keys(t)
	if t.UserName != "" || hasCredential(t) {
		for _, under := range v.namings() {
			if name := under.derive(t); !slices.Contains(names, name) {
				names = append(names, name)
				if held, ok := nameTerm(name); ok {
					more = append(more, held)
				}
			}
		}
	}
	return r.collect(ctx, names, append(terms, more...))
}

// candidates returns the records in the form in which it is decided between
// them.
func (v *saver) candidates(records []record, t Token) []Candidate {
	candidates := v.Store.candidates(records, t)
	for i, rec := range records {
		c := &candidates[i]
		if v.moved != "" && rec.name == v.moved {
			c.Former.ID = true
		}
		if a := t.AccessToken; a != "" && a != rec.current.AccessToken {
			c.Former.AccessToken = slices.ContainsFunc(v.namings(), func(s *Store) bool { return rec.was(s.accessName(a)) })
		}
	}
	return candidates
}

// wasNamed reports whether the record has, or had, the name that t derives.
func (s *Store) wasNamed(rec record, t Token) bool {
	return slices.ContainsFunc(s.namings(), func(under *Store) bool { return rec.was(under.derive(t)) })
}

// create stores t as a new record.
func (v *saver) create(ctx context.Context, r *reader, t Token) (Token, error) {
	key, err := v.naming(ctx)
	if err != nil {
		return Token{}, err
	}
	name := v.under(key).derive(t)
	if t.ID == name {
		t.ID = ""
	}
	if derived(t.ID) {
		return Token{}, fmt.Errorf("%w: its ID has the form of a derived one, and is not known", ErrInvalidToken)
	}
	var rec codec.Record
	base, err := r.read(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		base = entry{}
	case err != nil:
		return Token{}, err
	case base.target() != nil:
		// The name is that of a record that moved elsewhere and was deleted
		// there. Nothing is written over it.
		if err := v.bury(ctx, base); err != nil {
			return Token{}, err
		}
		base = entry{}
	case hasCredential(base.token()):
		return Token{}, again{fmt.Errorf("%w: %q", ErrConflict, name)}
	default:
		rec = base.record // made for another record to move to; it still may
	}
	rec.ID = t.ID
	put(&rec, t)
	e, err := v.write(ctx, name, base, rec, v.nonce)
	if err != nil {
		return Token{}, lost(err)
	}
	return e.token(), nil
}

// commit stores t as the new state of rec, together with what is pending there,
// and with the records in rest, which then disappear.
func (v *saver) commit(ctx context.Context, r *reader, rec record, t Token, rest []record) (Token, error) {
	next := rec.record
	put(&next, t)
	next.ID = rec.own
	v.noteEarlier(&next, rec.entry.token())
	next.Joining = slices.Clone(next.Joining)
	redundant := v.settle(ctx, r, rec.entry, &next)
	for _, p := range rec.pending {
		v.noteMerged(&next, p)
		v.takeLease(&next, rec.record, p.record)
		next.Joining = slices.DeleteFunc(next.Joining, func(ref codec.Ref) bool { return ref == p.ref() })
		next.Absorbed = append(next.Absorbed, p.ref())
	}
	aliases, more := v.noteRest(&next, rest)
	written, err := v.write(ctx, rec.name, rec.entry, next, v.nonce)
	if err != nil {
		return Token{}, lost(err)
	}
	for _, e := range slices.Concat(rec.pending, aliases) {
		v.alias(ctx, e, written)
	}
	for _, e := range slices.Concat(redundant, more) {
		v.remove(ctx, e, written)
	}
	return written.token(), nil
}

// noteRest adds to next what would be forgotten of the records in rest. It returns
// those that are to become aliases, and those that next makes redundant.
func (v *saver) noteRest(next *codec.Record, rest []record) (aliases, redundant []entry) {
	for _, other := range rest {
		noted := v.noteMerged(next, other.entry)
		if noted && v.properties.ListLag == 0 {
			redundant = append(redundant, other.entry)
			continue
		}
		// Searches may not find this record by the IDs of the other one yet.
		aliases = append(aliases, other.entry)
		if noted {
			next.Redirects = append(next.Redirects, codec.Redirect{Ref: other.ref(), Since: v.o.Now().UnixMilli()})
		}
	}
	return aliases, redundant
}

// remove deletes what into makes redundant, if into is found by its IDs. If that
// fails it is listed still, and the next write tries again.
func (v *saver) remove(ctx context.Context, e, into entry) {
	found, err := v.labelled(ctx, into, e)
	if err == nil && found {
		err = v.driver.Delete(ctx, e.name, e.secret)
	}
	if err != nil && !errors.Is(err, ErrConflict) {
		v.o.Logger.WarnContext(ctx, "tokenstore: what is left of a record that was merged into another one remains", "name", e.name, "into", into.name)
	}
}

// settle brings up to date what next lists of the records that e has absorbed:
// they become aliases, and aliases that are not needed become redirects, which go
// once searches find e by their IDs. It returns those that can go after next is
// committed; they are listed until they are seen to be gone.
func (v *saver) settle(ctx context.Context, r *reader, e entry, next *codec.Record) (redundant []entry) {
	next.Redirects = nil
	keep := func(redirect codec.Redirect) {
		if !v.outlived(redirect.Since) {
			next.Redirects = append(next.Redirects, redirect)
			return
		}
		from, err := r.read(ctx, redirect.Name)
		if errors.Is(err, ErrNotFound) || err == nil && (from.record.Born != redirect.Born || from.record.Alias == nil) {
			return
		}
		if err == nil {
			redundant = append(redundant, from)
		}
		next.Redirects = append(next.Redirects, redirect)
	}
	for _, redirect := range e.record.Redirects {
		keep(redirect)
	}
	next.Absorbed = nil
	for _, ref := range e.record.Absorbed {
		from, err := v.absorbed(ctx, r, ref)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err == nil && from.record.Alias != nil:
			if v.replaces(*next, from) {
				keep(codec.Redirect{Ref: ref, Since: from.record.Updated})
			}
			continue
		case err == nil && from.record.Moved != nil:
			v.alias(ctx, from, e)
		}
		next.Absorbed = append(next.Absorbed, ref)
	}
	return redundant
}

// absorbed reads an entry that was absorbed. The error matches ErrNotFound if it is
// gone.
func (v *saver) absorbed(ctx context.Context, r *reader, ref codec.Ref) (entry, error) {
	gone := func(e entry, err error) bool {
		return errors.Is(err, ErrNotFound) || err == nil && e.record.Born != ref.Born
	}
	from, err := r.read(ctx, ref.Name)
	if gone(from, err) && !r.fresh && v.properties.ReadLag > 0 {
		// An answer from before it was created would leave it unlisted, though it has
		// moved here: a repair would merge its old tokens once more.
		from, err = r.reread(ctx, ref.Name)
	}
	if gone(from, err) {
		return entry{}, ErrNotFound
	}
	return from, err
}

// takeLease moves the lease and the last failure of a record that is merged into
// next along with the credentials they are about. If those have no lease the other
// one stays: a mint under it is still running, and the record is one.
func (v *saver) takeLease(next *codec.Record, before, from codec.Record) {
	theirs := from.RefreshToken == next.RefreshToken && from.GrantToken == next.GrantToken &&
		(from.RefreshToken != before.RefreshToken || from.GrantToken != before.GrantToken)
	if theirs {
		next.Failure = from.Failure
	}
	if from.Lease != nil && (theirs || next.Lease == nil) {
		next.Lease = from.Lease
	}
}
