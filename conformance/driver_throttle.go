package conformance

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// throttledFor is the time within which a driver must return an error for a call that the
// service rejects. The driver may retry the call in that time.
const throttledFor = 3 * time.Second

var throttleCases = []testCase[*driverEnv]{
	{"DR-33", "calls that the service rejects are throttled, and change nothing", func(e *driverEnv) {
		if e.b.Throttle == nil {
			e.TB.Skipf("Driver.Throttle is nil")
		}
		d, name, other := e.open(), e.name(), e.name()
		s := e.create(d, name, payload(label("user")))
		ctx, cancel := context.WithTimeout(e.ctx, throttledFor)
		defer cancel()
		stop := e.b.Throttle(e.TB, d)
		var wait sync.WaitGroup
		for op, call := range map[string]func() error{
			"Get":    func() error { _, err := d.Get(ctx, name); return err },
			"Fresh":  func() error { _, err := d.Fresh(ctx, name, driver.Secret{}); return err },
			"Create": func() error { _, err := d.Create(ctx, other, payload()); return err },
			"Update": func() error { _, err := d.Update(ctx, name, s, payload()); return err },
			"Delete": func() error { return d.Delete(ctx, name, s) },
			"List":   func() error { _, err := gather(d.List(ctx)); return err },
			"Lookup": func() error { _, err := gather(d.Lookup(ctx, []driver.Label{label("user")})); return err },
		} {
			wait.Go(func() {
				err := call()
				e.wants(op+" of a throttled service", err, driver.ErrThrottled)
				e.wants(op+" of a throttled service", err, driver.ErrUnavailable)
			})
		}
		wait.Wait()
		stop()
		e.is(d, name, s)
		e.absent(d, other, driver.Secret{})
		e.update(d, name, s, payload(label("user")))
	}},
	{"DR-33", "what does not exist, exists or has changed is not throttled", func(e *driverEnv) {
		d, name := e.open(), e.name()
		s := e.create(d, name, payload())
		e.update(d, name, s, payload())
		_, missing := d.Get(e.ctx, e.name())
		_, exists := d.Create(e.ctx, name, payload())
		_, conflict := d.Update(e.ctx, name, s, payload())
		for op, err := range map[string]error{"Get of a missing secret": missing, "Create of one that exists": exists, "Update of one that has changed": conflict} {
			if errors.Is(err, driver.ErrThrottled) {
				e.Errorf("%s is throttled: %v", op, err)
			}
		}
	}},
}
