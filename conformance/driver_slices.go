package conformance

import (
	"errors"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var sliceCases = []testCase[*driverEnv]{
	{"DR-25", "a driver keeps no reference to the slices it is given", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		kept := func(p driver.Payload, write func(p driver.Payload) (driver.Version, error)) driver.Secret {
			e.TB.Helper()
			given := driver.Payload{Data: slices.Clone(p.Data), Labels: slices.Clone(p.Labels)}
			v, err := write(given)
			if err != nil {
				e.Fatalf("write: %v", err)
			}
			scribble(given)
			s := driver.Secret{Payload: p, Version: v}
			e.is(d, name, s)
			e.found(d, name, s, p.Labels...)
			return s
		}
		s := kept(payload(l, label("access")), func(p driver.Payload) (driver.Version, error) {
			return d.Create(e.ctx, name, p)
		})
		base := driver.Secret{Payload: driver.Payload{Data: slices.Clone(s.Data), Labels: slices.Clone(s.Labels)}, Version: s.Version}
		s = kept(payload(l, label("access")), func(p driver.Payload) (driver.Version, error) {
			return d.Update(e.ctx, name, base, p)
		})
		scribble(base.Payload)
		e.is(d, name, s)
	}},
	{"DR-25", "a driver returns slices that the caller may change", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		e.found(d, name, s, l)
		for range 2 {
			got, err := d.Get(e.ctx, name)
			fresh, err2 := d.Fresh(e.ctx, name, s)
			if err := errors.Join(err, err2); err != nil {
				e.Fatalf("%v", err)
			}
			scribble(got.Payload)
			scribble(fresh.Payload)
			for got := range d.List(e.ctx) {
				scribble(got.Payload)
			}
			for got := range d.Lookup(e.ctx, []driver.Label{l}) {
				scribble(got.Payload)
			}
			e.is(d, name, s)
			e.found(d, name, s, l)
		}
	}},
	{"DR-25", "Lookup leaves the labels it is given alone", func(e *driverEnv) {
		d := e.open()
		labels := []driver.Label{label("user"), label("access"), label("client")}
		want := slices.Clone(labels)
		e.create(d, e.name(), payload(labels[1]))
		for range d.Lookup(e.ctx, labels) {
			break
		}
		if !slices.Equal(labels, want) {
			e.Errorf("Lookup changed the labels that it was given")
		}
	}},
}

func scribble(p driver.Payload) {
	for i := range p.Data {
		p.Data[i] = '#'
	}
	for i := range p.Labels {
		p.Labels[i] = driver.Label{Key: "scribble", Value: strings.Repeat("x", 32)}
	}
}
