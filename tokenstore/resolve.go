package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A record is what a reader sees: an entry, and those that have moved to it but
// were not merged into it in the store yet. They are merged in memory.
type record struct {
	entry
	pending []entry
	current Token    // the token, all told
	own     string   // the ID that the caller chose, if any
	path    []string // the names of the IDs of moved entries and aliases that led here
}

// errDead means that an entry has moved to a record that was deleted, which
// deletes it too.
var errDead = errors.New("moved to a record that was deleted")

// A reader reads entries for one attempt at an operation, each of them once, so
// that what the attempt sees does not change under it.
type reader struct {
	s     *Store
	fresh bool // every read asks for the newest state

	than map[string]entry // what is known to have been there, by name

	mu    sync.Mutex
	known map[string]entry
	gone  map[string]bool
	aside map[string]*UnreadableError // what was searched for and cannot be read
}

func (s *Store) reader(fresh bool) *reader {
	return &reader{s: s, fresh: fresh, known: map[string]entry{}, gone: map[string]bool{}, aside: map[string]*UnreadableError{}}
}

// fresher returns a reader that asks for the newest states, at least as new as
// those that r has read.
func (r *reader) fresher() *reader {
	f := r.s.reader(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	f.than = maps.Clone(r.known)
	return f
}

// read returns the entry of the given name. The error matches ErrNotFound if
// there is none.
func (r *reader) read(ctx context.Context, name string) (entry, error) {
	r.mu.Lock()
	e, known := r.known[name]
	gone := r.gone[name]
	r.mu.Unlock()
	switch {
	case known:
		return e, nil
	case gone:
		return entry{}, ErrNotFound
	case r.fresh:
		return r.reread(ctx, name)
	}
	e, err := r.s.get(ctx, name)
	return r.note(name, e, err)
}

// reread returns the newest state of the entry.
func (r *reader) reread(ctx context.Context, name string) (entry, error) {
	r.mu.Lock()
	than, known := r.known[name]
	r.mu.Unlock()
	if !known {
		than = r.than[name]
	}
	e, err := r.s.fresh(ctx, name, than)
	return r.note(name, e, err)
}

// note remembers the answer to a read.
func (r *reader) note(name string, e entry, err error) (entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.known[name] = e
		delete(r.gone, name)
		delete(r.aside, name)
	case errors.Is(err, ErrNotFound):
		r.gone[name] = true
		delete(r.known, name)
		delete(r.aside, name)
	case ofOne(err):
		delete(r.known, name) // what was read before it could not be any more
	}
	return e, err
}

// setAside remembers that a record which was searched for cannot be read.
func (r *reader) setAside(u *UnreadableError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.aside[u.Name] = u
}

// unread returns an error that joins what was set aside, nil if that is nothing.
func (r *reader) unread() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return joinUnreadable(slices.Collect(maps.Values(r.aside)))
}

// seek reads the named entry in the given way. That it is absent is no error, and
// if it cannot be read it is set aside.
func (r *reader) seek(ctx context.Context, name string, read func(context.Context, string) (entry, error)) error {
	_, err := read(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil && ctx.Err() == nil && ofOne(err):
		r.setAside(unreadable(name, err))
		return nil
	}
	return err
}

// collect searches, and returns the records that were found so far.
func (r *reader) collect(ctx context.Context, names []string, terms []term) ([]record, error) {
	if err := r.search(ctx, names, terms); err != nil {
		return nil, err
	}
	return r.records(ctx)
}

// entries returns what is known so far.
func (r *reader) entries() []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := make([]entry, 0, len(r.known))
	for _, e := range r.known {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries
}

// search reads the named entries and those that carry the terms' labels, at the
// same time. Absent ones are no error, and what cannot be read is set aside.
func (r *reader) search(ctx context.Context, names []string, terms []term) error {
	errs := make([]error, len(names)+1)
	var wait sync.WaitGroup
	for i, name := range names {
		wait.Go(func() {
			errs[i] = r.seek(ctx, name, r.read)
		})
	}
	if len(terms) > 0 {
		errs[len(names)] = r.lookup(ctx, terms)
	}
	wait.Wait()
	return cmp.Or(errs...)
}

func (r *reader) lookup(ctx context.Context, terms []term) error {
	for named, err := range ours(r.s.driver.Lookup(ctx, r.s.queries(terms))) {
		if err == nil {
			err = r.candidate(ctx, named)
		}
		err = listedErr(ctx, named.Name, err)
		if u := onlyUnreadable(err); u != nil && !r.knows(u.Name) {
			r.setAside(u)
		} else if u == nil && err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) knows(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.known[name]
	return known
}

// candidate notes what a search has yielded.
func (r *reader) candidate(ctx context.Context, named driver.Named) error {
	if r.knows(named.Name) {
		return nil // the probe's answer is at least as new as the index's
	}
	e, err := r.s.entry(named.Name, named.Secret)
	if err != nil {
		return err
	}
	_, _ = r.note(named.Name, e, nil)
	if r.fresh && r.s.properties.ReadLag > 0 {
		return r.seek(ctx, named.Name, r.reread)
	}
	return nil
}

// records returns the records that the entries known so far are or have become,
// each once. Those that cannot be read to the end are set aside.
func (r *reader) records(ctx context.Context) ([]record, error) {
	var records []record
	for _, e := range r.entries() {
		rec, err := r.resolve(ctx, e)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil && ctx.Err() == nil && ofOne(err) {
			r.setAside(unreadable(e.name, err))
			continue
		}
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(records, func(have record) bool { return have.name == rec.name }); i >= 0 {
			records[i].path = append(records[i].path, rec.path...)
			continue
		}
		records = append(records, rec)
	}
	return r.dropMoved(ctx, records)
}

// dropMoved leaves out records that were read before they moved, when their
// target was read after.
func (r *reader) dropMoved(ctx context.Context, records []record) ([]record, error) {
	var kept []record
	for _, rec := range records {
		absorbed, once := false, false
		for _, to := range records {
			absorbed = absorbed || slices.Contains(to.record.Absorbed, rec.ref())
			once = once || to.name != rec.name && slices.Contains(to.record.IDs, rec.name)
		}
		if once && !absorbed {
			// A target that has seen the alias lists the name alone. It may also
			// be the name of a record that was created since.
			now, err := r.reread(ctx, rec.name)
			switch {
			case err != nil && ctx.Err() == nil && ofOne(err):
				r.setAside(unreadable(rec.name, err))
			case err != nil && !errors.Is(err, ErrNotFound):
				return nil, err
			}
			absorbed = err != nil || now.target() != nil
		}
		if !absorbed {
			kept = append(kept, rec)
		}
	}
	return kept, nil
}

// resolve returns the record that e is, or has become. The error matches
// ErrNotFound if e is not a record, and errDead too if it was one.
func (r *reader) resolve(ctx context.Context, e entry) (record, error) {
	return r.resolveIn(ctx, e, maxHops)
}

// maxHops is how many entries may lead on from one to the next: an alias to a
// record that Rekey is moving to another name, where it was moved to already.
const maxHops = 4

func (r *reader) resolveIn(ctx context.Context, e entry, hops int) (record, error) {
	to := e.target()
	if to == nil {
		return r.view(ctx, e)
	}
	u, err := r.read(ctx, to.Name)
	if (errors.Is(err, ErrNotFound) || err == nil && (u.record.Born != to.Born || !lists(u.record, e))) && r.s.properties.ReadLag > 0 {
		u, err = r.reread(ctx, to.Name)
	}
	switch {
	case errors.Is(err, ErrNotFound), err == nil && u.record.Born != to.Born:
		return record{}, fmt.Errorf("%w: %w", ErrNotFound, errDead)
	case err != nil:
		return record{}, err
	case hops == 0:
		return record{}, fmt.Errorf("%w: %q has moved to %q, which has moved on and on", ErrCorrupt, e.name, u.name)
	}
	rec, err := r.resolveIn(ctx, u, hops-1)
	rec.path = append(rec.path, r.s.idsOf(e)...)
	return rec, err
}

// target returns what the entry has moved to, or is an alias of.
func (e entry) target() *codec.Ref {
	if e.record.Alias != nil {
		return e.record.Alias
	}
	return e.record.Moved
}

func lists(r codec.Record, e entry) bool {
	return slices.Contains(r.Joining, e.ref()) || slices.Contains(r.Absorbed, e.ref())
}

// view returns the record in e, which has not moved. An entry that was made only
// for another one to move to is not a record yet: the error matches ErrNotFound.
func (r *reader) view(ctx context.Context, e entry) (record, error) {
	for range 3 {
		rec, stale, err := r.viewOnce(ctx, e)
		if err != nil || !stale {
			return rec, err
		}
		// An entry that e waits for has been merged: since e was read, e has
		// changed, and may have become a record.
		if e, err = r.reread(ctx, e.name); err != nil {
			return record{}, err
		}
	}
	rec, _, err := r.viewOnce(ctx, e)
	return rec, err
}

func (r *reader) viewOnce(ctx context.Context, e entry) (rec record, stale bool, err error) {
	rec = record{entry: e, current: e.token(), own: e.record.ID}
	for _, ref := range e.record.Joining {
		from, err := r.read(ctx, ref.Name)
		switch {
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrCorrupt):
			// What is not there, or cannot be read, has not moved here.
		case err != nil:
			return record{}, false, err
		case from.record.Born != ref.Born:
			// Another life of the name.
		case from.record.Alias != nil:
			stale = true
		case from.record.Moved != nil && *from.record.Moved == e.ref():
			if !hasCredential(rec.current) && rec.own == "" {
				rec.own = from.record.ID
			}
			rec.pending = append(rec.pending, from)
			rec.path = append(rec.path, r.s.idsOf(from)...)
			rec.current = Absorb(rec.current, from.token())
		}
	}
	if stale {
		return rec, true, nil
	}
	if !hasCredential(rec.current) {
		return record{}, false, fmt.Errorf("%w: %q is being prepared", ErrNotFound, e.name)
	}
	rec.current.ID = either(rec.own, e.name)
	return rec, false, nil
}

// candidates returns the records in the form in which it is decided between
// them, for a token to be found.
func (s *Store) candidates(records []record, like Token) []Candidate {
	candidates := make([]Candidate, 0, len(records))
	for _, rec := range records {
		c := Candidate{Token: rec.current, Updated: rec.updated()}
		for _, under := range s.namings() {
			under.former(&c, rec, like)
		}
		candidates = append(candidates, c)
	}
	return candidates
}

// former notes what of like the record had before.
func (s *Store) former(c *Candidate, rec record, like Token) {
	if like.ID != "" && rec.current.ID != like.ID {
		c.Former.ID = c.Former.ID || rec.was(s.nameOfID(like.ID)) || slices.Contains(s.tokenNames(rec.current), like.ID)
	}
	if g := like.GrantToken; g != "" && g != rec.current.GrantToken {
		c.Former.GrantToken = c.Former.GrantToken || rec.was(s.grantName(rec.current.ClientID, g))
	}
	if t := like.RefreshToken; t != "" && t != rec.current.RefreshToken {
		c.Former.RefreshToken = c.Former.RefreshToken || rec.was(s.refreshName(rec.current.ClientID, t))
	}
}

// was reports whether name is the record's, or was that of one it has absorbed,
// or is derived from an earlier token of it.
func (rec record) was(name string) bool {
	return rec.name == name || slices.Contains(rec.path, name) ||
		slices.Contains(rec.record.Earlier, name) || slices.Contains(rec.record.IDs, name) ||
		slices.ContainsFunc(rec.record.Absorbed, func(ref codec.Ref) bool { return ref.Name == name })
}

// tokenNames returns the names that the tokens of t would derive by themselves.
func (s *Store) tokenNames(t Token) []string {
	var names []string
	if t.GrantToken != "" {
		names = append(names, s.grantName(t.ClientID, t.GrantToken))
	}
	if t.RefreshToken != "" {
		names = append(names, s.refreshName(t.ClientID, t.RefreshToken))
	}
	if t.AccessToken != "" {
		names = append(names, s.accessName(t.AccessToken))
	}
	return names
}
