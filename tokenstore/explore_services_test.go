package tokenstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A service describes which calls to a secret manager make up an operation of a driver.
// Each call is a step of the scheduler. The zero service has one call for each operation.
//
//	                        awssm         gcpsm         vaultstore    k8sstore
//	reads and searches lag  yes           yes           no            no
//	labels of a write       own call      with the      own call      with the
//	                        before it     state         before it     state
//	labels without use      own call      with the      own call      with the
//	                        after it      state         after it      state
//	labels of a write that  removed       none          stay          none
//	was refused
//	labels that a write     10            0             1             0
//	leaves to the next
//	deletion                one call      one call      commit, then  one call
//	                                                    labels
//	name of a deleted       free          free          free          in use while a
//	secret                                                            finalizer holds it
//	search                  one call      one call      one call for  one call for
//	                                                    each label    each label
//	list                    one call      one call      one call      one call for
//	                                                                  each page
//	repetition of a write   answered      none          the history   refused without
//	by the client           like the                    shows the     a reason
//	                        first                       first
//	lease                   record        note          record        record
//
// The services leave out calls without an effect on any store: the removal of AWS's
// tombstone, and the calls of GCP before a commit.
//
// Reads of Vault lag like reads of AWS if a standby answers. In the explorer, a page of a
// Kubernetes list holds only one secret. Each page shows the state at the time of its own
// call, as if etcd had compacted the state at which the list began.
type service struct {
	name string

	// apart means that labels are not part of a state, and change in separate calls.
	apart bool

	// incarnations means that a label belongs to one incarnation of a secret. A refused
	// write then removes the labels that it has added.
	incarnations bool

	lags       bool // reads and searches may lag
	labelBatch int  // see driver.Properties
	perLabel   bool // a search makes one call for each label
	kubernetes bool // see kube
}

var (
	awssm      = service{name: "awssm", lags: true, apart: true, incarnations: true, labelBatch: 10}
	gcpsm      = service{name: "gcpsm", lags: true}
	vaultstore = service{name: "vaultstore", apart: true, labelBatch: 1, perLabel: true}
	k8sstore   = service{name: "k8sstore", perLabel: true, kubernetes: true}
)

// driver returns a driver that simulates s, and makes its calls through h.
func (s service) driver(h *handle) driver.Secrets {
	switch {
	case s.kubernetes:
		return kube{h}
	case s.apart && s.incarnations:
		return arns{tagged{h}}
	case s.apart:
		return tagged{h}
	}
	return h
}

// A faultKind is a service with the numbers of faults that may happen in one run.
type faultKind struct {
	name string
	budgets
	service service
}

// faultKinds returns the kinds of faults of each service. All kinds for gcpsm include stale
// reads: without stale reads, calls of gcpsm have the same results as calls of k8sstore.
//
// For a service whose kinds have two faults, an exhaustive search adds kinds with one fault. The
// orders with two faults include the orders with one fault, but are too many in some scenarios.
func faultKinds() []faultKind {
	all := allKinds()
	if *exploreRuns > 0 {
		return all
	}
	for _, s := range []service{awssm, gcpsm} {
		all = append(all,
			faultKind{s.name + " with a stale read", budgets{stales: 1}, s},
			faultKind{s.name + " with one crash", budgets{crashes: 1}, s},
			faultKind{s.name + " with one lost call", budgets{losses: 1}, s})
	}
	return all
}

func allKinds() []faultKind {
	var (
		crash  = budgets{crashes: 1}
		lost   = budgets{losses: 1}
		stale  = budgets{stales: 2}
		crash1 = budgets{crashes: 1, stales: 1}
		lost1  = budgets{losses: 1, stales: 1}
	)
	return []faultKind{
		{"k8sstore without faults", budgets{}, k8sstore},
		{"k8sstore with a crash", crash, k8sstore},
		{"k8sstore with a lost answer", lost, k8sstore},
		{"k8sstore with a repeated write", budgets{repeats: 1}, k8sstore},
		{"k8sstore with finalizers", budgets{holds: 2}, k8sstore},
		{"vaultstore without faults", budgets{}, vaultstore},
		{"vaultstore with a crash", crash, vaultstore},
		{"vaultstore with a lost answer", lost, vaultstore},
		{"awssm with stale reads", stale, awssm},
		{"awssm with a crash and a stale read", crash1, awssm},
		{"awssm with a lost call and a stale read", lost1, awssm},
		{"gcpsm with stale reads", stale, gcpsm},
		{"gcpsm with a crash and a stale read", crash1, gcpsm},
		{"gcpsm with a lost call and a stale read", lost1, gcpsm},
	}
}

// plainFaults returns the kinds of faults for recordings of calls, which use the zero
// service.
func plainFaults() []faultKind {
	return []faultKind{
		{name: "without faults"},
		{name: "with a crash", budgets: budgets{crashes: 1}},
		{name: "with a lost answer", budgets: budgets{losses: 1}},
		{name: "with stale reads", budgets: budgets{stales: 2}},
		{name: "with a crash and a stale read", budgets: budgets{crashes: 1, stales: 1}},
		{name: "with a lost call and a stale read", budgets: budgets{losses: 1, stales: 1}},
	}
}

func (sc scenario) kinds() []faultKind {
	return slices.DeleteFunc(faultKinds(), func(f faultKind) bool { return sc.faultless && f.budgets != budgets{} })
}

// lag reports whether the driver declares that reads may lag.
func (sc scenario) lag(b budgets) bool {
	if sc.service.name != "" {
		return sc.service.lags
	}
	return sc.lags || b.stales > 0
}

// on returns a function like fresh, but for scenarios on the service s.
func on(s service, fresh func() scenario) func() scenario {
	return func() scenario {
		sc := fresh()
		sc.service = s
		return sc
	}
}

var (
	// errRepeat means that the client of the driver must repeat the call.
	errRepeat = errors.New("to be repeated")

	// errRefused means that the service refused a repeated write, and that the outcome of
	// the first attempt is unknown.
	errRefused = fmt.Errorf("%w: the repetition was refused", driver.ErrUnavailable)

	// errHeld means that a finalizer still holds the name when a creation gives up waiting.
	errHeld = fmt.Errorf("%w: a finalizer holds the name", driver.ErrUnavailable)
)

// A kube is a handle that simulates Kubernetes and the decisions of package k8sstore.
//
// A finalizer can hold the name of a deleted secret. Readers do not see such a secret. Its
// resource version has changed, so Kubernetes refuses an update or deletion that states the
// earlier version. Create waits until the finalizer is gone, or gives up.
type kube struct{ *handle }

// repeatable waits for the scheduler, and then executes a write that the client may repeat.
// sent is the number of times that the client has sent the write.
func repeatable[T any](ctx context.Context, k kube, text, name string, do, held func(*handle) (T, error)) (v T, sent int, err error) {
	for err = errRepeat; errors.Is(err, errRepeat); sent++ {
		if sent > 0 {
			held = nil
		}
		v, err = step(ctx, k.handle, strings.Repeat("again ", sent)+text, true, name, do, held)
	}
	return v, sent, err
}

func (k kube) holding(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held[name]
}

func (k kube) setHolding(name string, is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if is {
		k.held[name] = true
	} else {
		delete(k.held, name)
	}
}

// look reads the named secret after the service has refused to write the secret.
func (k kube) look(ctx context.Context, name string) (driver.Secret, error) {
	return step(ctx, k.handle, "look at "+name, false, name, func(h *handle) (driver.Secret, error) { return h.memory.Get(ctx, name) }, nil)
}

func (k kube) Create(ctx context.Context, name string, p driver.Payload) (v driver.Version, err error) {
	defer func() { k.told.carried(k.writer, p.Data, errors.Is(err, driver.ErrUnavailable)) }()
	for {
		var sent int
		v, sent, err = repeatable(ctx, k, "create "+name, name, func(h *handle) (driver.Version, error) {
			kube{h}.setHolding(name, false)
			return h.creates(ctx, name, p)
		}, func(*handle) (driver.Version, error) {
			return "", errHeld
		})
		if !errors.Is(err, driver.ErrExists) {
			return v, err
		}
		now, unread := k.look(ctx, name)
		switch gone := errors.Is(unread, driver.ErrNotFound); {
		case gone && sent <= 1:
			continue
		case unread != nil && !gone:
			return "", unread
		case !gone && bytes.Equal(now.Data, p.Data):
			return now.Version, nil
		case sent > 1:
			return "", errRefused
		}
		return "", err
	}
}

func (k kube) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (v driver.Version, err error) {
	defer func() { k.told.carried(k.writer, p.Data, errors.Is(err, driver.ErrUnavailable)) }()
	v, sent, err := repeatable(ctx, k, "update "+name, name, func(h *handle) (driver.Version, error) {
		if (kube{h}).holding(name) {
			return "", driver.ErrConflict
		}
		return h.updates(ctx, name, base, p)
	}, nil)
	if sent <= 1 || !errors.Is(err, driver.ErrConflict) && !errors.Is(err, driver.ErrNotFound) {
		return v, err
	}
	now, unread := k.look(ctx, name)
	switch {
	case unread == nil && bytes.Equal(now.Data, p.Data):
		return now.Version, nil
	case unread != nil && !errors.Is(unread, driver.ErrNotFound):
		return "", unread
	}
	return "", errRefused
}

func (k kube) Delete(ctx context.Context, name string, base driver.Secret) error {
	if base.Version == "" {
		_, err := k.look(ctx, name)
		switch {
		case errors.Is(err, driver.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		return driver.ErrConflict
	}
	deletes := func(h *handle) (struct{}, error) {
		if (kube{h}).holding(name) {
			return struct{}{}, driver.ErrConflict
		}
		return struct{}{}, h.deletes(ctx, name, base)
	}
	_, sent, err := repeatable(ctx, k, "delete "+name, name, deletes, func(h *handle) (struct{}, error) {
		k := kube{h}
		_, absent := k.memory.Get(ctx, name)
		_, err := deletes(h)
		k.setHolding(name, k.holding(name) || err == nil && absent == nil)
		return struct{}{}, err
	})
	if errors.Is(err, driver.ErrConflict) && sent > 1 {
		return errRefused
	}
	return err
}

func (k kube) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return perLabel(ctx, k.handle, any, func(h *handle, l driver.Label) ([]driver.Named, error) {
		return collect(h.memory.Lookup(ctx, []driver.Label{l}))
	})
}

// perLabel calls the function find concurrently, once for each distinct label, and yields each
// secret once.
func perLabel(ctx context.Context, h *handle, any []driver.Label, find func(*handle, driver.Label) ([]driver.Named, error)) iter.Seq2[driver.Named, error] {
	terms := slices.Clone(any)
	for i := range terms {
		terms[i].Nonce = ""
	}
	slices.SortFunc(terms, func(a, b driver.Label) int { return strings.Compare(a.Key+" "+a.Value, b.Key+" "+b.Value) })
	terms = slices.Compact(terms)
	found, errs := make([][]driver.Named, len(terms)), make([]error, len(terms))
	var wait sync.WaitGroup
	for i, l := range terms {
		wait.Go(func() {
			found[i], errs[i] = step(ctx, h, "lookup "+l.Key+" "+l.Value, false, "", func(h *handle) ([]driver.Named, error) { return find(h, l) }, nil)
		})
	}
	wait.Wait()
	all := map[string]driver.Named{}
	for _, some := range found {
		for _, n := range some {
			if _, seen := all[n.Name]; !seen {
				all[n.Name] = n
			}
		}
	}
	return sorted(slices.Collect(maps.Values(all)), errors.Join(errs...))
}

// List makes one call for each secret. The response also includes the following secret, if
// any, which stands for the position at which to continue.
func (k kube) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for last, more := "", true; more; {
			from := last // last can change before a repeated execution of the call
			page, err := step(ctx, k.handle, "list after "+from, false, "", func(h *handle) ([]driver.Named, error) { return kube{h}.after(ctx, from) }, nil)
			if err != nil {
				yield(driver.Named{}, err)
				return
			}
			if len(page) == 0 || !yield(page[0], nil) {
				return
			}
			last, more = page[0].Name, len(page) > 1
		}
	}
}

// after returns the first two secrets whose names follow the given name, or fewer if fewer
// exist.
func (k kube) after(ctx context.Context, name string) ([]driver.Named, error) {
	all, err := collect(k.memory.List(ctx))
	all = slices.DeleteFunc(all, func(n driver.Named) bool { return n.Name <= name })
	slices.SortFunc(all, func(a, b driver.Named) int { return strings.Compare(a.Name, b.Name) })
	return all[:min(len(all), 2)], err
}

// Names makes the same calls as List.
func (k kube) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for named, err := range k.List(ctx) {
			if !yield(named.Name, err) {
				return
			}
		}
	}
}

// A tagged is a handle that simulates a service whose labels are not part of a state.
type tagged struct{ *handle }

// born returns the nonce that identifies the incarnation of a secret.
func born(s driver.Secret) string {
	r, err := stored.Decode(s.Data)
	if err != nil {
		return ""
	}
	return r.Born
}

// relabel changes the labels of the named secret in one call. If labels belong to an
// incarnation and base is a state of an incarnation other than the current one, the error
// matches ErrNotFound.
func (g tagged) relabel(ctx context.Context, text, name string, base driver.Secret, change func([]driver.Label) []driver.Label) error {
	_, err := step(ctx, g.handle, text+" "+name, true, name, func(g *handle) (struct{}, error) {
		now, err := g.memory.Get(ctx, name)
		if g.service.incarnations && (err != nil || born(now) != born(base)) {
			return struct{}{}, driver.ErrNotFound
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.labels[name] = change(g.labels[name])
		g.told.labelled(name, g.labels[name])
		return struct{}{}, nil
	}, nil)
	return err
}

func (g tagged) attach(ctx context.Context, name string, base driver.Secret, labels []driver.Label) error {
	if len(labels) == 0 {
		return nil
	}
	return g.relabel(ctx, "label", name, base, func(has []driver.Label) []driver.Label {
		return append(driverkit.Without(has, labels), labels...)
	})
}

// detach removes labels in a separate call, and ignores a failure of that call.
func (g tagged) detach(ctx context.Context, text, name string, base driver.Secret, labels []driver.Label) {
	if len(labels) == 0 {
		return
	}
	_ = g.relabel(ctx, text, name, base, func(has []driver.Label) []driver.Label { return driverkit.Without(has, labels) })
}

func (g tagged) Create(ctx context.Context, name string, p driver.Payload) (v driver.Version, err error) {
	defer func() { g.told.carried(g.writer, p.Data, errors.Is(err, driver.ErrUnavailable)) }()
	if !g.service.incarnations {
		if err := g.attach(ctx, name, driver.Secret{}, p.Labels); err != nil {
			return "", err
		}
	}
	return step(ctx, g.handle, "create "+name, true, name, func(g *handle) (driver.Version, error) {
		v, err := g.creates(ctx, name, p)
		if err == nil && g.service.incarnations {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.labels[name] = slices.Clone(p.Labels)
			g.told.labelled(name, p.Labels)
		}
		return v, err
	}, nil)
}

func (g tagged) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (v driver.Version, err error) {
	defer func() { g.told.carried(g.writer, p.Data, errors.Is(err, driver.ErrUnavailable)) }()
	added := driverkit.Without(p.Labels, base.Labels)
	if err := g.attach(ctx, name, base, added); err != nil {
		return "", err
	}
	stay := slices.Concat(p.Labels, p.Former)
	var removal sync.WaitGroup
	defer removal.Wait()
	removal.Go(func() { g.detach(ctx, "unlabel former of", name, base, driverkit.Without(base.Former, stay)) })
	v, err = step(ctx, g.handle, "update "+name, true, name, func(h *handle) (driver.Version, error) { return h.updates(ctx, name, base, p) }, nil)
	switch {
	case err == nil:
		g.detach(ctx, "unlabel", name, base, driverkit.Without(base.Labels, stay))
	case g.service.incarnations && !errors.Is(err, driver.ErrUnavailable):
		g.detach(ctx, "take labels back from", name, base, added)
	}
	return v, err
}

func (g tagged) Delete(ctx context.Context, name string, base driver.Secret) error {
	_, err := step(ctx, g.handle, "delete "+name, true, name, func(g *handle) (struct{}, error) {
		now, _ := g.memory.Get(ctx, name)
		err := g.deletes(ctx, name, base)
		if err == nil && now.Version != "" && g.service.incarnations {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.labels, name)
		}
		return struct{}{}, err
	}, nil)
	if err == nil && base.Version != "" && !g.service.incarnations {
		g.detach(ctx, "unlabel deleted", name, base, slices.Concat(base.Labels, base.Former))
	}
	return err
}

func (g tagged) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	if g.service.perLabel {
		return perLabel(ctx, g.handle, any, func(h *handle, l driver.Label) ([]driver.Named, error) { return tagged{h}.carrying(ctx, l) })
	}
	return sorted(step(ctx, g.handle, "lookup", false, "",
		func(h *handle) ([]driver.Named, error) { return tagged{h}.carrying(ctx, any...) },
		func(h *handle) ([]driver.Named, error) { return h.lookupBefore(any), nil }))
}

// carrying returns the secrets that have at least one of the labels.
func (g tagged) carrying(ctx context.Context, any ...driver.Label) ([]driver.Named, error) {
	all, err := collect(g.memory.List(ctx))
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(all, func(n driver.Named) bool {
		return !slices.ContainsFunc(g.labels[n.Name], func(l driver.Label) bool {
			return slices.ContainsFunc(any, func(a driver.Label) bool { return a.Key == l.Key && a.Value == l.Value })
		})
	}), err
}

// An arns is a tagged that gives the labels of each write a nonce that no other write has.
type arns struct{ tagged }

var _ driver.Labeler = arns{}

func (a arns) Relabel(_ string, _ driver.Version, added []driver.Label) []driver.Label {
	nonce := a.nonce()
	added = slices.Clone(added)
	for i := range added {
		added[i].Nonce = nonce
	}
	return added
}

// nonce returns a nonce that no other call of a process in this world returns. The nonces of a
// process do not depend on other processes.
func (h *handle) nonce() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := &h.nonces
	if h.writer < 0 {
		count = &h.world.nonces
	}
	*count++
	const letters = "abcdefghijklmnopqrstuvwxyz"
	text := []byte("nonceaaaaaaaaaaa")
	text[5] = letters[h.writer+1]
	for i, n := len(text)-1, *count; n > 0; i, n = i-1, n/len(letters) {
		text[i] = letters[n%len(letters)]
	}
	return string(text)
}

// TestServicesFindFaults checks that the explorer finds the fault of each driver that ignores
// a peculiarity of its service.
func TestServicesFindFaults(t *testing.T) {
	t.Parallel()
	// done returns the current version instead of err if the service refused a repeated
	// write.
	done := func(ctx context.Context, d driver.Secrets, name string, v driver.Version, err error) (driver.Version, error) {
		if !errors.Is(err, errRefused) {
			return v, err
		}
		now, err := d.Get(ctx, name)
		return now.Version, err
	}
	// same returns labels with equal nonces.
	same := func(labels []driver.Label) []driver.Label {
		labels = slices.Clone(labels)
		for i := range labels {
			labels[i].Nonce = "aaaaaaaaaaaaaaaa"
		}
		return labels
	}
	findsFaults(t, []mutant{
		{"two incarnations have equal labels", "save and delete/vaultstore with a lost answer", sloppy{
			create: func(ctx context.Context, d driver.Secrets, name string, p driver.Payload) (driver.Version, error) {
				p.Labels = same(p.Labels)
				return d.Create(ctx, name, p)
			},
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				base.Labels, p.Labels = same(base.Labels), same(p.Labels)
				return d.Update(ctx, name, base, p)
			},
			delete: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret) error {
				base.Labels = same(base.Labels)
				return d.Delete(ctx, name, base)
			},
		}},
		{"a repeated update that was refused counts as done", "two saves of different fields/k8sstore with a repeated write", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				v, err := d.Update(ctx, name, base, p)
				return done(ctx, d, name, v, err)
			},
		}},
		{"a repeated creation takes the secret of another for its own", "two first saves of one user/k8sstore with a repeated write", sloppy{
			create: func(ctx context.Context, d driver.Secrets, name string, p driver.Payload) (driver.Version, error) {
				v, err := d.Create(ctx, name, p)
				return done(ctx, d, name, v, err)
			},
		}},
		{"a read returns what a finalizer holds", "save and delete/k8sstore with finalizers", sloppy{
			get: func(ctx context.Context, d driver.Secrets, name string) (driver.Secret, error) {
				return step(ctx, d.(kube).handle, "get "+name, false, name, func(h *handle) (driver.Secret, error) {
					if k := (kube{h}); k.holding(name) {
						return k.last(name), nil
					}
					return h.memory.Get(ctx, name)
				}, nil)
			},
		}},
		{"a creation that a finalizer has stopped counts as done", "deletion and creation by two/k8sstore with finalizers", sloppy{
			create: func(ctx context.Context, d driver.Secrets, name string, p driver.Payload) (driver.Version, error) {
				v, err := d.Create(ctx, name, p)
				if errors.Is(err, errHeld) {
					return "", nil
				}
				return v, err
			},
		}},
		{"a deletion compares the incarnation alone", "promotion and deletion of the code's record/k8sstore without faults", sloppy{
			delete: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret) error {
				now, err := d.Get(ctx, name)
				if err == nil && born(now) == born(base) {
					base = now
				}
				return d.Delete(ctx, name, base)
			},
		}},
		{"labels are not changed together with the data", "two saves of different fields/k8sstore with a crash", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				labels := p.Labels
				p.Labels = base.Labels
				v, err := d.Update(ctx, name, base, p)
				if err != nil {
					return v, err
				}
				done := driver.Secret{Payload: p, Version: v}
				p.Labels = labels
				return d.Update(ctx, name, done, p)
			},
		}},
		{"a list leaves out what has changed since it began", "deletion of all while one is saved/k8sstore without faults", sloppy{
			list: func(ctx context.Context, d driver.Secrets) iter.Seq2[driver.Named, error] {
				return func(yield func(driver.Named, error) bool) {
					began, err := step(ctx, d.(kube).handle, "begin list", false, "", func(h *handle) ([]driver.Named, error) {
						return collect(h.memory.List(ctx))
					}, nil)
					for named, e := range d.List(ctx) {
						was := slices.ContainsFunc(began, func(n driver.Named) bool { return n.Version == named.Version })
						if was && !yield(named, errors.Join(err, e)) {
							return
						}
					}
				}
			},
		}},
		{"reads lag although the driver promises that they do not", "save and delete/gcpsm with stale reads", sloppy{
			properties: func(p driver.Properties) driver.Properties {
				p.ReadLag, p.ListLag = 0, 0
				return p
			},
		}},
		{"labels are added after the write", "two saves of different fields/vaultstore with a crash", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				labels, was := p.Labels, base
				p.Labels, base.Labels = nil, nil
				v, err := d.Update(ctx, name, base, p)
				if err == nil {
					g := d.(tagged)
					err = g.attach(ctx, name, was, driverkit.Without(labels, was.Labels))
				}
				return v, err
			},
		}},
		{"a write removes all labels but its own", "two saves of different fields/vaultstore without faults", sloppy{
			update: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
				v, err := d.Update(ctx, name, base, p)
				if err == nil {
					_ = d.(tagged).relabel(ctx, "unlabel others of", name, base, func([]driver.Label) []driver.Label { return slices.Clone(p.Labels) })
				}
				return v, err
			},
		}},
		{"a deletion removes the labels of the next incarnation", "save while the user is deleted and created again/vaultstore without faults", sloppy{
			delete: func(ctx context.Context, d driver.Secrets, name string, base driver.Secret) error {
				err := d.Delete(ctx, name, base)
				if err == nil {
					_ = d.(tagged).relabel(ctx, "unlabel all of", name, base, func([]driver.Label) []driver.Label { return nil })
				}
				return err
			},
		}},
	})
}

func (k kube) last(name string) driver.Secret {
	k.mu.Lock()
	defer k.mu.Unlock()
	past := k.past[name]
	return *past[len(past)-2]
}
