package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// examine reads the named entry and what it has to do with, and again after each
// repair, until there is nothing more to be done. It returns what it has found
// and what has become of it.
func (c *checker) examine(ctx context.Context, name string) ([]Finding, error) {
	x := examination{checker: c, name: name, failed: map[Kind]error{}}
	err := c.retry(ctx, "check", func(*reader) error { return x.attempt(ctx) })
	if errors.Is(err, ErrConflict) && ctx.Err() == nil {
		// Other writers were faster, each time.
		for i := range x.findings {
			if f := &x.findings[i]; f.Err == nil && !f.Repaired && c.o.Wants(f.Remedy) {
				f.Err = err
			}
		}
		err = nil
	}
	return x.findings, err
}

// An examination is that of one entry.
type examination struct {
	*checker
	name     string
	findings []Finding // of each kind one
	failed   map[Kind]error
	mended   int
}

// mostMends is more than one entry can need: each record that moves to it takes
// two.
const mostMends = 4 * maxJoining

// attempt diagnoses and mends until another writer comes first.
func (x *examination) attempt(ctx context.Context) error {
	for {
		problems, id, err := x.look(ctx)
		if err != nil {
			return err
		}
		x.record(problems, id)
		next := slices.IndexFunc(problems, func(p problem) bool {
			return p.mend != nil && x.o.Wants(p.remedy) && x.failed[p.kind] == nil
		})
		if next < 0 {
			return nil
		}
		if x.mended >= mostMends {
			return fmt.Errorf("%w: it was mended %d times", ErrConflict, x.mended)
		}
		p := problems[next]
		err = p.mend(ctx)
		var a again
		switch {
		case errors.As(err, &a):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			x.failed[p.kind] = err
		default:
			x.mended++
		}
	}
}

// look returns what is wrong with the entry now.
func (x *examination) look(ctx context.Context) (problems []problem, id string, err error) {
	r := x.reader(true)
	e, err := r.read(ctx, x.name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, "", nil
	case x.passes(ctx, x.name, err):
		return []problem{{kind: KindUnreadable, remedy: RemedyManual, detail: whyUnreadable(err)}}, "", nil
	case err != nil:
		return nil, "", err
	}
	problems, err = x.diagnose(ctx, r, e)
	return problems, e.token().ID, err
}

// record brings the findings up to date.
func (x *examination) record(problems []problem, id string) {
	still := map[Kind]bool{}
	for _, p := range problems {
		still[p.kind] = true
		i := slices.IndexFunc(x.findings, func(f Finding) bool { return f.Kind == p.kind })
		if i < 0 {
			i = len(x.findings)
			x.findings = append(x.findings, Finding{Kind: p.kind, Name: x.name, ID: id, Detail: p.detail})
		}
		f := &x.findings[i]
		f.Remedy, f.Action, f.Err, f.Repaired = p.remedy, p.action, x.failed[p.kind], false
	}
	if x.mended == 0 {
		// What is gone without this check's doing was passing.
		x.findings = slices.DeleteFunc(x.findings, func(f Finding) bool { return !still[f.Kind] })
	}
	for i := range x.findings {
		if f := &x.findings[i]; !still[f.Kind] {
			f.Repaired, f.Err = true, nil
		}
	}
}

// errBusy means that a repair has to wait for another day.
var errBusy = fmt.Errorf("%w: the service takes no more of the record today", ErrUnavailable)

// rewrite writes e over itself, so that it gets the labels by the first index key
// and is encoded anew. The labels in absent are added again.
func (s *Store) rewrite(ctx context.Context, e entry, absent []driver.Label) (entry, error) {
	if s.room(e.record, 0) < s.properties.DailyWrites*2/5 { // the rest is for refreshes
		return entry{}, errBusy
	}
	base := e
	base.record.Labels = slices.DeleteFunc(slices.Clone(e.record.Labels), func(l codec.Label) bool {
		return slices.Contains(absent, driver.Label(l))
	})
	return s.write(ctx, e.name, base, e.record, nonce())
}

// move does the second swap of a promotion that was broken off after the first,
// and those that follow. The first is never undone: the writer may only be slow,
// and what it moved would be lost.
func (c *checker) move(ctx context.Context, from, u entry) error {
	ref := u.ref()
	next := from.record
	next.Moved = &ref
	if _, err := c.write(ctx, from.name, from, next, nonce()); err != nil {
		return lost(err)
	}
	return c.takeOver(ctx, ref)
}

// takeOver does the third and fourth swap: whatever has moved to the record of a
// user becomes part of it.
func (c *checker) takeOver(ctx context.Context, to codec.Ref) error {
	r := c.reader(true)
	u, err := r.read(ctx, to.Name)
	if err != nil {
		return lost(err)
	}
	rec, err := r.view(ctx, u)
	if err != nil {
		return lost(err)
	}
	v := saver{Store: c.Store, nonce: nonce()}
	_, err = v.commit(ctx, r, rec, rec.current, nil)
	return err
}

// leaveAlias does the fourth swap.
func (c *checker) leaveAlias(ctx context.Context, from, u entry) error {
	ref := u.ref()
	_, err := c.write(ctx, from.name, from, aliasOf(from, ref), nonce())
	return lost(err)
}

// relist makes u know of a record that has moved to it. No writer leaves one that
// it does not know of.
func (c *checker) relist(ctx context.Context, from, u entry) error {
	next := u.record
	next.Joining = append(slices.Clone(next.Joining), from.ref())
	_, err := c.write(ctx, u.name, u, next, nonce())
	return lost(err)
}

// unlist makes u forget records that cannot move to it any more: they are
// aliases, or their lives are over. Where reads may be out of date that is first
// proved by a write, because one that moved after all would be lost.
func (c *checker) unlist(ctx context.Context, u entry, refs []codec.Ref) error {
	for _, ref := range refs {
		if err := c.prove(ctx, ref); err != nil {
			return err
		}
	}
	next := u.record
	next.Joining = slices.DeleteFunc(slices.Clone(next.Joining), func(ref codec.Ref) bool { return slices.Contains(refs, ref) })
	_, err := c.write(ctx, u.name, u, next, nonce())
	return lost(err)
}

// prove fails unless the life of the name that ref tells of is over, or its record
// is an alias.
func (c *checker) prove(ctx context.Context, ref codec.Ref) error {
	if c.properties.ReadLag == 0 {
		return nil // the read that found it so was proof
	}
	v := saver{Store: c.Store, nonce: nonce()}
	now, err := c.fresh(ctx, ref.Name, entry{})
	switch {
	case errors.Is(err, ErrNotFound):
		var grave entry
		grave, err = v.write(ctx, ref.Name, entry{}, codec.Record{}, v.nonce)
		if err == nil {
			err = c.driver.Delete(ctx, ref.Name, grave.secret)
		}
	case err == nil && now.record.Alias != nil && now.record.Born == ref.Born:
		// An alias stays one.
	case err == nil && now.record.Born == ref.Born:
		err = ErrConflict
	case err == nil && now.target() != nil:
		// What has moved is not written over, and so proves nothing.
		return fmt.Errorf("%w: whether %q is gone cannot be proved", ErrUnavailable, ref.Name)
	case err == nil:
		_, err = v.write(ctx, ref.Name, now, now.record, v.nonce)
	}
	return lost(err)
}
