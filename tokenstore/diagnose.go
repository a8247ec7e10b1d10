package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A problem is a Finding that is still to be reported, and how to mend it.
type problem struct {
	kind   Kind
	detail string
	remedy Remedy
	action string
	mend   func(context.Context) error // nil: only a person can
}

// diagnose returns what is wrong with e, which was read just now.
func (c *checker) diagnose(ctx context.Context, r *reader, e entry) ([]problem, error) {
	if to := e.target(); to != nil {
		return c.moved(ctx, r, e, *to)
	}
	problems, err := c.joining(ctx, r, e)
	if err != nil {
		return nil, err
	}
	local := c.local(e)
	if absent, err := c.absent(ctx, e); err != nil {
		return nil, err
	} else if len(absent) > 0 {
		local = append(local, c.relabel(e, absent, problem{
			kind: KindLabelMissing, remedy: RemedyRepair, action: "add them",
			detail: fmt.Sprintf("labels that it was committed with are gone (%s)", kindsOf(absent)),
		}))
	}
	return append(problems, local...), nil
}

// moved returns what is wrong with an entry that leads to another.
func (c *checker) moved(ctx context.Context, r *reader, e entry, to codec.Ref) ([]problem, error) {
	u, err := r.reread(ctx, to.Name)
	gone := errors.Is(err, ErrNotFound) || err == nil && u.record.Born != to.Born
	alias := e.record.Alias != nil
	bury := func(ctx context.Context) error {
		v := saver{Store: c.Store, nonce: nonce()}
		return v.bury(ctx, e)
	}
	one := func(p problem) ([]problem, error) { return []problem{p}, nil }
	switch {
	case c.passes(ctx, to.Name, err):
		return one(problem{kind: KindPromotionUnfinished, remedy: RemedyManual,
			detail: fmt.Sprintf("it leads to %q, which cannot be read", to.Name)})
	case err != nil && !gone:
		return nil, err
	case gone && alias:
		return one(problem{kind: KindAliasBroken, remedy: RemedyRepair, action: "delete it", mend: bury,
			detail: fmt.Sprintf("it leads to %q, which was deleted", to.Name)})
	case gone:
		return one(problem{kind: KindDead, remedy: RemedyRepair, action: "delete it", mend: bury,
			detail: fmt.Sprintf("it had moved to %q, which was deleted", to.Name)})
	case u.target() != nil:
		return one(problem{kind: KindPromotionUnfinished, remedy: RemedyManual,
			detail: fmt.Sprintf("it leads to %q, which itself has moved: no writer does that", to.Name)})
	case alias:
		return c.redundant(ctx, e, u)
	case c.underWay(e) || c.underWay(u):
		return nil, nil
	}
	p := problem{kind: KindPromotionUnfinished, remedy: RemedyRepair, action: "complete it"}
	switch {
	case slices.Contains(u.record.Joining, e.ref()):
		p.detail = fmt.Sprintf("it has moved to %q, which has not taken over its tokens", to.Name)
		p.mend = func(ctx context.Context) error { return c.takeOver(ctx, to) }
	case slices.Contains(u.record.Absorbed, e.ref()):
		p.detail = fmt.Sprintf("%q has taken over its tokens, and it is no alias yet", to.Name)
		p.mend = func(ctx context.Context) error { return c.leaveAlias(ctx, e, u) }
	default:
		// It may have become an alias between the two reads; then it is that no
		// longer.
		if now, err := r.reread(ctx, e.name); err != nil || now.secret.Version != e.secret.Version {
			return nil, again{fmt.Errorf("%w: %q", ErrConflict, e.name)}
		}
		p.detail = fmt.Sprintf("it has moved to %q, which does not know of it", to.Name)
		p.mend = func(ctx context.Context) error { return c.relist(ctx, e, u) }
	}
	return one(p)
}

// redundant returns that an alias can go, because u is found by its IDs without it.
// That is safe once u has been labelled with them for so long that every search
// sees it; before, while nothing else writes.
func (c *checker) redundant(ctx context.Context, e, u entry) ([]problem, error) {
	if !c.replaces(u.record, e) {
		return nil, nil // by some ID nothing else leads to the record
	}
	if found, err := c.labelled(ctx, u, e); err != nil || !found {
		return nil, err
	}
	remedy := RemedyPurge
	if c.o.Grace < 0 || c.outlived(e.record.Updated) && !c.underWay(e) {
		remedy = RemedyRepair
	}
	return []problem{{kind: KindAlias, remedy: remedy, action: "delete it",
		detail: fmt.Sprintf("%q is labelled with the IDs that find it", u.name),
		mend:   func(ctx context.Context) error { return lost(c.driver.Delete(ctx, e.name, e.secret)) }}}, nil
}

// joining returns what is wrong with the records that are about to become part of
// u. Those that have moved already are looked at on their own.
func (c *checker) joining(ctx context.Context, r *reader, u entry) ([]problem, error) {
	var problems []problem
	var stale []codec.Ref
	for _, ref := range u.record.Joining {
		from, err := r.reread(ctx, ref.Name)
		switch {
		case c.passes(ctx, ref.Name, err):
			problems = append(problems, problem{kind: KindPromotionUnfinished, remedy: RemedyManual,
				detail: fmt.Sprintf("%q was about to become part of it, and cannot be read", ref.Name)})
		case errors.Is(err, ErrNotFound), err == nil && (from.record.Born != ref.Born || from.record.Alias != nil):
			stale = append(stale, ref)
		case err != nil:
			return nil, err
		case from.record.Moved != nil, c.underWay(u):
		case !movable(from, u):
			problems = append(problems, problem{kind: KindPromotionUnfinished, remedy: RemedyManual,
				detail: fmt.Sprintf("%q was about to become part of it, and is another user's or client's now", ref.Name)})
		default:
			problems = append(problems, problem{kind: KindPromotionUnfinished, remedy: RemedyRepair, action: "complete it",
				detail: fmt.Sprintf("%q was about to become part of it, and has not moved", ref.Name),
				mend:   func(ctx context.Context) error { return c.move(ctx, from, u) }})
		}
	}
	if len(stale) > 0 {
		problems = append(problems, problem{kind: KindPromotionStale, remedy: RemedyRepair, action: "do not wait for them",
			detail: fmt.Sprintf("it waits for %d records that are gone", len(stale)),
			mend:   func(ctx context.Context) error { return c.unlist(ctx, u, stale) }})
	}
	return problems, nil
}

// movable reports whether from can become part of u, as the writer wanted that
// put it on u's list.
func movable(from, u entry) bool {
	return from.record.UserName == "" && (from.record.ClientID == "" || from.record.ClientID == u.record.ClientID) ||
		from.record.UserName == u.record.UserName && from.record.ClientID == u.record.ClientID // Rekey moves it
}

// underWay reports whether e was written so short a time ago that its writer may
// be about to go on.
func (c *checker) underWay(e entry) bool {
	return c.o.Grace > 0 && c.Store.o.Now().Sub(e.updated()) < c.o.Grace
}

// local returns what is wrong with an entry that leads to no other, as far as the
// entry itself tells.
func (c *checker) local(e entry) []problem {
	if !hasCredential(e.token()) && len(e.record.Joining) == 0 {
		return c.empty(e)
	}
	var problems []problem
	if kind := c.misnamed(e); kind != "" {
		return append(problems, problem{kind: kind, remedy: RemedyManual,
			detail: "neither its labels nor its name are touched; read it with the key that it was written with, and save it under this one"})
	}
	problems = append(problems, c.labelProblems(e)...)
	return append(problems, c.lease(e)...)
}

// empty returns what is wrong with an entry that holds no token, and that no
// record is about to move to.
func (c *checker) empty(e entry) []problem {
	if c.underWay(e) {
		return nil
	}
	p := problem{kind: KindEmpty, detail: "it holds no token"}
	t := e.token()
	if rest := (Token{ID: t.ID, UserName: t.UserName, ClientID: t.ClientID}); !same(t, rest) || e.record.ID != "" {
		p.remedy, p.detail = RemedyManual, "it holds no token, but other fields that nobody would write without one"
		return []problem{p}
	}
	p.remedy, p.action = RemedyRepair, "delete it"
	p.mend = func(ctx context.Context) error { return lost(c.deleteEntry(ctx, e)) }
	return []problem{p}
}

// misnamed returns what is wrong with the name of an entry, or "".
func (c *checker) misnamed(e entry) Kind {
	switch {
	case c.fits(e):
		return ""
	case c.Store.o.NameKey != nil && (&checker{Store: &Store{o: &Options{}}}).fits(e):
		return KindNameUnkeyed
	}
	return KindNameForeign
}

// fits reports whether the name of e is one that it may have got from its user
// and client, or from the tokens that it had when it was created. Where these
// have changed since, that cannot be told.
func (c *checker) fits(e entry) bool {
	t := e.token()
	if t.UserName != "" || e.name[0] == 'u' {
		return e.name == c.userName(t.UserName, t.ClientID) || !hasCredential(t) && t.UserName == ""
	}
	unknown := func(token Secret) bool {
		return token == "" || slices.ContainsFunc(e.record.Earlier, func(n string) bool { return n[0] == e.name[0] })
	}
	// The record may have got its client since.
	switch e.name[0] {
	case 'g':
		return unknown(t.GrantToken) || e.name == c.grantName(t.ClientID, t.GrantToken) || e.name == c.grantName("", t.GrantToken)
	case 'r':
		return unknown(t.RefreshToken) || e.name == c.refreshName(t.ClientID, t.RefreshToken) || e.name == c.refreshName("", t.RefreshToken)
	}
	return derived(e.name)
}

// A comparison is of the labels that a record was committed with and those that
// it would get now.
type comparison struct {
	fitting int      // by the first key
	old     []string // kinds of those by another of the index keys,
	unkeyed []string // by none,
	unknown []string // by one that is not known,
	missing []string // and of those that there is no label for,
	stale   []string // and of labels that there is nothing for
}

// compare compares the labels of r with what it should have.
func (c *checker) compare(r codec.Record) comparison {
	var is comparison
	have := map[driver.Label]bool{}
	for _, l := range r.Labels {
		have[driver.Label{Key: l.Key, Value: l.Value}] = true
	}
	accounted := map[driver.Label]bool{}
	by := func(t term, key []byte) bool {
		l := driver.Label{Key: t.key, Value: digest(key, t.key, t.print)}
		accounted[l] = accounted[l] || have[l]
		return have[l]
	}
	byOne := func(t term, keys [][]byte) bool {
		return slices.ContainsFunc(keys, func(key []byte) bool { return by(t, key) })
	}
	keys := c.Store.o.IndexKeys
	told := map[term]bool{}
	for _, t := range c.terms(r) {
		if told[t] {
			continue
		}
		told[t] = true
		switch {
		case by(t, keys[0]):
			is.fitting++
		case byOne(t, keys[1:]):
			is.old = append(is.old, t.key)
		case by(t, nil):
			is.unkeyed = append(is.unkeyed, t.key)
		default:
			is.missing = append(is.missing, t.key)
		}
	}
	for l := range have {
		if accounted[l] {
			continue
		}
		if i := slices.Index(is.missing, l.Key); i >= 0 {
			is.missing = slices.Delete(is.missing, i, i+1)
			is.unknown = append(is.unknown, l.Key)
			continue
		}
		is.stale = append(is.stale, l.Key)
	}
	return is
}

// labelProblems returns what is wrong with the labels that e was committed with.
func (c *checker) labelProblems(e entry) []problem {
	is := c.compare(e.record)
	var problems []problem
	add := func(kind Kind, keys []string, remedy Remedy, action, text string) {
		if len(keys) == 0 {
			return
		}
		slices.Sort(keys)
		problems = append(problems, c.relabel(e, nil, problem{kind: kind, remedy: remedy, action: action,
			detail: fmt.Sprintf("%s (%s)", text, strings.Join(slices.Compact(keys), ", "))}))
	}
	add(KindLabelMissing, is.missing, RemedyRepair, "add them", "it was committed without labels that it should have")
	add(KindLabelUnknownKey, is.unknown, RemedyRepair, "replace them", "labels by a key that is not known")
	add(KindLabelUnkeyed, is.unkeyed, RemedyRepair, "replace them", "labels without a key")
	add(KindLabelOldKey, is.old, RemedyRekey, "replace them", "labels by an earlier index key")
	add(KindLabelStale, is.stale, RemedyRepair, "remove them", "labels that nothing in it accounts for")
	return problems
}

// relabel returns p with a mend that writes e anew, with the labels that it should
// have. Those in absent are not there, whatever the record says.
func (c *checker) relabel(e entry, absent []driver.Label, p problem) problem {
	p.mend = func(ctx context.Context) error {
		_, err := c.rewrite(ctx, e, absent)
		return lost(err)
	}
	return p
}

// absent returns the labels that e was committed with and that are not there.
func (c *checker) absent(ctx context.Context, e entry) ([]driver.Label, error) {
	inspector, ok := c.driver.(driver.Inspector)
	if !ok || len(e.secret.Labels) == 0 || c.underWay(e) {
		return nil, nil // what is young may not be seen everywhere yet
	}
	present, err := inspector.Present(ctx, e.name, e.secret.Labels)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(e.secret.Labels), func(l driver.Label) bool { return carries(present, l) }), nil
}

// lease returns that a lease was left behind.
func (c *checker) lease(e entry) []problem {
	lapsed := func(l *codec.Lease) bool {
		return l != nil && c.Store.o.Now().Sub(time.UnixMilli(l.Until)) >= clockSkew
	}
	p := problem{kind: KindLeaseLapsed, remedy: RemedyRepair, action: "remove it"}
	switch {
	case lapsed(e.record.Lease):
		p.detail = fmt.Sprintf("the lease ended on %s", time.UnixMilli(e.record.Lease.Until).UTC().Format(time.RFC3339))
		p.mend = func(ctx context.Context) error {
			next := e
			next.record.Lease = nil
			_, err := c.rewrite(ctx, next, nil)
			return lost(err)
		}
	case lapsed(noteLease(e.secret.Note)):
		l, ok := c.driver.(driver.Leaser)
		if !ok {
			return nil
		}
		p.detail = "the note beside the secret is a lease that has ended"
		p.mend = func(ctx context.Context) error { return lost(l.Note(ctx, e.name, e.secret, "")) }
	default:
		return nil
	}
	return []problem{p}
}
