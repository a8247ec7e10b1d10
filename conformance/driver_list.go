package conformance

import (
	"fmt"
	"iter"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var listCases = []testCase[*driverEnv]{
	{"DR-18", "an empty namespace has no secrets and no names", func(e *driverEnv) {
		d := e.open()
		if got, err := gather(d.List(e.ctx)); err != nil || len(got) > 0 {
			e.Errorf("List yields %d secrets and error %v, want none", len(got), err)
		}
		if got, err := namesOf(d.Names(e.ctx)); err != nil || len(got) > 0 {
			e.Errorf("Names yields %q and error %v, want none", got, err)
		}
	}},
	{"DR-18", "List yields every secret and Names every name, each once", func(e *driverEnv) {
		d := e.open()
		want := map[string]driver.Secret{}
		for i := range 45 {
			name := e.name()
			if i < 3 {
				name = e.use([]string{"a", "0", name + name[:31]}[i])
			}
			want[name] = e.create(d, name, payload(label("user"), label("access")))
		}
		for name := range want {
			want[name] = e.update(d, name, want[name], payload(label("user")))
			break
		}
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
				got, err := gather(h.List(e.ctx))
				if err != nil {
					return fmt.Errorf("List: %w", err)
				}
				if err := alike("List", got, want); err != nil {
					return err
				}
				names, err := namesOf(h.Names(e.ctx))
				if err != nil {
					return fmt.Errorf("Names: %w", err)
				}
				for name := range want {
					if n := count(names, name); n != 1 {
						return fmt.Errorf("Names yields %q %d times, want once", name, n)
					}
				}
				if len(names) != len(want) {
					return fmt.Errorf("Names yields %d names, want %d: nothing was deleted", len(names), len(want))
				}
				return nil
			})
		}
	}},
	{"DR-18", "List yields no deleted secret", func(e *driverEnv) {
		d := e.open()
		want := map[string]driver.Secret{}
		for i := range 6 {
			name := e.name()
			s := e.create(d, name, payload(label("user")))
			if i%2 == 0 {
				e.remove(d, name, s)
			} else {
				want[name] = s
			}
		}
		e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
			got, err := gather(d.List(e.ctx))
			if err != nil {
				return fmt.Errorf("List: %w", err)
			}
			return alike("List", got, want)
		})
	}},
	{"DR-18", "List yields states that are fit as a base", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		s = e.update(d, name, s, payload(l))
		e.found(d, name, s, l)
		e.lags(e.lag.ListLag)
		for got, err := range d.List(e.ctx) {
			if err != nil {
				e.Fatalf("List: %v", err)
			}
			got.Labels = s.Labels
			e.remove(d, got.Name, got.Secret)
		}
		e.absent(d, name, s)
	}},
	{"DR-19", "an iterator stops when the loop body returns false", func(e *driverEnv) {
		d := e.open()
		l := label("client")
		for range 5 {
			e.create(d, e.name(), payload(again(l)))
		}
		e.lags(e.lag.ListLag)
		for stop := 1; stop <= 3; stop++ {
			for op, n := range map[string]int{
				"List":   yields(d.List(e.ctx), stop),
				"Lookup": yields(d.Lookup(e.ctx, []driver.Label{l}), stop),
				"Names":  yields(d.Names(e.ctx), stop),
			} {
				if n != stop && !(n < stop && e.lag.ListLag > patience && e.settle == nil) {
					e.Errorf("%s called the loop body %d times, though call %d returned false", op, n, stop)
				}
			}
		}
		// An abandoned list must not affect later lists.
		if _, err := gather(d.List(e.ctx)); err != nil {
			e.Errorf("List after a loop that was left: %v", err)
		}
	}},
	{"DR-19", "an iterator ends after it yields an error", func(e *driverEnv) {
		d := e.open()
		l := label("client")
		for range 3 {
			e.create(d, e.name(), payload(again(l)))
		}
		e.lags(e.lag.ListLag)
		for looks := range 12 {
			ctx := newFuse(e.ctx, looks)
			for op, after := range map[string]int{
				"List":   afterError(d.List(ctx)),
				"Lookup": afterError(d.Lookup(ctx, []driver.Label{l})),
				"Names":  afterError(d.Names(ctx)),
			} {
				if after > 0 {
					e.Errorf("%s called the loop body %d times after it had yielded an error", op, after)
				}
			}
			ctx.cancel()
		}
	}},
	{"DR-19", "a secret that the service refuses does not hide others from List and Lookup", func(e *driverEnv) {
		d, name, l, want := e.refused()
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
				if err := but("List", h.List(e.ctx), want, name, refusals...); err != nil {
					return err
				}
				return but("Lookup", h.Lookup(e.ctx, []driver.Label{l}), want, name, refusals...)
			})
		}
	}},
	{"DR-20", "drivers on different prefixes do not see each other's secrets", func(e *driverEnv) {
		d := e.open()
		beside := e.sibling(d)
		name, only := e.name(), e.name()
		l := label("user")
		here := e.create(d, name, payload(again(l)))
		there := e.create(beside, name, payload(again(l)))
		alone := e.create(beside, only, payload(again(l)))
		e.TB.Cleanup(func() {
			_ = beside.Delete(e.ctx, name, there)
			_ = beside.Delete(e.ctx, only, alone)
		})
		check := func(h driver.Secrets, want map[string]driver.Secret) {
			e.TB.Helper()
			e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
				got, err := gather(h.List(e.ctx))
				if err != nil {
					return fmt.Errorf("List: %w", err)
				}
				if err := alike("List", got, want); err != nil {
					return err
				}
				if got, err = gather(h.Lookup(e.ctx, []driver.Label{l})); err != nil {
					return fmt.Errorf("Lookup: %w", err)
				}
				if err := alike("Lookup", got, want); err != nil {
					return err
				}
				names, err := namesOf(h.Names(e.ctx))
				if err != nil || len(names) != len(want) {
					return fmt.Errorf("Names yields %q and error %v, want the names of %d secrets", names, err, len(want))
				}
				return nil
			})
		}
		check(d, map[string]driver.Secret{name: here})
		check(beside, map[string]driver.Secret{name: there, only: alone})
		e.absent(d, only, driver.Secret{})
		e.is(d, name, here)
		e.is(beside, name, there)
		there = e.update(beside, name, there, payload(again(l)))
		e.remove(d, name, here)
		e.absent(d, name, here)
		e.is(beside, name, there)
		e.found(beside, name, there, l)
	}},
}

// alike returns an error if the secrets in got differ from the secrets in want.
func alike(op string, got, want map[string]driver.Secret) error {
	for name, s := range want {
		g, ok := got[name]
		if !ok {
			return fmt.Errorf("%s does not yield %q", op, name)
		}
		if err := same(op, name, g, s); err != nil {
			return err
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			return fmt.Errorf("%s yields %q, want %d others", op, name, len(want))
		}
	}
	return nil
}

func namesOf(seq iter.Seq2[string, error]) ([]string, error) {
	var names []string
	for name, err := range seq {
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func count(names []string, name string) int {
	n := 0
	for _, have := range names {
		if have == name {
			n++
		}
	}
	return n
}

// yields returns the number of times that seq calls a loop body. The loop body returns false in
// call number stop and in later calls.
func yields[V any](seq iter.Seq2[V, error], stop int) int {
	n := 0
	seq(func(V, error) bool {
		n++
		return n < stop
	})
	return n
}

// afterError returns the number of times that seq calls the loop body after seq yields an
// error.
func afterError[V any](seq iter.Seq2[V, error]) int {
	n, failed := 0, false
	seq(func(_ V, err error) bool {
		if failed {
			n++
		}
		failed = failed || err != nil
		return true
	})
	return n
}
