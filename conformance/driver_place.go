package conformance

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var placeCases = []testCase[*driverEnv]{
	{"DR-31", "the place is that of the namespace", func(e *driverEnv) {
		d := e.open()
		place := d.Properties().Place
		if place == "" {
			e.TB.Skipf("Properties.Place is empty")
		}
		if got := e.reopen(d).Properties().Place; got != place {
			e.Errorf("the place is %q for one handle and %q for another", place, got)
		}
		if got := e.sibling(d).Properties().Place; got == place || got == "" {
			e.Errorf("the place is %q, and that of another prefix is %q", place, got)
		}
	}},
	{"DR-32", "the incarnation is that of the creation", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		for range 2 {
			p := payload(label("user"))
			p.Incarnation = text(16)
			s := e.create(d, name, p)
			got := e.get(d, name, s)
			if got.Incarnation == "" {
				e.TB.Skipf("the driver returns no incarnation")
			}
			incarnationIs(e, "Get after Create", got, p.Incarnation)
			next := payload(label("user"))
			next.Incarnation = text(16)
			s = e.update(d, name, s, next)
			incarnationIs(e, "Get after Update", e.get(d, name, s), p.Incarnation)
			fresh, err := e.reopen(d).Fresh(e.ctx, name, s)
			if err != nil {
				e.Fatalf("Fresh: %v", err)
			}
			incarnationIs(e, "Fresh", fresh, p.Incarnation)
			e.after(e.lag.ListLag, func() error {
				listed, err := gather(d.List(e.ctx))
				if err != nil {
					return err
				}
				if got := listed[name].Incarnation; got != p.Incarnation {
					return fmt.Errorf("List returns the incarnation %q, want %q", got, p.Incarnation)
				}
				return nil
			})
			e.remove(d, name, s)
		}
	}},
}

func incarnationIs(e *driverEnv, what string, s driver.Secret, want string) {
	e.TB.Helper()
	if s.Incarnation != want {
		e.Errorf("%s returns the incarnation %q, want %q", what, s.Incarnation, want)
	}
}
