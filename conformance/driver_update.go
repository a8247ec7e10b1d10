package conformance

import (
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var updateCases = []testCase[*driverEnv]{
	{"DR-05", "Update with a stale base is refused", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		first := e.create(d, name, payload(l))
		second := e.update(d, name, first, payload(again(l)))
		third := e.update(d, name, second, payload(again(l)))
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			for _, base := range []driver.Secret{first, second, first} {
				_, err := h.Update(e.ctx, name, base, payload(label("user")))
				e.wants("Update with a stale base", err, driver.ErrConflict)
				e.is(d, name, third)
				e.found(d, name, third, l)
			}
		}
	}},
	{"DR-05", "Update with a base that another handle has replaced is refused", func(e *driverEnv) {
		d := e.open()
		other := e.reopen(d)
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		mine, theirs := e.get(d, name, s), e.get(other, name, s)
		now := e.update(other, name, theirs, payload(label("user")))
		_, err := d.Update(e.ctx, name, mine, payload(label("user")))
		e.wants("Update with a base that another handle has replaced", err, driver.ErrConflict)
		e.is(d, name, now)
		e.is(other, name, now)
	}},
	{"DR-05", "Update repeated after it succeeded is refused", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		base := e.create(d, name, payload(label("user")))
		now := e.update(d, name, base, payload(label("user")))
		_, err := d.Update(e.ctx, name, base, payload(label("user")))
		e.wants("Update with a base that was replaced", err, driver.ErrConflict)
		e.is(d, name, now)
	}},
	{"DR-07", "Update of a deleted name creates nothing", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		e.remove(d, name, s)
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			_, err := h.Update(e.ctx, name, s, payload(again(l)))
			e.wants("Update of a name that does not exist", err, driver.ErrNotFound, driver.ErrConflict)
			e.absent(d, name, s)
			e.unlisted(d, name, l)
		}
	}},
	{"DR-09", "every state has a version of its own", func(e *driverEnv) {
		d := e.open()
		other := e.reopen(d)
		name := e.name()
		seen := map[driver.Version]int{"": -1}
		note := func(i int, s driver.Secret) {
			if j, ok := seen[s.Version]; ok {
				e.Errorf("state %d has version %q, as state %d had (-1: no state)", i, s.Version, j)
			}
			seen[s.Version] = i
		}
		n := 0
		for range 3 {
			s := e.create(d, name, payload(label("user")))
			note(n, s)
			for range 3 {
				n++
				s = e.update(other, name, s, payload(label("user")))
				note(n, s)
			}
			n++
			e.remove(d, name, s)
		}
	}},
	{"DR-21", "a second handle sees the same secrets", func(e *driverEnv) {
		d := e.open()
		before := e.reopen(d)
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		for _, h := range []driver.Secrets{before, e.reopen(d)} {
			e.is(h, name, s)
			e.found(h, name, s, l)
		}
		s = e.update(before, name, s, payload(l))
		e.is(d, name, s)
		e.remove(e.reopen(d), name, s)
		e.absent(d, name, s)
		e.absent(before, name, s)
	}},
	{"DR-21", "a second handle takes part in the same compare and swap", func(e *driverEnv) {
		d := e.open()
		other := e.reopen(d)
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		_, err := other.Create(e.ctx, name, payload(label("user")))
		e.wants("Create of a name that another handle created", err, driver.ErrExists)
		stale := s
		for i := range 4 {
			h, rival := d, other
			if i%2 == 1 {
				h, rival = other, d
			}
			s = e.update(h, name, s, payload(label("user")))
			_, err := rival.Update(e.ctx, name, stale, payload(label("user")))
			e.wants("Update with a base that another handle has replaced", err, driver.ErrConflict)
			e.wants("Delete with a base that another handle has replaced", rival.Delete(e.ctx, name, stale), driver.ErrConflict)
			stale = s
		}
		e.is(d, name, s)
		e.is(other, name, s)
	}},
	{"DR-27", "Fresh is at least as new as the state it is told of", func(e *driverEnv) {
		d := e.open()
		other := e.reopen(d)
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		for range 3 {
			s = e.update(d, name, s, payload(label("user")))
			for _, h := range []driver.Secrets{d, other} {
				got, err := h.Fresh(e.ctx, name, s)
				if err == nil {
					err = same("Fresh", name, got, s)
				}
				if err != nil {
					e.Errorf("Fresh after the newest state: %v", err)
				}
			}
		}
	}},
	{"DR-27", "Fresh finds the newest state, whatever it is told of", func(e *driverEnv) {
		d := e.open()
		other := e.reopen(d)
		name := e.name()
		first := e.create(d, name, payload(label("user")))
		second := e.update(d, name, first, payload(label("user")))
		third := e.update(d, name, second, payload(label("user")))
		for _, h := range []driver.Secrets{d, other} {
			for _, than := range []driver.Secret{{}, first, second, third} {
				e.after(e.lag.ReadLag, func() error {
					s, err := h.Fresh(e.ctx, name, than)
					if err != nil {
						return fmt.Errorf("Fresh: %w", err)
					}
					return same("Fresh", name, s, third)
				})
			}
		}
		e.remove(d, name, third)
		e.after(e.lag.ReadLag, func() error {
			if _, err := other.Fresh(e.ctx, name, first); !errors.Is(err, driver.ErrNotFound) {
				return fmt.Errorf("Fresh of a deleted secret returned error %v, want ErrNotFound", err)
			}
			return nil
		})
		again := e.create(d, name, payload(label("user")))
		e.is(d, name, again)
		e.is(other, name, again)
	}},
}
