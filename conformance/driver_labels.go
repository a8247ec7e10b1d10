package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// kinds lists keys of labels. The last two keys have the minimum and the maximum length that a
// driver must accept. Package tokenstore uses the other keys.
var kinds = []string{"user", "client", "grant", "refresh", "access", "id", "a", "z0_" + strings.Repeat("9", 29)}

var labelCases = []testCase[*driverEnv]{
	{"DR-15", "a secret is found by each label it was created with", func(e *driverEnv) {
		d := e.open()
		var labels []driver.Label
		for _, kind := range kinds {
			labels = append(labels, label(kind))
		}
		name := e.name()
		s := e.create(d, name, payload(labels...))
		e.found(d, name, s, labels...)
		e.found(e.reopen(d), name, s, labels...)
	}},
	{"DR-15", "a secret is found by each of 32 labels", func(e *driverEnv) {
		d := e.open()
		var labels []driver.Label
		for i := range 32 {
			labels = append(labels, label(kinds[i%4]))
		}
		name := e.name()
		s := e.create(d, name, payload(labels...))
		e.found(d, name, s, labels...)
		s = e.update(d, name, s, payload(labels...))
		e.found(d, name, s, labels...)
	}},
	{"DR-15", "a secret is found by the labels that Update adds and keeps", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		kept, access := label("user"), label("access")
		s := e.create(d, name, payload(kept, access))
		for range 4 {
			access = label("access")
			s = e.update(d, name, s, payload(kept, access))
			e.found(d, name, s, kept, access)
		}
		s = e.update(d, name, s, payload(kept))
		e.found(d, name, s, kept)
		s = e.update(d, name, s, payload(kept, access))
		e.found(d, name, s, kept, access)
	}},
	{"DR-15", "a label that was removed and added again is found", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		kept, gone := label("user"), label("access")
		s := e.create(d, name, payload(kept, gone))
		s = e.update(d, name, s, payload(kept))
		s = e.update(e.reopen(d), name, s, payload(kept, again(gone)))
		s = e.update(d, name, s, payload(again(gone), again(kept)))
		e.found(d, name, s, kept, gone)
	}},
	{"DR-15", "a refused Update removes no label", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		user, access := label("user"), label("access")
		base := e.create(d, name, payload(user, access))
		now := e.update(d, name, base, payload(user, access))
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			_, err := h.Update(e.ctx, name, base, payload())
			e.wants("Update with a stale base", err, driver.ErrConflict)
			_, err = h.Update(e.ctx, name, base, payload(label("access")))
			e.wants("Update with a stale base", err, driver.ErrConflict)
			e.found(d, name, now, user, access)
		}
	}},
	{"DR-15", "a refused Update removes no label that another writer has added", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		user := label("user")
		base := e.create(d, name, payload(user))
		added := label("access")
		handles := []driver.Secrets{d, e.reopen(d)}
		mine := relabeled(d, name, base, again(added))
		var theirs []driver.Label
		for _, h := range handles {
			theirs = append(theirs, relabeled(h, name, base, again(added)))
		}
		now := e.update(d, name, base, payload(user, mine))
		for i, h := range handles {
			_, err := h.Update(e.ctx, name, base, payload(user, theirs[i]))
			e.wants("Update with a stale base", err, driver.ErrConflict)
			e.found(d, name, now, user, added)
		}
	}},
	{"DR-15", "an interrupted write leaves the secret findable", func(e *driverEnv) {
		d := e.open()
		e.fuses(func(ctx context.Context) {
			name := e.name()
			kept, old, fresh := label("user"), label("access"), label("access")
			before := e.create(d, name, payload(kept, old))
			e.broken(ctx, d, name, before, payload(kept, fresh))
		})
	}},
	{"DR-15", "an interrupted Create leaves nothing or a findable secret", func(e *driverEnv) {
		d := e.open()
		e.fuses(func(ctx context.Context) {
			name := e.name()
			p := payload(label("user"), label("refresh"))
			v, err := d.Create(ctx, name, p)
			s := driver.Secret{Payload: p, Version: v}
			for err != nil {
				// The request may still be in progress.
				e.lags(e.lag.ReadLag)
				s, err = d.Fresh(e.ctx, name, driver.Secret{})
				if errors.Is(err, driver.ErrNotFound) {
					p = payload(p.Labels...)
					v, err = d.Create(e.ctx, name, p)
					s = driver.Secret{Payload: p, Version: v}
				}
				if err != nil && !errors.Is(err, driver.ErrExists) {
					e.Fatalf("after an interrupted Create: %v", err)
				}
			}
			s.Labels = p.Labels
			e.is(d, name, s)
			e.found(d, name, s, p.Labels...)
		})
	}},
	{"DR-16", "removing one of two labels that differ in nonce leaves the other", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		first := label("access")
		second, third := again(first), again(first)
		s := e.create(d, name, payload(first, second))
		s = e.update(d, name, s, payload(second))
		e.found(d, name, s, first)
		s = e.update(d, name, s, payload(third))
		e.found(d, name, s, first)
		s = e.update(e.reopen(d), name, s, payload(third, first))
		s = e.update(d, name, s, payload(first))
		e.found(d, name, s, first)
	}},
	{"DR-16", "Lookup ignores the nonce", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("access")
		s := e.create(d, name, payload(l))
		e.found(d, name, s, again(l), driver.Label{Key: l.Key, Value: l.Value})
	}},
	{"DR-17", "Lookup yields every secret with one of the labels, each once", func(e *driverEnv) {
		d := e.open()
		a, b := label("user"), label("refresh")
		want := map[string]driver.Secret{}
		for i := range 25 {
			labels := []driver.Label{label("access")}
			if i%3 != 1 {
				labels = append(labels, again(a))
			}
			if i%3 != 2 {
				labels = append(labels, again(b), again(b))
			}
			name := e.name()
			want[name] = e.create(d, name, payload(labels...))
		}
		for _, h := range []driver.Secrets{d, e.reopen(d)} {
			e.after(max(e.lag.ListLag, e.lag.ReadLag), func() error {
				got, err := gather(h.Lookup(e.ctx, []driver.Label{a, b}))
				if err != nil {
					return fmt.Errorf("Lookup: %w", err)
				}
				return alike("Lookup", got, want)
			})
		}
	}},
	{"DR-17", "Lookup yields no secret that never had the label", func(e *driverEnv) {
		d := e.open()
		l := label("user")
		e.create(d, e.name(), payload(l, label("access")))
		e.create(d, e.name(), payload(label("user")))
		e.lags(e.lag.ListLag)
		twin := l
		twin.Value = twin.Value[:31] + string('a'+(twin.Value[31]-'a'+1)%8)
		for what, labels := range map[string][]driver.Label{
			"a value that no secret has":        {label("user")},
			"a value that differs at the end":   {twin},
			"the value under another key":       {{Key: "client", Value: l.Value}},
			"the beginning of the key":          {{Key: "use", Value: l.Value}},
			"a key that begins with the key":    {{Key: "user_", Value: l.Value}},
			"several values that no secret has": {label("user"), label("access")},
			"no label":                          nil,
			"the nonce of the label as a value": {{Key: "user", Value: (l.Nonce + l.Nonce)[:32]}},
		} {
			got, err := gather(d.Lookup(e.ctx, labels))
			if err != nil || len(got) > 0 {
				e.Errorf("Lookup by %s yields %d secrets and error %v, want none", what, len(got), err)
			}
		}
	}},
	{"DR-17", "Lookup yields the state that Get returns, fit as a base", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l, label("access")))
		s = e.update(d, name, s, payload(l, label("access")))
		e.found(d, name, s, l)
		for got, err := range d.Lookup(e.ctx, []driver.Label{l}) {
			if err != nil {
				e.Fatalf("Lookup: %v", err)
			}
			got.Labels = s.Labels
			s = e.update(d, got.Name, got.Secret, payload(l))
		}
		e.is(d, name, s)
		e.remove(d, name, s)
	}},
}

// broken updates the named secret with the payload p. The parameter before is the state of the
// secret before the update. ctx may be canceled during the update. broken checks that the secret
// has either the old state or p after the update, and that Lookup finds the secret by the labels
// of its state.
func (e *driverEnv) broken(ctx context.Context, d driver.Secrets, name string, before driver.Secret, p driver.Payload) {
	e.TB.Helper()
	v, err := d.Update(ctx, name, before, p)
	now := driver.Secret{Payload: p, Version: v}
	written := []driver.Payload{before.Payload, p}
	for err != nil {
		// The request may still be in progress. Only a write over the current state settles
		// the outcome.
		now = e.left(d, name, before, written)
		for e.missing(d, name, now.Labels...) {
			was := now
			if now = e.left(d, name, before, written); now.Version == was.Version {
				e.Fatalf("after an interrupted write, Lookup does not yield %q by each label of its state", name)
			}
		}
		p = payload(now.Labels...)
		written = append(written, p)
		v, err = d.Update(e.ctx, name, now, p)
		if err != nil && !errors.Is(err, driver.ErrConflict) { // a request in progress may commit first
			e.Fatalf("Update after an interrupted write: %v", err)
		}
		now = driver.Secret{Payload: p, Version: v}
	}
	e.is(d, name, now)
	e.found(d, name, now, now.Labels...)
}

// left returns the state of the named secret after an interrupted update. The parameter written
// holds all payloads that the secret may have. There are several, because an earlier request may
// commit late. If none of these payloads has the data of the state, left ends the case.
func (e *driverEnv) left(d driver.Secrets, name string, before driver.Secret, written []driver.Payload) driver.Secret {
	e.TB.Helper()
	e.lags(max(e.lag.ListLag, e.lag.ReadLag))
	s, err := d.Fresh(e.ctx, name, before)
	if err != nil {
		e.Fatalf("Fresh after an interrupted write: %v", err)
	}
	i := slices.IndexFunc(written, func(p driver.Payload) bool { return slices.Equal(s.Data, p.Data) })
	if i < 0 {
		e.Fatalf("Fresh after an interrupted write returned data %s", brief(s.Data))
	}
	s.Labels = written[i].Labels
	return s
}

// missing reports whether Lookup by one of the labels omits the named secret. If the lag is too
// long to wait for, missing returns false.
func (e *driverEnv) missing(d driver.Secrets, name string, labels ...driver.Label) bool {
	e.TB.Helper()
	for _, l := range labels {
		got, err := gather(d.Lookup(e.ctx, []driver.Label{l}))
		if err != nil {
			e.Fatalf("Lookup: %v", err)
		}
		if _, ok := got[name]; !ok && (e.lag.ListLag <= patience || e.settle != nil) {
			return true
		}
	}
	return false
}

// relabeled returns the label to pass to an update of base that adds l. If d is a
// driver.Labeler, d chooses the nonce.
func relabeled(d driver.Secrets, name string, base driver.Secret, l driver.Label) driver.Label {
	if labeler, ok := d.(driver.Labeler); ok {
		return labeler.Relabel(name, base.Version, []driver.Label{l})[0]
	}
	return l
}
