package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Bounds of the pauses between attempts, which grow exponentially with full jitter.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = time.Second
)

// ErrLookAgain ends an attempt that would refuse the operation, or change nothing, because of a
// View that may be out of date. Retry then repeats the attempt once without a pause, with a View
// that reads the newest states.
var ErrLookAgain = errors.New("look again")

type retryError struct{ err error }

func (r retryError) Error() string { return r.err.Error() }
func (r retryError) Unwrap() error { return r.err }

// Again wraps err so that Retry repeats the attempt after a pause, with newer reads.
func Again(err error) error { return retryError{err} }

// Retryable reports whether err wraps an error that Again returned.
func Retryable(err error) bool {
	var r retryError
	return errors.As(err, &r)
}

// Lost wraps err with Again if err matches ErrConflict, ErrExists or ErrNotFound. Such an error
// means that another writer won a compare-and-swap. Lost returns any other error unchanged.
func Lost(err error) error {
	if isOneOf(err, driver.ErrConflict, driver.ErrExists, driver.ErrNotFound) {
		return Again(err)
	}
	return err
}

// Retry calls the function attempt until the result is nil or an error that is not Retryable.
// The first View may be out of date, and later Views read the newest states. After l.Attempts
// attempts, Retry returns an error that matches driver.ErrConflict. Once ctx is done, Retry
// makes no further attempt, and returns the error of ctx.
func (l *Ledger) Retry(ctx context.Context, op string, attempt func(*View) error) error {
	for n := range l.Attempts {
		if n > 0 {
			if err := l.Wait(ctx, Pause(n)); err != nil {
				return err
			}
		}
		v := l.View(n > 0)
		err := attempt(v)
		if errors.Is(err, ErrLookAgain) {
			err = attempt(v.Fresher())
		}
		if !Retryable(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	l.Logger.WarnContext(ctx, "tokenstore: other writers were faster", "op", op, "attempts", l.Attempts)
	return fmt.Errorf("%w: in each of %d attempts", driver.ErrConflict, l.Attempts)
}

// Pause returns a random time to wait before the nth repetition of an attempt, at most
// lastPause.
func Pause(n int) time.Duration {
	most := min(firstPause<<min(n, 20), lastPause)
	return rand.N(most) + 1
}

// A View holds the entries that one attempt of an operation has read. Read returns the same
// state of an entry until Reread replaces that state. If a search finds an unreadable secret,
// the search sets the secret aside: the View keeps the error for Unread, and the search
// continues without the secret. A View is safe for concurrent use.
type View struct {
	l     *Ledger
	fresh bool

	than map[Name]Entry // entries that an earlier View read; this View reads no older states

	mu     sync.Mutex
	known  map[Name]Entry
	absent map[Name]bool
	aside  map[Name]*UnreadableError // secrets that a search found but could not read
}

// View returns a View that has read nothing. If fresh is set, the View reads the newest state
// of each entry.
func (l *Ledger) View(fresh bool) *View {
	return &View{l: l, fresh: fresh, known: map[Name]Entry{}, absent: map[Name]bool{}, aside: map[Name]*UnreadableError{}}
}

// ViewOf returns a View that has read the given entries.
func (l *Ledger) ViewOf(entries ...Entry) *View {
	v := l.View(false)
	for _, e := range entries {
		v.known[e.Name] = e
	}
	return v
}

// Format prints only the type of v, so that package fmt does not print tokens.
func (v *View) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*ledger.View") }

// Fresher returns a View that reads the newest states, at least as new as those that v has
// read.
func (v *View) Fresher() *View {
	f := v.l.View(true)
	v.mu.Lock()
	defer v.mu.Unlock()
	f.than = maps.Clone(v.known)
	return f
}

// Fresh reports whether v reads the newest states.
func (v *View) Fresh() bool { return v.fresh }

// Current reports whether v is up to date, because it reads the newest states or because the
// reads of the driver do not lag.
func (v *View) Current() bool { return v.fresh || v.l.Properties.ReadLag == 0 }

// Known returns the named entry, and reports whether v has read it.
func (v *View) Known(name Name) (Entry, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.known[name]
	return e, ok
}

// Read returns the named entry as v has read it before, or else reads the entry from the driver.
// The error matches driver.ErrNotFound if the entry does not exist.
func (v *View) Read(ctx context.Context, name Name) (Entry, error) {
	v.mu.Lock()
	e, known := v.known[name]
	absent := v.absent[name]
	v.mu.Unlock()
	switch {
	case known:
		return e, nil
	case absent:
		return Entry{}, driver.ErrNotFound
	case v.fresh:
		return v.Reread(ctx, name)
	}
	e, err := v.l.Get(ctx, name)
	return v.remember(name, e, err)
}

// Reread is like Read, but always reads the newest state of the entry.
func (v *View) Reread(ctx context.Context, name Name) (Entry, error) {
	than, known := v.Known(name)
	if !known {
		than = v.than[name]
	}
	e, err := v.l.Newest(ctx, name, than)
	return v.remember(name, e, err)
}

// Remember makes v.Read return e for the name of e.
func (v *View) Remember(e Entry) { _, _ = v.remember(e.Name, e, nil) }

// remember stores and returns the result of a read of the named entry.
func (v *View) remember(name Name, e Entry, err error) (Entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.known[name] = e
		delete(v.absent, name)
		delete(v.aside, name)
	case errors.Is(err, driver.ErrNotFound):
		v.absent[name] = true
		delete(v.known, name)
		delete(v.aside, name)
	case OfOne(err):
		delete(v.known, name) // the current state is unreadable, so an earlier state must not be used
	}
	return e, err
}

func (v *View) setAside(u *UnreadableError) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.aside[Name(u.Name)] = u
}

// Unread joins the errors of the unreadable secrets that v has set aside. It returns nil if v
// has set none aside.
func (v *View) Unread() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.aside) == 0 {
		return nil // without allocations, because every search calls Unread
	}
	return JoinUnreadable(slices.Collect(maps.Values(v.aside)))
}

// Aside returns the errors of the unreadable secrets that v has set aside, ordered by name.
func (v *View) Aside() []*UnreadableError {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.Collect(maps.Values(v.aside))
	sortByName(all)
	return all
}

// Seek reads the named entry, so that Records can resolve it. If newest is set, Seek reads
// the newest state. An absent entry is not an error, and an unreadable entry is set aside.
func (v *View) Seek(ctx context.Context, name Name, newest bool) error {
	read := v.Read
	if newest {
		read = v.Reread
	}
	_, err := read(ctx, name)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return v.passOver(ctx, name, err)
}

// passOver sets the named secret aside and returns nil if err concerns only that secret.
// Otherwise, it returns err.
func (v *View) passOver(ctx context.Context, name Name, err error) error {
	if err == nil || ctx.Err() != nil || !OfOne(err) {
		return err
	}
	v.setAside(Unreadable(name, err))
	return nil
}

// Search concurrently reads the named entries and the entries with labels of the terms. It
// returns all records that the entries of v hold or lead to, including entries that v read
// earlier. Absent entries are not an error, and unreadable entries are set aside.
func (v *View) Search(ctx context.Context, names []Name, terms []Term) ([]Entry, error) {
	errs := make([]error, len(names)+1)
	var wait sync.WaitGroup
	for i, name := range names {
		wait.Go(func() { errs[i] = v.Seek(ctx, name, false) })
	}
	if len(terms) > 0 {
		errs[len(names)] = v.lookup(ctx, terms)
	}
	wait.Wait()
	if err := cmp.Or(errs...); err != nil {
		return nil, err
	}
	return v.Records(ctx)
}

func (v *View) lookup(ctx context.Context, terms []Term) error {
	for named, err := range own(v.l.Driver.Lookup(ctx, v.l.queries(terms))) {
		if err == nil {
			err = v.found(ctx, named)
		}
		err = OfListed(ctx, named.Name, err)
		u := OnlyUnreadable(err)
		if u == nil && err != nil {
			return err
		}
		if u == nil {
			continue
		}
		if _, known := v.Known(Name(u.Name)); !known {
			v.setAside(u)
		}
	}
	return nil
}

// found adds to v a secret that a look-up yielded, unless v has already read the secret.
func (v *View) found(ctx context.Context, named driver.Named) error {
	name := Name(named.Name)
	if _, known := v.Known(name); known {
		return nil // the read by name is at least as new as the index
	}
	e, err := v.l.toEntry(name, named.Secret)
	if err != nil {
		return err
	}
	_, _ = v.remember(name, e, nil)
	if v.fresh && v.l.Properties.ReadLag > 0 {
		return v.Seek(ctx, name, true)
	}
	return nil
}

// entries returns the entries that v has read so far, ordered by name.
func (v *View) entries() []Entry {
	v.mu.Lock()
	defer v.mu.Unlock()
	var few [8]Name // a View rarely has more entries, so the names rarely need an allocation
	names := few[:0]
	for name := range v.known {
		names = append(names, name)
	}
	slices.Sort(names)
	entries := make([]Entry, len(names))
	for i, name := range names {
		entries[i] = v.known[name]
	}
	return entries
}

// Records returns the records that the entries of v hold or lead to, each record once.
// Entries that lead to an unreadable secret are set aside.
func (v *View) Records(ctx context.Context) ([]Entry, error) {
	var records []Entry
	for _, e := range v.entries() {
		rec, err := v.Resolve(ctx, e)
		if errors.Is(err, driver.ErrNotFound) {
			continue
		}
		if err != nil {
			if err := v.passOver(ctx, e.Name, err); err != nil {
				return nil, err
			}
			continue
		}
		if i := slices.IndexFunc(records, func(have Entry) bool { return have.Name == rec.Name }); i >= 0 {
			records[i].path = append(records[i].path, rec.path...)
			continue
		}
		records = append(records, rec)
	}
	return v.dropMoved(ctx, records)
}

// dropMoved returns the elements of records that were not merged into another record. v may have
// read a merged record before the merge, and the other record after the merge.
func (v *View) dropMoved(ctx context.Context, records []Entry) ([]Entry, error) {
	var kept []Entry
	for _, rec := range records {
		merged, once := false, false
		for _, to := range records {
			merged = merged || slices.Contains(to.Absorbed, rec.Ref())
			once = once || to.Name != rec.Name && slices.Contains(to.IDs, string(rec.Name))
		}
		if once && !merged {
			// If the merged entry is a redirect, the IDs of the target contain the name of the
			// entry without the incarnation. Another process may have deleted the redirect, and
			// created a new record under that name.
			now, err := v.Reread(ctx, rec.Name)
			merged = err != nil || now.Target() != nil
			if err != nil && !errors.Is(err, driver.ErrNotFound) {
				if err := v.passOver(ctx, rec.Name, err); err != nil {
					return nil, err
				}
			}
		}
		if !merged {
			kept = append(kept, rec)
		}
	}
	return kept, nil
}

// errDead means that an entry leads to a deleted record. The entry also counts as deleted.
var errDead = errors.New("moved to a record that was deleted")

// maxHops is the maximum length of a chain of entries that lead to one another. A redirect may
// lead to another redirect if Rekey renamed the record.
const maxHops = 4

// Resolve returns the record that e holds or leads to. The error matches driver.ErrNotFound
// if the record has no token yet, and also errDead if e leads to a deleted record.
func (v *View) Resolve(ctx context.Context, e Entry) (Entry, error) {
	return v.resolve(ctx, e, maxHops)
}

func (v *View) resolve(ctx context.Context, e Entry, hops int) (Entry, error) {
	to := e.Target()
	if to == nil {
		return v.Record(ctx, e)
	}
	u, err := v.Read(ctx, Name(to.Name))
	if (errors.Is(err, driver.ErrNotFound) || err == nil && (u.Born != to.Born || !u.lists(e))) && v.l.Properties.ReadLag > 0 {
		u, err = v.Reread(ctx, Name(to.Name))
	}
	switch {
	case errors.Is(err, driver.ErrNotFound), err == nil && u.Born != to.Born:
		return Entry{}, fmt.Errorf("%w: %w", driver.ErrNotFound, errDead)
	case err != nil:
		return Entry{}, err
	case hops == 0:
		return Entry{}, fmt.Errorf("%w: %q has moved to %q, which keeps moving", driver.ErrCorrupt, e.Name, u.Name)
	}
	rec, err := v.resolve(ctx, u, hops-1)
	rec.path = append(rec.path, v.l.idsOf(e)...)
	return rec, err
}

// lists reports whether the joining or absorbed list of e contains the other entry.
func (e Entry) lists(from Entry) bool {
	return slices.Contains(e.Joining, from.Ref()) || slices.Contains(e.Absorbed, from.Ref())
}

// Record returns the record of e, with the frozen entries that have moved to e. e itself must
// not have moved. The error matches driver.ErrNotFound if e has no token yet, because a
// writer created e only for another entry to move to.
func (v *View) Record(ctx context.Context, e Entry) (Entry, error) {
	for range 3 {
		rec, stale, err := v.withFrozen(ctx, e)
		if err != nil || !stale {
			return rec, err
		}
		// Since v read e, a writer has merged an entry from the joining list into e.
		if e, err = v.Reread(ctx, e.Name); err != nil {
			return Entry{}, err
		}
	}
	rec, _, err := v.withFrozen(ctx, e)
	return rec, err
}

func (v *View) withFrozen(ctx context.Context, e Entry) (rec Entry, stale bool, err error) {
	rec = newEntry(e.Name, e.secret, e.Record)
	rec.drop = e.drop
	own := e.ID
	for _, ref := range e.Joining {
		from, err := v.Read(ctx, Name(ref.Name))
		switch {
		case isOneOf(err, driver.ErrNotFound, driver.ErrCorrupt):
			// An absent or corrupt entry contributes nothing to the record.
		case err != nil:
			return Entry{}, false, err
		case from.Born != ref.Born:
			// Another incarnation contributes nothing either.
		case from.Alias != nil:
			stale = true
		case from.Moved != nil && *from.Moved == e.Ref():
			if !rules.HasCredential(rec.Token) && own == "" {
				own = from.ID
			}
			rec.Frozen = append(rec.Frozen, from)
			rec.path = append(rec.path, v.l.idsOf(from)...)
			rec.Token = rules.Absorb(rec.Token, from.Token)
		}
	}
	if !stale && !rules.HasCredential(rec.Token) {
		return Entry{}, false, fmt.Errorf("%w: %q is being prepared", driver.ErrNotFound, e.Name)
	}
	rec.Token.ID = cmp.Or(own, string(e.Name))
	return rec, stale, nil
}
