package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var corruptCases = []testCase[*driverEnv]{
	{"DR-28", "a secret in a foreign form is corrupt and is not changed", func(e *driverEnv) {
		d, name, l := e.tampered()
		s, err := d.Fresh(e.ctx, name, driver.Secret{})
		e.wants("Fresh of a secret in a foreign form", err, driver.ErrCorrupt)
		_ = s
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			if _, err := h.Create(e.ctx, name, payload(again(l))); err == nil {
				e.Errorf("Create over a secret in a foreign form succeeded")
			}
			e.wantCorrupt(h, name)
		}
	}},
	{"DR-28", "a base from before a secret was edited writes nothing over it", func(e *driverEnv) {
		if e.b.Tamper == nil {
			e.TB.Skipf("Driver.Tamper is nil")
		}
		d := e.open()
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		e.b.Tamper(e.TB, d, name, []byte(text(32)))
		if _, err := d.Update(e.ctx, name, s, payload(label("user"))); err == nil {
			e.Errorf("Update with the base from before the secret was edited succeeded")
		}
		if err := d.Delete(e.ctx, name, s); err == nil {
			e.Errorf("Delete with the base from before the secret was edited succeeded")
		}
		e.wantCorrupt(d, name)
	}},
	{"DR-28", "a secret in a foreign form does not keep List and Lookup from the others", func(e *driverEnv) {
		d, name, l := e.tampered()
		want := map[string]driver.Secret{}
		for range 4 {
			good := e.name()
			want[good] = e.create(d, good, payload(again(l)))
		}
		for op, list := range map[string]func() iter.Seq2[driver.Named, error]{
			"List":   func() iter.Seq2[driver.Named, error] { return d.List(e.ctx) },
			"Lookup": func() iter.Seq2[driver.Named, error] { return d.Lookup(e.ctx, []driver.Label{l}) },
		} {
			e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
				var bad []string
				got, err := gather(func(yield func(driver.Named, error) bool) {
					for s, err := range list() {
						if errors.Is(err, driver.ErrCorrupt) {
							bad = append(bad, s.Name)
						} else if !yield(s, err) {
							return
						}
					}
				})
				if err != nil {
					return fmt.Errorf("%s: %w", op, err)
				}
				if !slices.Equal(bad, []string{name}) {
					return fmt.Errorf("%s yields ErrCorrupt with the names %q, want %q", op, bad, name)
				}
				return alike(op, got, want)
			})
		}
	}},
}

// tampered returns a driver with one secret, which is in a foreign form and
// carries the label.
func (e *driverEnv) tampered() (d driver.Secrets, name string, l driver.Label) {
	e.TB.Helper()
	if e.b.Tamper == nil {
		e.TB.Skipf("Driver.Tamper is nil")
	}
	d = e.open()
	name, l = e.name(), label("user")
	e.create(d, name, payload(l))
	canary := bytes.ToUpper([]byte(text(32)))
	e.b.Tamper(e.TB, d, name, canary)
	e.wantCorrupt(d, name)
	return d, name, l
}

// wantCorrupt checks that the secret is in a foreign form.
func (e *driverEnv) wantCorrupt(d driver.Secrets, name string) {
	e.TB.Helper()
	e.after(e.lag.ReadLag, func() error {
		if _, err := d.Get(e.ctx, name); !errors.Is(err, driver.ErrCorrupt) {
			return fmt.Errorf("Get of a secret in a foreign form returned error %v, want ErrCorrupt", err)
		}
		return nil
	})
}
