package conformance

import (
	"fmt"
	"sync/atomic"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// leaser returns d as a driver.Leaser. If d does not implement that interface, leaser skips the
// case.
func (e *driverEnv) leaser(d driver.Secrets) driver.Leaser {
	e.TB.Helper()
	l, ok := d.(driver.Leaser)
	if !ok {
		e.TB.Skipf("%T is not a driver.Leaser", d)
	}
	return l
}

// fresh waits for ReadLag, and returns the result of Fresh.
func (e *driverEnv) fresh(d driver.Secrets, name string) driver.Secret {
	e.TB.Helper()
	e.lags(e.lag.ReadLag)
	s, err := d.Fresh(e.ctx, name, driver.Secret{})
	if err != nil {
		e.Fatalf("Fresh(%q): %v", name, err)
	}
	return s
}

// noted checks that the named secret has the state want and the given note.
func (e *driverEnv) noted(d driver.Secrets, name string, want driver.Secret, note string) {
	e.TB.Helper()
	e.is(d, name, want)
	e.after(e.lag.ReadLag, func() error {
		s, err := d.Fresh(e.ctx, name, want)
		if err == nil && s.Note != note {
			err = fmt.Errorf("the note is %q, want %q", s.Note, note)
		}
		return err
	})
}

// note replaces the note of the named secret. base holds the current state and note of the
// secret.
func (e *driverEnv) note(l driver.Leaser, name string, base driver.Secret, note string) {
	e.TB.Helper()
	if err := l.Note(e.ctx, name, base, note); err != nil {
		e.Fatalf("Note(%q): %v", name, err)
	}
}

var leaserCases = []testCase[*driverEnv]{
	{"DR-29", "Note replaces the note and nothing else", func(e *driverEnv) {
		d := e.leaser(e.open())
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		e.noted(d, name, s, "")
		e.note(d, name, e.fresh(d, name), "a.1")
		e.noted(d, name, s, "a.1")
		e.note(d, name, e.fresh(d, name), "b.2")
		e.noted(d, name, s, "b.2")
		e.found(d, name, s, l)
		e.note(d, name, e.fresh(d, name), "")
		e.noted(d, name, s, "")
		e.update(d, name, s, payload(l))
	}},
	{"DR-29", "of concurrent Notes on one base one succeeds", func(e *driverEnv) {
		hs := e.handles(writers)
		e.leaser(hs[0])
		name := e.name()
		s := e.create(hs[0], name, payload(label("user")))
		for round := range 4 {
			base := e.fresh(hs[0], name)
			var won atomic.Int64
			var winner atomic.Value
			together(writers, func(i int) {
				note := fmt.Sprintf("round-%d.%d", round, i)
				if err := hs[i].(driver.Leaser).Note(e.ctx, name, base, note); err == nil {
					won.Add(1)
					winner.Store(note)
				} else {
					e.wants("Note that lost", err, driver.ErrConflict)
				}
			})
			if n := won.Load(); n != 1 {
				e.Fatalf("%d of %d Notes succeeded, want 1", n, writers)
			}
			e.noted(hs[0], name, s, winner.Load().(string))
		}
	}},
	{"DR-29", "Note with a note that is not current changes nothing", func(e *driverEnv) {
		d := e.leaser(e.open())
		name := e.name()
		s := e.create(d, name, payload())
		base := e.fresh(d, name)
		e.note(d, name, base, "a.1")
		e.wants("Note over another note", d.Note(e.ctx, name, base, "b.2"), driver.ErrConflict)
		e.wants("Note that removes another note", d.Note(e.ctx, name, base, ""), driver.ErrConflict)
		e.noted(d, name, s, "a.1")
	}},
	{"DR-29", "Note with a state that is not current changes nothing", func(e *driverEnv) {
		d := e.leaser(e.open())
		name := e.name()
		s := e.create(d, name, payload())
		base := e.fresh(d, name)
		s = e.update(d, name, s, payload())
		e.wants("Note on an earlier state", d.Note(e.ctx, name, base, "a.1"), driver.ErrConflict)
		e.noted(d, name, s, "")
	}},
	{"DR-29", "Note of an earlier incarnation changes nothing", func(e *driverEnv) {
		d := e.leaser(e.open())
		name := e.name()
		s := e.create(d, name, payload())
		base := e.fresh(d, name)
		e.remove(d, name, s)
		e.wants("Note of what was deleted", d.Note(e.ctx, name, base, "a.1"), driver.ErrConflict, driver.ErrNotFound)
		e.absent(d, name, s)
		s = e.create(d, name, payload())
		e.wants("Note of an earlier incarnation", d.Note(e.ctx, name, base, "a.1"), driver.ErrConflict, driver.ErrNotFound)
		e.noted(d, name, s, "")
	}},
	{"DR-30", "a note stays until a write drops it", func(e *driverEnv) {
		d := e.leaser(e.open())
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		e.note(d, name, e.fresh(d, name), "a.1")
		s = e.update(d, name, s, payload())
		e.noted(d, name, s, "a.1")
		other := payload()
		other.Drop = "b.2"
		s = e.update(d, name, s, other)
		e.noted(d, name, s, "a.1")
		drop := payload()
		drop.Drop = "a.1"
		s = e.update(d, name, s, drop)
		e.noted(d, name, s, "")
	}},
	{"DR-30", "a note is removed with its secret", func(e *driverEnv) {
		d := e.leaser(e.open())
		name := e.name()
		s := e.create(d, name, payload())
		e.note(d, name, e.fresh(d, name), "a.1")
		e.remove(d, name, s)
		s = e.create(d, name, payload())
		e.noted(d, name, s, "")
	}},
}
