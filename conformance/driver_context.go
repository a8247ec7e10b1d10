package conformance

import (
	"context"
	"errors"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A call is one call of the method named op, for cases that check all methods.
type call struct {
	op string
	do func(ctx context.Context) error
}

// calls returns one call of each method of driver.Secrets that takes a context. The named secret
// has the state s, and p is the payload to write. The parameter absent is the name that the call of
// Create uses.
func calls(d driver.Secrets, name string, s driver.Secret, p driver.Payload, absent string) []call {
	return []call{
		{"Get", func(ctx context.Context) error { _, err := d.Get(ctx, name); return err }},
		{"Fresh", func(ctx context.Context) error { _, err := d.Fresh(ctx, name, s); return err }},
		{"Create", func(ctx context.Context) error { _, err := d.Create(ctx, absent, p); return err }},
		{"Update", func(ctx context.Context) error { _, err := d.Update(ctx, name, s, p); return err }},
		{"Delete", func(ctx context.Context) error { return d.Delete(ctx, name, s) }},
		{"List", func(ctx context.Context) error { _, err := gather(d.List(ctx)); return err }},
		{"Lookup", func(ctx context.Context) error { _, err := gather(d.Lookup(ctx, s.Labels)); return err }},
		{"Names", func(ctx context.Context) error { _, err := namesOf(d.Names(ctx)); return err }},
	}
}

var contextCases = []testCase[*driverEnv]{
	{"DR-22", "a method called with a context that is done changes nothing", func(e *driverEnv) {
		d := e.open()
		canceled, cancel := context.WithCancel(e.ctx)
		cancel()
		late, cancel := context.WithDeadline(e.ctx, deadline())
		defer cancel()
		for _, ctx := range []context.Context{canceled, late} {
			name, absent := e.name(), e.name()
			l := label("user")
			s := e.create(d, name, payload(l))
			for _, c := range calls(d, name, s, payload(label("user")), absent) {
				e.promptly(c.op, func() { e.wants(c.op+" with a context that is done", c.do(ctx), ctx.Err()) })
			}
			e.is(d, name, s)
			e.found(d, name, s, l)
			e.absent(d, absent, driver.Secret{})
		}
	}},
	{"DR-22", "a method returns the error of a context that is done in the middle", func(e *driverEnv) {
		d := e.open()
		for i := range calls(d, "", driver.Secret{}, driver.Payload{}, "") {
			e.fuses(func(ctx context.Context) {
				name, absent := e.name(), e.name()
				s := e.create(d, name, payload(label("user")))
				c := calls(d, name, s, payload(label("user")), absent)[i]
				e.promptly(c.op, func() {
					if err := c.do(ctx); err != nil && !(e.lag.ReadLag > 0 && errors.Is(err, driver.ErrNotFound)) {
						e.wants(c.op+" whose context was canceled", err, context.Canceled)
					}
				})
			})
		}
	}},
	{"DR-24", "the text of an error holds no part of a payload", func(e *driverEnv) {
		d := e.open()
		name, absent := e.name(), e.name()
		var cs canaries
		secret := func(labels ...driver.Label) driver.Payload {
			canary := text(16)
			cs.add(canary)
			return payloadOf([]byte(strings.Repeat(canary, 4)), labels...)
		}
		check := func(op string, err error) {
			e.TB.Helper()
			if err != nil && cs.in(prints(err)) {
				e.Errorf("the error of %s has a part of a payload in it (%d bytes of text)", op, len(err.Error()))
			}
		}
		s := e.create(d, name, secret(label("user")))
		now := e.update(d, name, s, secret(label("user")))
		canceled, cancel := context.WithCancel(e.ctx)
		cancel()
		for _, c := range calls(d, name, s, secret(label("user")), name) {
			check(c.op+" of a live name with a stale base", c.do(e.ctx))
			check(c.op+" with a context that is done", c.do(canceled))
		}
		e.remove(d, name, now)
		for _, c := range calls(d, name, now, secret(label("user")), absent) {
			if c.op != "Create" {
				check(c.op+" of a deleted name", c.do(e.ctx))
			}
		}
		if e.b.Tamper == nil {
			return
		}
		s = e.create(d, absent, secret(label("user")))
		foreign := secret()
		e.b.Tamper(e.TB, d, absent, foreign.Data)
		e.lags(e.lag.ReadLag)
		for _, c := range calls(d, absent, s, secret(label("user")), absent) {
			check(c.op+" of a secret in a foreign form", c.do(e.ctx))
		}
	}},
	{"DR-24", "the text of an error about a payload that is too large holds no part of it", func(e *driverEnv) {
		// Package tokenstore does not send such a payload, but the driver's MaxSize may be
		// wrong.
		d := e.open()
		size := d.Properties().MaxSize
		if size > largest {
			return
		}
		var cs canaries
		canary := text(16)
		cs.add(canary)
		name := e.name()
		_, err := d.Create(e.ctx, name, payloadOf(filled(size+1, []byte(canary)), label("user")))
		if err != nil && cs.in(prints(err)) {
			e.Errorf("the error of Create has a part of a payload in it (%d bytes of text)", len(err.Error()))
		}
	}},
}
