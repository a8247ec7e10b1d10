package conformance

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// writers is the number of goroutines that compete for one secret. Services limit the
// number of versions of a secret per day, so no case writes one secret more than 60 times.
const writers = 8

// handles returns n separate handles on a new namespace.
func (e *driverEnv) handles(n int) []driver.Secrets {
	hs := []driver.Secrets{e.open()}
	for len(hs) < n {
		hs = append(hs, e.reopen(hs[0]))
	}
	return hs
}

var concurrencyCases = []testCase[*driverEnv]{
	{"DR-04", "of concurrent Creates one succeeds", func(e *driverEnv) {
		hs := e.handles(writers)
		for range 4 {
			name := e.name()
			l := label("user")
			var won atomic.Int64
			var winner atomic.Pointer[driver.Secret]
			together(writers, func(i int) {
				p := payload(again(l))
				v, err := hs[i].Create(e.ctx, name, p)
				if err == nil {
					won.Add(1)
					winner.Store(&driver.Secret{Payload: p, Version: v})
				} else {
					e.wants("Create that lost", err, driver.ErrExists)
				}
			})
			if n := won.Load(); n != 1 {
				e.Fatalf("%d of %d Creates succeeded, want 1", n, writers)
			}
			e.is(hs[0], name, *winner.Load())
			e.found(hs[0], name, *winner.Load(), l)
		}
	}},
	{"DR-04", "of concurrent Creates of a deleted name one succeeds", func(e *driverEnv) {
		hs := e.handles(writers)
		name := e.name()
		for range 4 {
			s := e.create(hs[0], name, payload(label("user")))
			e.remove(hs[0], name, s)
			var won atomic.Int64
			var winner atomic.Pointer[driver.Secret]
			together(writers, func(i int) {
				p := payload(label("user"))
				if v, err := hs[i].Create(e.ctx, name, p); err == nil {
					won.Add(1)
					winner.Store(&driver.Secret{Payload: p, Version: v})
				} else {
					e.wants("Create that lost", err, driver.ErrExists)
				}
			})
			if n := won.Load(); n != 1 {
				e.Fatalf("%d of %d Creates succeeded, want 1", n, writers)
			}
			e.is(hs[0], name, *winner.Load())
			e.remove(hs[0], name, *winner.Load())
		}
	}},
	{"DR-06", "of concurrent Updates with one base one succeeds", func(e *driverEnv) {
		hs := e.handles(writers)
		name := e.name()
		user, access := label("user"), label("access")
		s := e.create(hs[0], name, payload(user, access))
		for range 5 {
			var won atomic.Int64
			var winner atomic.Pointer[driver.Secret]
			together(writers, func(i int) {
				p := payload(user, again(access))
				if v, err := hs[i].Update(e.ctx, name, s, p); err == nil {
					won.Add(1)
					winner.Store(&driver.Secret{Payload: p, Version: v})
				} else {
					e.wants("Update that lost", err, driver.ErrConflict)
				}
			})
			if n := won.Load(); n != 1 {
				e.Fatalf("%d of %d Updates succeeded, want 1", n, writers)
			}
			s = *winner.Load()
			e.is(hs[0], name, s)
			e.found(hs[0], name, s, user, access)
		}
	}},
	{"DR-06", "no update is lost", func(e *driverEnv) {
		const each = 6
		hs := e.handles(writers)
		name := e.name()
		first := payloadOf([]byte("begin "+text(16)), label("user"))
		e.create(hs[0], name, first)
		together(writers, func(i int) {
			var known driver.Secret
			for done := 0; done < each; {
				s, err := hs[i].Fresh(e.ctx, name, known)
				if err != nil {
					e.Errorf("Fresh: %v", err)
					return
				}
				s.Labels = first.Labels
				p := driver.Payload{Data: fmt.Appendf(nil, "%s;%d %s", s.Data, i, text(8)), Labels: first.Labels}
				v, err := hs[i].Update(e.ctx, name, s, p)
				switch {
				case err == nil:
					known = driver.Secret{Payload: p, Version: v}
					done++
				case !errors.Is(err, driver.ErrConflict):
					e.Errorf("Update: %v", err)
					return
				}
			}
		})
		e.lags(e.lag.ReadLag)
		s, err := e.reopen(hs[0]).Fresh(e.ctx, name, driver.Secret{})
		if err != nil {
			e.Fatalf("Fresh: %v", err)
		}
		if n := strings.Count(string(s.Data), ";"); n != writers*each {
			e.Errorf("%d of %d updates are in the last state", n, writers*each)
		}
	}},
}
