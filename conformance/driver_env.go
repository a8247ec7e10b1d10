package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

func driverCases() []testCase[*driverEnv] {
	return slices.Concat(createCases, updateCases, deleteCases, labelCases, listCases, corruptCases,
		contextCases, throttleCases, sliceCases, concurrencyCases, raceCases, leaserCases, placeCases)
}

type driverEnv struct {
	env
	b    Driver
	lag  driver.Properties
	mu   sync.Mutex
	used []string // names to clean up
}

func newDriverEnv(c control, b Driver) *driverEnv {
	return &driverEnv{env: newEnv(c, b.Timeout), b: b}
}

// open returns a driver on an empty namespace. When the case ends, a cleanup function
// deletes the remaining secrets of the case and closes the driver.
func (e *driverEnv) open() driver.Secrets {
	e.TB.Helper()
	d := e.b.Open(e.TB)
	e.lag = d.Properties()
	if e.b.Settle != nil {
		e.settle = func() { e.b.Settle(e.TB, d) }
	}
	e.TB.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), caseTimeout)
		defer cancel()
		for _, name := range e.used {
			if s, err := d.Fresh(ctx, name, driver.Secret{}); err == nil {
				_ = d.Delete(ctx, name, s)
			}
		}
		if err := d.Close(); err != nil {
			e.Errorf("Close: %v", err)
		}
	})
	return d
}

// reopen returns another handle on d's namespace.
func (e *driverEnv) reopen(d driver.Secrets) driver.Secrets {
	e.TB.Helper()
	return e.closing(e.b.Reopen(e.TB, d))
}

// sibling returns the result of Driver.Sibling for d. If Driver.Sibling is nil, sibling skips
// the case.
func (e *driverEnv) sibling(d driver.Secrets) driver.Secrets {
	e.TB.Helper()
	if e.b.Sibling == nil {
		e.TB.Skipf("Driver.Sibling is nil")
	}
	return e.closing(e.b.Sibling(e.TB, d))
}

func (e *driverEnv) closing(d driver.Secrets) driver.Secrets {
	e.TB.Cleanup(func() {
		if err := d.Close(); err != nil {
			e.Errorf("Close: %v", err)
		}
	})
	return d
}

// name returns a new name, in the form that package tokenstore derives.
func (e *driverEnv) name() string { return e.use("u" + text(32)) }

// use records name for the cleanup, and returns name.
func (e *driverEnv) use(name string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.used = append(e.used, name)
	return name
}

func label(key string) driver.Label {
	return driver.Label{Key: key, Value: text(32), Nonce: text(16)}
}

// again returns l with a new nonce, for another write that adds the label.
func again(l driver.Label) driver.Label {
	l.Nonce = text(16)
	return l
}

// payload returns a payload with unique data.
func payload(labels ...driver.Label) driver.Payload {
	return payloadOf([]byte(`{"v":1,"nonces":["`+text(16)+`"]}`), labels...)
}

// payloadOf returns a payload with the given data and the labels in sorted order.
func payloadOf(data []byte, labels ...driver.Label) driver.Payload {
	labels = slices.Clone(labels)
	slices.SortFunc(labels, func(a, b driver.Label) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Nonce, b.Nonce))
	})
	return driver.Payload{Data: data, Labels: labels}
}

// create stores p under name and returns the new state.
func (e *driverEnv) create(d driver.Secrets, name string, p driver.Payload) driver.Secret {
	e.TB.Helper()
	v, err := d.Create(e.ctx, name, p)
	if err != nil {
		e.Fatalf("Create(%q): %v", name, err)
	}
	return driver.Secret{Payload: p, Version: v}
}

// update replaces base with p and returns the new state.
func (e *driverEnv) update(d driver.Secrets, name string, base driver.Secret, p driver.Payload) driver.Secret {
	e.TB.Helper()
	v, err := d.Update(e.ctx, name, base, p)
	if err != nil {
		e.Fatalf("Update(%q): %v", name, err)
	}
	return driver.Secret{Payload: p, Version: v}
}

// remove deletes the named secret, whose current state is base.
func (e *driverEnv) remove(d driver.Secrets, name string, base driver.Secret) {
	e.TB.Helper()
	if err := d.Delete(e.ctx, name, base); err != nil {
		e.Fatalf("Delete(%q): %v", name, err)
	}
}

// get waits up to ReadLag for Get to return the state want. get returns that state with the
// labels of want. If Get does not return want in that time, get ends the case, unless the lag is
// too long to wait for.
func (e *driverEnv) get(d driver.Secrets, name string, want driver.Secret) driver.Secret {
	e.TB.Helper()
	var s driver.Secret
	err := e.wait(e.lag.ReadLag, func() (err error) {
		if s, err = d.Get(e.ctx, name); err != nil {
			return fmt.Errorf("Get(%q): %w", name, err)
		}
		return same("Get", name, s, want)
	})
	if err != nil {
		e.Fatalf("%v", err)
	}
	s.Labels = want.Labels // package tokenstore takes the labels from the record
	return s
}

// is checks that Fresh and Get of the named secret return the state want.
func (e *driverEnv) is(d driver.Secrets, name string, want driver.Secret) {
	e.TB.Helper()
	s, err := d.Fresh(e.ctx, name, want)
	if err == nil {
		err = same("Fresh", name, s, want)
	}
	if err != nil {
		e.Errorf("after the state that Fresh was told of: %v", err)
		return
	}
	e.get(d, name, want)
}

// same returns an error unless s and want have the same data and version.
func same(op, name string, s, want driver.Secret) error {
	switch {
	case !bytes.Equal(s.Data, want.Data):
		return fmt.Errorf("%s(%q) returned data %s, want %s", op, name, brief(s.Data), brief(want.Data))
	case s.Version != want.Version:
		return fmt.Errorf("%s(%q) returned version %q, want %q", op, name, s.Version, want.Version)
	}
	return nil
}

// brief returns data as a quoted text, shortened for a failure message.
func brief(data []byte) string {
	if len(data) > 80 {
		return fmt.Sprintf("%q… (%d bytes)", data[:80], len(data))
	}
	return fmt.Sprintf("%q", data)
}

// absent checks that neither Get nor Fresh finds the named secret. The parameter was is the last
// known state of the secret, or the zero Secret.
func (e *driverEnv) absent(d driver.Secrets, name string, was driver.Secret) {
	e.TB.Helper()
	e.after(e.lag.ReadLag, func() error {
		if _, err := d.Get(e.ctx, name); !errors.Is(err, driver.ErrNotFound) {
			return fmt.Errorf("Get(%q) of what does not exist returned %v, want ErrNotFound", name, err)
		}
		if _, err := d.Fresh(e.ctx, name, was); !errors.Is(err, driver.ErrNotFound) {
			return fmt.Errorf("Fresh(%q) of what does not exist returned %v, want ErrNotFound", name, err)
		}
		return nil
	})
}

// found checks that Lookup by each of the labels yields the secret in the state want.
func (e *driverEnv) found(d driver.Secrets, name string, want driver.Secret, by ...driver.Label) {
	e.TB.Helper()
	for _, l := range by {
		e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
			got, err := gather(d.Lookup(e.ctx, []driver.Label{l}))
			if err != nil {
				return fmt.Errorf("Lookup by %s: %w", l.Key, err)
			}
			s, ok := got[name]
			if !ok {
				return fmt.Errorf("Lookup by the label %q does not yield %q, which was committed with it", l.Key, name)
			}
			return same("Lookup by "+l.Key, name, s, want)
		})
	}
}

// unlisted checks that neither List nor Lookup by the labels yields the name.
func (e *driverEnv) unlisted(d driver.Secrets, name string, labels ...driver.Label) {
	e.TB.Helper()
	e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
		for op, seq := range map[string]iter.Seq2[driver.Named, error]{
			"List": d.List(e.ctx), "Lookup": d.Lookup(e.ctx, labels),
		} {
			got, err := gather(seq)
			if err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
			if _, ok := got[name]; ok {
				return fmt.Errorf("%s yields %q, which does not exist", op, name)
			}
		}
		return nil
	})
}

// gather returns the secrets that seq yields, by name. If seq yields an error or yields a name
// twice, gather returns an error.
func gather(seq iter.Seq2[driver.Named, error]) (map[string]driver.Secret, error) {
	got := map[string]driver.Secret{}
	for s, err := range seq {
		if err != nil {
			return nil, err
		}
		if _, twice := got[s.Name]; twice {
			return nil, fmt.Errorf("%q is yielded twice", s.Name)
		}
		got[s.Name] = s.Secret
	}
	return got, nil
}

// wants fails the case unless err matches one of classes.
func (e *driverEnv) wants(op string, err error, classes ...error) {
	e.TB.Helper()
	if err == nil || !slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) }) {
		e.Errorf("%s returned error %v, want one matching %q", op, err, classes)
	}
}

func deadline() time.Time { return time.Unix(1, 0) }
