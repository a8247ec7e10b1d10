// Package observed reports the calls of a store to an observe.Observer.
package observed

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// classes lists the classes of errors. The first match determines the class of an error.
var classes = []struct {
	is    error
	class observe.Class
}{
	{context.Canceled, observe.ClassCanceled},
	{context.DeadlineExceeded, observe.ClassDeadline},
	{driver.ErrThrottled, observe.ClassThrottled},
	{driver.ErrUnavailable, observe.ClassUnavailable},
	{driver.ErrNotFound, observe.ClassNotFound},
	{driver.ErrExists, observe.ClassExists},
	{driver.ErrConflict, observe.ClassConflict},
	{driver.ErrDenied, observe.ClassDenied},
	{driver.ErrRefused, observe.ClassRefused},
	{driver.ErrCorrupt, observe.ClassCorrupt},
	{rules.ErrWrongKeys, observe.ClassWrongKeys},
	{rules.ErrAmbiguous, observe.ClassAmbiguous},
	{rules.ErrIDMismatch, observe.ClassIDMismatch},
	{rules.ErrInvalidToken, observe.ClassInvalid},
	{rules.ErrTooLarge, observe.ClassTooLarge},
}

// Class returns the class of err. Class returns "" if err is nil, and observe.ClassOther if
// err matches none of classes.
func Class(err error) observe.Class {
	if err == nil {
		return ""
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c.class
		}
	}
	return observe.ClassOther
}

// Calls reports whether o observes calls.
func Calls(o *observe.Observer) bool { return o != nil && o.Call != nil }

// Begin reports to o, which must observe calls, that a call begins. The call must use the
// returned context. After the call, the caller must call done with the error of the call.
func Begin(ctx context.Context, o *observe.Observer, store string, op observe.Operation) (_ context.Context, done func(error)) {
	begun := time.Now()
	ctx, ended := o.Call(ctx, observe.Call{Store: store, Operation: op})
	return ctx, func(err error) { ended(observe.Called{Class: Class(err), Took: time.Since(begun)}) }
}

// Secrets returns a driver that reports the calls of d to o. If o does not observe calls,
// Secrets returns d itself. Otherwise, the result implements none of the optional interfaces
// of d: see Leaser, Sweeper and Inspector.
func Secrets(d driver.Secrets, o *observe.Observer) driver.Secrets {
	if !Calls(o) {
		return d
	}
	return secrets{d, o, d.Properties().Name}
}

// Leaser returns d as a driver.Leaser, or nil if d is not a driver.Leaser. The result reports
// its calls to o if o observes calls.
func Leaser(d driver.Secrets, o *observe.Observer) driver.Leaser {
	l, ok := d.(driver.Leaser)
	if !ok || !Calls(o) {
		return l
	}
	return leaser{secrets{d, o, d.Properties().Name}, l}
}

// Sweeper returns d as a driver.Sweeper, or nil if d is not a driver.Sweeper. The result reports
// its calls to o if o observes calls.
func Sweeper(d driver.Secrets, o *observe.Observer) driver.Sweeper {
	s, ok := d.(driver.Sweeper)
	if !ok || !Calls(o) {
		return s
	}
	return sweeper{leaser{secrets{d, o, d.Properties().Name}, s}, s}
}

// Inspector returns d as a driver.Inspector, or nil if d is not a driver.Inspector. The result
// reports its calls to o if o observes calls.
func Inspector(d driver.Secrets, o *observe.Observer) driver.Inspector {
	i, ok := d.(driver.Inspector)
	if !ok || !Calls(o) {
		return i
	}
	return inspector{secrets{d, o, d.Properties().Name}, i}
}

// A secrets is a driver.Secrets whose calls are reported to an Observer.
type secrets struct {
	driver.Secrets

	o     *observe.Observer
	store string
}

func (s secrets) begin(ctx context.Context, op observe.Operation) (context.Context, func(error)) {
	return Begin(ctx, s.o, s.store, op)
}

// Get implements driver.Secrets.
func (s secrets) Get(ctx context.Context, name string) (_ driver.Secret, err error) {
	ctx, done := s.begin(ctx, observe.OpGet)
	defer func() { done(err) }()
	return s.Secrets.Get(ctx, name)
}

// Fresh implements driver.Secrets.
func (s secrets) Fresh(ctx context.Context, name string, than driver.Secret) (_ driver.Secret, err error) {
	ctx, done := s.begin(ctx, observe.OpFresh)
	defer func() { done(err) }()
	return s.Secrets.Fresh(ctx, name, than)
}

// Create implements driver.Secrets.
func (s secrets) Create(ctx context.Context, name string, p driver.Payload) (_ driver.Version, err error) {
	ctx, done := s.begin(ctx, observe.OpCreate)
	defer func() { done(err) }()
	return s.Secrets.Create(ctx, name, p)
}

// Update implements driver.Secrets.
func (s secrets) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (_ driver.Version, err error) {
	ctx, done := s.begin(ctx, observe.OpUpdate)
	defer func() { done(err) }()
	return s.Secrets.Update(ctx, name, base, p)
}

// Delete implements driver.Secrets.
func (s secrets) Delete(ctx context.Context, name string, base driver.Secret) (err error) {
	ctx, done := s.begin(ctx, observe.OpDelete)
	defer func() { done(err) }()
	return s.Secrets.Delete(ctx, name, base)
}

// Lookup implements driver.Secrets.
func (s secrets) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	lookup := func(ctx context.Context) iter.Seq2[driver.Named, error] { return s.Secrets.Lookup(ctx, any) }
	return list(ctx, s, observe.OpLookup, lookup, func(n driver.Named) string { return n.Name })
}

// List implements driver.Secrets.
func (s secrets) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return list(ctx, s, observe.OpList, s.Secrets.List, func(n driver.Named) string { return n.Name })
}

// Names implements driver.Secrets.
func (s secrets) Names(ctx context.Context) iter.Seq2[string, error] {
	return list(ctx, s, observe.OpNames, s.Secrets.Names, func(name string) string { return name })
}

// list returns the sequence from the function open, and reports each iteration as one call. An
// error that is yielded with a name concerns only the secret with that name, and is not the
// error of the call.
func list[T any](ctx context.Context, s secrets, op observe.Operation, open func(context.Context) iter.Seq2[T, error], name func(T) string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		begun := time.Now()
		ctx, ended := s.o.Call(ctx, observe.Call{Store: s.store, Operation: op})
		var ending error
		var away time.Duration // time spent in the loop body
		defer func() { ended(observe.Called{Class: Class(ending), Took: time.Since(begun) - away}) }()
		for v, err := range open(ctx) {
			if err != nil && name(v) == "" {
				ending = err
			}
			left := time.Now()
			more := yield(v, err)
			away += time.Since(left)
			if !more {
				return
			}
		}
	}
}

type leaser struct {
	secrets

	of driver.Leaser
}

// Note implements driver.Leaser.
func (l leaser) Note(ctx context.Context, name string, base driver.Secret, note string) (err error) {
	ctx, done := l.begin(ctx, observe.OpNote)
	defer func() { done(err) }()
	return l.of.Note(ctx, name, base, note)
}

type sweeper struct {
	leaser

	of driver.Sweeper
}

// Sweep implements driver.Sweeper.
func (s sweeper) Sweep(ctx context.Context, name string, base driver.Secret) {
	ctx, done := s.begin(ctx, observe.OpSweep)
	defer done(nil)
	s.of.Sweep(ctx, name, base)
}

type inspector struct {
	secrets

	of driver.Inspector
}

// Inspect implements driver.Inspector.
func (i inspector) Inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return list(ctx, i.secrets, observe.OpInspect, i.inspect, func(found driver.Inspection) string { return found.Name })
}

// inspect is like the driver's Inspect, but reports each repair of a fault to the Observer.
func (i inspector) inspect(ctx context.Context) iter.Seq2[driver.Inspection, error] {
	return func(yield func(driver.Inspection, error) bool) {
		for found, err := range i.of.Inspect(ctx) {
			for n := range found.Faults {
				if repair := found.Faults[n].Mend; repair != nil {
					found.Faults[n].Mend = func(ctx context.Context) (err error) {
						ctx, done := i.begin(ctx, observe.OpRepair)
						defer func() { done(err) }()
						return repair(ctx)
					}
				}
			}
			if !yield(found, err) {
				return
			}
		}
	}
}

// Present implements driver.Inspector.
func (i inspector) Present(ctx context.Context, name string, labels []driver.Label) (_ []driver.Label, err error) {
	ctx, done := i.begin(ctx, observe.OpPresent)
	defer func() { done(err) }()
	return i.of.Present(ctx, name, labels)
}

// Unlabel implements driver.Inspector.
func (i inspector) Unlabel(ctx context.Context, name string, labels []driver.Label) (err error) {
	ctx, done := i.begin(ctx, observe.OpUnlabel)
	defer func() { done(err) }()
	return i.of.Unlabel(ctx, name, labels)
}

// Probe implements driver.Inspector. The errors in its results, such as a denied permission,
// are not errors of the call.
func (i inspector) Probe(ctx context.Context) iter.Seq2[driver.Probed, error] {
	return list(ctx, i.secrets, observe.OpProbe, i.of.Probe, func(driver.Probed) string { return "" })
}
