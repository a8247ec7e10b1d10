package conformance

import (
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var deleteCases = []testCase[*driverEnv]{
	{"DR-10", "a deleted secret is gone from Get, Lookup and List", func(e *driverEnv) {
		d := e.open()
		kept, name := e.name(), e.name()
		both := label("client")
		l, earlier := label("user"), label("refresh")
		stays := e.create(d, kept, payload(again(both), label("user")))
		s := e.create(d, name, payload(l, earlier, both))
		s = e.update(d, name, s, payload(l, both))
		e.remove(d, name, s)
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			e.absent(h, name, s)
			e.unlisted(h, name, l, earlier, both)
			e.is(h, kept, stays)
			e.found(h, kept, stays, both)
		}
	}},
	{"DR-11", "Delete with a stale base is refused and changes nothing", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		first := e.create(d, name, payload(l))
		second := e.update(d, name, first, payload(again(l)))
		third := e.update(d, name, second, payload(again(l)))
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			for _, base := range []driver.Secret{first, second} {
				e.wants("Delete with a stale base", h.Delete(e.ctx, name, base), driver.ErrConflict)
				e.is(d, name, third)
				e.found(d, name, third, l)
			}
		}
		e.remove(d, name, third)
		e.absent(d, name, third)
	}},
	{"DR-12", "Delete of a name that does not exist returns nil", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		if err := d.Delete(e.ctx, name, driver.Secret{}); err != nil {
			e.Errorf("Delete of a name that was never created: %v", err)
		}
		s := e.create(d, name, payload(label("user")))
		e.remove(d, name, s)
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			if err := h.Delete(e.ctx, name, s); err != nil {
				e.Errorf("Delete of a deleted name: %v", err)
			}
		}
	}},
	{"DR-14", "Update with a base from an earlier incarnation is refused", func(e *driverEnv) {
		e.lives(func(h driver.Secrets, name string, base driver.Secret) error {
			_, err := h.Update(e.ctx, name, base, payload(label("refresh")))
			return err
		})
	}},
	{"DR-14", "Delete with a base from an earlier incarnation is refused", func(e *driverEnv) {
		e.lives(func(h driver.Secrets, name string, base driver.Secret) error {
			return h.Delete(e.ctx, name, base)
		})
	}},
	{"DR-14", "Create of a live name does not touch the labels of a new incarnation", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		e.remove(d, name, e.create(d, name, payload(again(l))))
		s := e.create(d, name, payload(again(l)))
		_, err := e.reopen(d).Create(e.ctx, name, payload(again(l)))
		e.wants("Create of a live name", err, driver.ErrExists)
		e.is(d, name, s)
		e.found(d, name, s, l)
	}},
}

// lives creates a secret, deletes the secret, and creates it again. After each write of the second
// incarnation, lives calls the function write with each state of the first incarnation as the base.
// lives checks that these calls fail and change nothing. Both incarnations have the same number of
// writes, so a driver whose versions only count writes fails the case.
func (e *driverEnv) lives(write func(h driver.Secrets, name string, base driver.Secret) error) {
	d := e.open()
	other := e.reopen(d)
	name := e.name()
	user, refresh := label("user"), label("refresh")
	life := func() []driver.Secret {
		s := e.create(d, name, payload(again(user), again(refresh)))
		states := []driver.Secret{s}
		for range 2 {
			s = e.update(d, name, s, payload(again(user), again(refresh)))
			states = append(states, s)
		}
		return states
	}
	first := life()
	e.remove(d, name, first[len(first)-1])
	attempt := func(now driver.Secret) {
		for _, h := range []driver.Secrets{d, other} {
			for _, base := range first {
				e.wants("a write with a base from an earlier incarnation", write(h, name, base), driver.ErrConflict, driver.ErrNotFound)
			}
		}
		e.is(d, name, now)
		e.found(d, name, now, user, refresh)
	}
	s := e.create(d, name, payload(again(user), again(refresh)))
	attempt(s)
	for range 2 {
		s = e.update(d, name, s, payload(again(user), again(refresh)))
		attempt(s)
	}
}
