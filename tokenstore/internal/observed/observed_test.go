package observed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// A backend is a driver whose calls take a second and return err.
type backend struct{ err error }

func (b backend) call() error {
	<-time.After(time.Second)
	return b.err
}

func sequence[T any](b backend, named, unnamed T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if yield(named, driver.ErrCorrupt) {
			yield(unnamed, b.call())
		}
	}
}

func (backend) Properties() driver.Properties { return driver.Properties{Name: "backend"} }
func (backend) Close() error                  { return nil }

func (b backend) Get(context.Context, string) (driver.Secret, error) {
	return driver.Secret{}, b.call()
}

func (b backend) Fresh(context.Context, string, driver.Secret) (driver.Secret, error) {
	return driver.Secret{}, b.call()
}

func (b backend) Create(context.Context, string, driver.Payload) (driver.Version, error) {
	return "", b.call()
}

func (b backend) Update(context.Context, string, driver.Secret, driver.Payload) (driver.Version, error) {
	return "", b.call()
}

func (b backend) Delete(context.Context, string, driver.Secret) error { return b.call() }

func (b backend) Lookup(context.Context, []driver.Label) iter.Seq2[driver.Named, error] {
	return sequence(b, driver.Named{Name: "a"}, driver.Named{})
}

func (b backend) List(context.Context) iter.Seq2[driver.Named, error] {
	return sequence(b, driver.Named{Name: "a"}, driver.Named{})
}

func (b backend) Names(context.Context) iter.Seq2[string, error] { return sequence(b, "a", "") }

func (b backend) Note(context.Context, string, driver.Secret, string) error { return b.call() }

func (b backend) Sweep(context.Context, string, driver.Secret) { _ = b.call() }

func (b backend) Inspect(context.Context) iter.Seq2[driver.Inspection, error] {
	faults := []driver.Fault{{Mend: func(context.Context) error { return b.call() }}, {}}
	return sequence(b, driver.Inspection{Name: "a", Faults: faults}, driver.Inspection{})
}

func (b backend) Present(context.Context, string, []driver.Label) ([]driver.Label, error) {
	return nil, b.call()
}

func (b backend) Unlabel(context.Context, string, []driver.Label) error { return b.call() }

func (b backend) Probe(context.Context) iter.Seq2[driver.Probed, error] {
	return func(yield func(driver.Probed, error) bool) { yield(driver.Probed{}, b.call()) }
}

// TestDriver checks the class and the duration that each kind of call reports, with and
// without an error. The body of each loop takes an hour, which must not count as part of the
// call.
func TestDriver(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, fmt.Errorf("%w: quota", driver.ErrThrottled)} {
		synctest.Test(t, func(t *testing.T) {
			calls := map[observe.Operation]observe.Called{}
			o := &observe.Observer{Call: func(ctx context.Context, c observe.Call) (context.Context, func(observe.Called)) {
				if c.Store != "backend" {
					t.Errorf("%s is of the store %q", c.Operation, c.Store)
				}
				return ctx, func(e observe.Called) { calls[c.Operation] = e }
			}}
			ctx, b := t.Context(), backend{want}
			d, l, i := Secrets(b, o), Leaser(b, o), Inspector(b, o)
			check := func(err error) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Errorf("%v is passed on as %v", want, err)
				}
			}
			_, err := d.Get(ctx, "a")
			check(err)
			_, err = d.Fresh(ctx, "a", driver.Secret{})
			check(err)
			_, err = d.Create(ctx, "a", driver.Payload{})
			check(err)
			_, err = d.Update(ctx, "a", driver.Secret{}, driver.Payload{})
			check(err)
			check(d.Delete(ctx, "a", driver.Secret{}))
			check(drain(d.Lookup(ctx, nil)))
			check(drain(d.List(ctx)))
			check(drain(d.Names(ctx)))
			check(l.Note(ctx, "a", driver.Secret{}, "note"))
			Sweeper(b, o).Sweep(ctx, "a", driver.Secret{})
			for found := range i.Inspect(ctx) {
				if len(found.Faults) > 0 {
					check(found.Faults[0].Mend(ctx))
				}
			}
			check(drain(i.Inspect(ctx)))
			_, err = i.Present(ctx, "a", nil)
			check(err)
			check(i.Unlabel(ctx, "a", nil))
			check(drain(i.Probe(ctx)))

			for _, op := range observe.Operations() {
				if op == observe.OpRead || op == observe.OpLock {
					continue // only stores on files and tables make these calls
				}
				class := Class(want)
				if op == observe.OpSweep {
					class = "" // Sweep returns no error
				}
				if got := calls[op]; got.Class != class || got.Took != time.Second {
					t.Errorf("%s: class %q after %v, want %q after a second", op, got.Class, got.Took, class)
				}
			}
		})
	}
}

// drain returns the last error that seq yields. The body of its loop takes an hour.
func drain[T any](seq iter.Seq2[T, error]) (last error) {
	for _, err := range seq {
		<-time.After(time.Hour)
		last = err
	}
	return last
}

// A plain is a driver that implements none of the optional interfaces.
type plain struct{ driver.Secrets }

func TestUnobserved(t *testing.T) {
	t.Parallel()
	b := backend{}
	for _, o := range []*observe.Observer{nil, {}} {
		if Secrets(b, o) != driver.Secrets(b) || Leaser(b, o) != driver.Leaser(b) || Inspector(b, o) != driver.Inspector(b) || Sweeper(b, o) != driver.Sweeper(b) {
			t.Error("a driver that is not observed is wrapped")
		}
	}
	o := &observe.Observer{Call: func(ctx context.Context, _ observe.Call) (context.Context, func(observe.Called)) { return ctx, nil }}
	for _, o := range []*observe.Observer{nil, o} {
		if Leaser(plain{b}, o) != nil || Inspector(plain{b}, o) != nil || Sweeper(plain{b}, o) != nil {
			t.Error("a driver gets methods that it lacks")
		}
	}
}

func TestClass(t *testing.T) {
	t.Parallel()
	var had []observe.Class
	for _, c := range classes {
		got := Class(fmt.Errorf("operation: %w", c.is))
		if got != c.class {
			t.Errorf("the class of %q is %q, want %q", c.is, got, c.class)
		}
		had = append(had, got)
	}
	had = append(had, Class(errors.New("another")), observe.ClassReauth, observe.ClassTemporary, observe.ClassClient, observe.ClassServer)
	all := observe.Classes()
	slices.Sort(all)
	slices.Sort(had)
	if !slices.Equal(all, had) {
		t.Errorf("the classes are %q, want %q", had, all)
	}
	if got := Class(nil); got != "" {
		t.Errorf("no error has class %q", got)
	}
	if got := Class(fmt.Errorf("%w: %w", rules.ErrTooLarge, context.Canceled)); got != observe.ClassCanceled {
		t.Errorf("an ended context has class %q", got)
	}
}
