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
	{"DR-28", "a secret in a foreign form does not hide others from List and Lookup", func(e *driverEnv) {
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
				return but(op, list(), want, name, driver.ErrCorrupt)
			})
		}
	}},
	{"DR-28", "a secret that the service refuses to read exists", func(e *driverEnv) {
		d, name, _, _ := e.refused()
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			for op, read := range map[string]func() (driver.Secret, error){
				"Get":   func() (driver.Secret, error) { return h.Get(e.ctx, name) },
				"Fresh": func() (driver.Secret, error) { return h.Fresh(e.ctx, name, driver.Secret{}) },
			} {
				_, err := read()
				e.wants(op+" of a secret that the service refuses", err, refusals...)
			}
		}
	}},
}

// refusals are the classes of errors that a read of an unreadable secret may return.
var refusals = []error{driver.ErrDenied, driver.ErrRefused, driver.ErrCorrupt, driver.ErrUnavailable}

// refused returns a driver with secrets that have the label l. The service refuses reads of the
// secret with the returned name. want holds the readable secrets by name. If Driver.Refuse is
// nil, refused skips the case.
func (e *driverEnv) refused() (d driver.Secrets, name string, l driver.Label, want map[string]driver.Secret) {
	e.TB.Helper()
	if e.b.Refuse == nil {
		e.TB.Skipf("Driver.Refuse is nil")
	}
	d = e.open()
	name, l, want = e.name(), label("user"), map[string]driver.Secret{}
	for i := range 5 {
		if i == 2 {
			e.create(d, name, payload(again(l)))
		}
		good := e.name()
		want[good] = e.create(d, good, payload(again(l)))
	}
	e.lags(max(e.lag.ListLag, e.lag.ReadLag))
	e.b.Refuse(e.TB, d, name)
	return d, name, l, want
}

// but returns an error unless seq yields the given name once with an error that matches one of
// classes, and otherwise exactly the secrets in want.
func but(op string, seq iter.Seq2[driver.Named, error], want map[string]driver.Secret, name string, classes ...error) error {
	var bad []string
	got, err := gather(func(yield func(driver.Named, error) bool) {
		for s, err := range seq {
			if s.Name != "" && slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) }) {
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
		return fmt.Errorf("%s yields errors matching %q with the names %q, want %q", op, classes, bad, name)
	}
	return alike(op, got, want)
}

// tampered returns a driver with one secret. The secret has the label l, and has data in a form
// that the driver does not write. If Driver.Tamper is nil, tampered skips the case.
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

// wantCorrupt checks that Get of the named secret returns an error matching
// driver.ErrCorrupt.
func (e *driverEnv) wantCorrupt(d driver.Secrets, name string) {
	e.TB.Helper()
	e.after(e.lag.ReadLag, func() error {
		if _, err := d.Get(e.ctx, name); !errors.Is(err, driver.ErrCorrupt) {
			return fmt.Errorf("Get of a secret in a foreign form returned error %v, want ErrCorrupt", err)
		}
		return nil
	})
}
