package conformance

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var raceCases = []testCase[*driverEnv]{
	{"DR-08", "no reader sees data and version of different states", func(e *driverEnv) {
		hs := e.handles(4)
		name := e.name()
		l := label("user")
		s := e.create(hs[0], name, payload(l))
		var states sync.Map // version to data
		states.Store(s.Version, string(s.Data))
		e.lags(max(e.lag.ListLag, e.lag.ReadLag))
		type sight struct {
			op string
			s  driver.Secret
		}
		sights := make([][]sight, 3)
		var over atomic.Bool
		var reads atomic.Int64
		together(4, func(i int) {
			if i == 3 {
				defer over.Store(true)
				for range 40 {
					// Without this pause, a very fast update might never fall between two
					// reads.
					for n, looks := reads.Load(), 0; reads.Load() == n && looks < 20; looks++ {
						e.pause(time.Millisecond)
					}
					p := payload(l)
					v, err := hs[i].Update(e.ctx, name, s, p)
					if err != nil {
						e.Errorf("Update: %v", err)
						return
					}
					s = driver.Secret{Payload: p, Version: v}
					states.Store(v, string(p.Data))
				}
				return
			}
			for n := 0; n < 1000 && !over.Load(); n++ {
				got, err := hs[i].Get(e.ctx, name)
				fresh, err2 := hs[i].Fresh(e.ctx, name, got)
				if err := errors.Join(err, err2); err != nil {
					e.Errorf("Get and Fresh while the secret is updated: %v", err)
					return
				}
				reads.Add(1)
				sights[i] = append(sights[i], sight{"Get", got}, sight{"Fresh", fresh})
				for got, err := range hs[i].List(e.ctx) {
					if err != nil {
						e.Errorf("List while a secret is updated: %v", err)
						return
					}
					sights[i] = append(sights[i], sight{"List", got.Secret})
				}
			}
		})
		for _, seen := range sights {
			for _, sight := range seen {
				if data, ok := states.Load(sight.s.Version); !ok || data != string(sight.s.Data) {
					e.Fatalf("%s returned version %q with data that was not committed with it", sight.op, sight.s.Version)
				}
			}
		}
	}},
	{"DR-14", "a write that races with Delete and Create does not touch the new secret", func(e *driverEnv) {
		hs := e.handles(3)
		for range 8 {
			name := e.name()
			l := label("user")
			base := e.create(hs[0], name, payload(again(l)))
			var now driver.Secret
			together(3, func(i int) {
				switch i {
				case 0:
					if err := hs[0].Delete(e.ctx, name, base); err != nil {
						return // the Update or the other Delete was first
					}
					p := payload(again(l))
					v, err := hs[0].Create(e.ctx, name, p)
					if err != nil {
						e.Errorf("Create after Delete: %v", err)
						return
					}
					now = driver.Secret{Payload: p, Version: v}
				case 1:
					_, _ = hs[1].Update(e.ctx, name, base, payload(label("access")))
				case 2:
					_ = hs[2].Delete(e.ctx, name, base)
				}
			})
			if now.Version != "" {
				e.is(hs[1], name, now)
				e.found(hs[1], name, now, l)
			}
		}
	}},
	{"DR-15", "while writers race a secret is found by the labels of its state", func(e *driverEnv) {
		hs := e.handles(writers)
		name := e.name()
		user, access := label("user"), label("access")
		s := e.create(hs[0], name, payload(user, access))
		var over atomic.Bool
		for range 5 {
			var winner atomic.Pointer[driver.Secret]
			over.Store(false)
			together(writers, func(i int) {
				if i > 0 {
					// All writers add the same labels, but each writer has its own nonces.
					p := payload(again(user), again(access))
					if v, err := hs[i].Update(e.ctx, name, s, p); err == nil {
						winner.Store(&driver.Secret{Payload: p, Version: v})
					} else {
						e.wants("Update that lost", err, driver.ErrConflict)
					}
					over.Store(true)
					return
				}
				for n := 0; n < 200 && !over.Load() && e.lag.ListLag == 0; n++ {
					e.hit(hs[0], name, user)
				}
			})
			if winner.Load() == nil {
				e.Fatalf("none of the Updates succeeded")
			}
			s = *winner.Load()
			e.found(hs[0], name, s, user, access)
		}
	}},
	{"DR-26", "all methods may be called at once on one handle", func(e *driverEnv) {
		d := e.open()
		l := label("client")
		names := []string{e.name(), e.name(), e.name()}
		var known sync.Map // driver.Named by data
		together(writers, func(i int) {
			for n := range 6 {
				if err := e.anything(d, names[(i+n)%len(names)], l, &known, n+i); err != nil {
					e.Errorf("%v", err)
				}
			}
		})
		e.lags(max(e.lag.ListLag, e.lag.ReadLag))
		got, err := gather(d.List(e.ctx))
		if err != nil {
			e.Fatalf("List: %v", err)
		}
		for name, s := range got {
			e.is(d, name, s)
		}
	}},
}

// hit checks that Lookup by l yields the named secret.
func (e *driverEnv) hit(d driver.Secrets, name string, l driver.Label) {
	e.TB.Helper()
	got, err := gather(d.Lookup(e.ctx, []driver.Label{l}))
	if err != nil {
		e.Errorf("Lookup: %v", err)
	} else if _, ok := got[name]; !ok {
		e.Errorf("Lookup by the label %q does not yield %q while the secret is updated", l.Key, name)
	}
}

// anything calls Create if the named secret does not exist, and otherwise a method that n
// selects. anything returns an error if the method returns an error that no race explains, or if
// Get returns data that was not stored under name.
func (e *driverEnv) anything(d driver.Secrets, name string, l driver.Label, known *sync.Map, n int) error {
	p := payload(again(l))
	known.Store(string(p.Data), driver.Named{Name: name, Secret: driver.Secret{Payload: p}})
	s, err := d.Get(e.ctx, name)
	if errors.Is(err, driver.ErrNotFound) {
		if _, err = d.Create(e.ctx, name, p); errors.Is(err, driver.ErrExists) {
			return nil
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("Get: %w", err)
	}
	have, ok := known.Load(string(s.Data))
	if !ok || have.(driver.Named).Name != name {
		return fmt.Errorf("Get(%q) returned data that was not stored there: %s", name, brief(s.Data))
	}
	s.Labels = have.(driver.Named).Labels
	switch n % 5 {
	case 0, 1:
		_, err = d.Update(e.ctx, name, s, p)
	case 2:
		err = d.Delete(e.ctx, name, s)
	case 3:
		_, err = gather(d.Lookup(e.ctx, p.Labels))
	case 4:
		_, err = d.Fresh(e.ctx, name, s)
	}
	if errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}
