package conformance

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// reference is a driver that keeps all promises. Get lags by world.readLag, and List, Lookup and
// Names lag by world.listLag. Until a lag has passed, readers get the previous state. The broken
// drivers wrap references.
type reference struct {
	*world
	prefix string
}

// A world holds the secrets of several references. Each reference finds only the secrets under
// its own prefix.
type world struct {
	properties       driver.Properties
	listLag, readLag time.Duration

	mu     sync.Mutex
	full   bool               // the service rejects calls
	ahead  time.Duration      // how far the clock of the references is ahead
	states map[string][]state // by prefix and name, the oldest first
	count  int
}

// A state is a state of a secret. The field at is the time at which the state began.
type state struct {
	driver.Secret
	at      time.Time
	deleted bool
	foreign bool // edited by another program
	refused bool // the service refuses reads of the state
}

// refusal returns the error for reading an unreadable state, or nil.
func (s state) refusal(name string) error {
	switch {
	case s.foreign:
		return fmt.Errorf("reference: %q: %w", name, driver.ErrCorrupt)
	case s.refused:
		return fmt.Errorf("reference: %q: %w", name, driver.ErrRefused)
	}
	return nil
}

func newReference(listLag, readLag time.Duration) *reference {
	w := &world{
		properties: driver.Properties{Name: "reference", MaxSize: 64 << 10, ListLag: listLag, ReadLag: readLag},
		listLag:    listLag,
		readLag:    readLag,
		states:     map[string][]state{},
	}
	return &reference{w, "app/"}
}

func (r *reference) made() *reference    { return r }
func (r *reference) reopen() *reference  { return &reference{r.world, r.prefix} }
func (r *reference) sibling() *reference { return &reference{r.world, r.prefix + "2/"} }

func (r *reference) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += max(r.listLag, r.readLag) + time.Second
}

func (r *reference) tamper(name string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, _ := r.at(name, 0)
	s.Data, s.foreign = data, true
	r.put(name, s)
}

func (r *reference) refuse(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	states := r.states[r.prefix+name]
	states[len(states)-1].refused = true
}

// throttle makes the service reject calls if full is true, and accept calls otherwise.
func (r *reference) throttle(full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = full
}

// admits returns an error if ctx is done or the service rejects calls.
func (r *reference) admits(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return fmt.Errorf("reference: %w", driver.ErrThrottled)
	}
	return nil
}

// at returns the state that was the newest at the time now-ago, and reports whether the secret
// existed then. The caller must hold r.mu.
func (r *reference) at(name string, ago time.Duration) (state, bool) {
	for _, s := range slices.Backward(r.states[r.prefix+name]) {
		if !s.at.After(time.Now().Add(r.ahead - ago)) {
			return s, !s.deleted
		}
	}
	return state{}, false
}

// put makes s the newest state, with a new version. The caller must hold r.mu.
func (r *reference) put(name string, s state) driver.Version {
	r.count++
	s.Version, s.at = driver.Version(strconv.Itoa(r.count)), time.Now().Add(r.ahead)
	s.Updated = s.at
	s.Payload = clone(s.Payload)
	r.states[r.prefix+name] = append(r.states[r.prefix+name], s)
	return s.Version
}

func clone(p driver.Payload) driver.Payload {
	return driver.Payload{Data: slices.Clone(p.Data), Labels: slices.Clone(p.Labels), Incarnation: p.Incarnation}
}

func (r *reference) read(ctx context.Context, name string, lag time.Duration) (driver.Secret, error) {
	if err := r.admits(ctx); err != nil {
		return driver.Secret{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.at(name, lag)
	if !ok {
		return driver.Secret{}, fmt.Errorf("reference: %q: %w", name, driver.ErrNotFound)
	}
	if err := s.refusal(name); err != nil {
		return driver.Secret{}, err
	}
	s.Payload = clone(s.Payload)
	return s.Secret, nil
}

func (r *reference) Close() error { return nil }

func (r *reference) Properties() driver.Properties {
	p := r.properties
	p.Place = "reference/" + r.prefix
	return p
}

func (r *reference) Get(ctx context.Context, name string) (driver.Secret, error) {
	return r.read(ctx, name, r.readLag)
}

func (r *reference) Fresh(ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
	return r.read(ctx, name, 0)
}

func (r *reference) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := r.admits(ctx); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.at(name, 0); ok {
		return "", fmt.Errorf("reference: %q: %w", name, driver.ErrExists)
	}
	return r.put(name, state{Secret: driver.Secret{Payload: p}}), nil
}

// check returns an error unless base is the newest state. The caller must hold r.mu.
func (r *reference) check(name string, base driver.Secret) error {
	s, ok := r.at(name, 0)
	switch {
	case !ok:
		return fmt.Errorf("reference: %q: %w", name, driver.ErrNotFound)
	case s.Version != base.Version:
		return fmt.Errorf("reference: %q: %w", name, driver.ErrConflict)
	}
	return nil
}

func (r *reference) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if err := r.admits(ctx); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.check(name, base); err != nil {
		return "", err
	}
	next := state{Secret: driver.Secret{Payload: p}}
	now, _ := r.at(name, 0)
	if now.Note != p.Drop {
		next.Note = now.Note
	}
	next.Incarnation = now.Incarnation
	return r.put(name, next), nil
}

func (r *reference) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	if err := r.admits(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.check(name, base); err != nil {
		return err
	}
	states := r.states[r.prefix+name]
	now := &states[len(states)-1]
	if now.Note != base.Note {
		return fmt.Errorf("reference: %q: %w", name, driver.ErrConflict)
	}
	now.Note = note
	return nil
}

func (r *reference) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := r.admits(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.at(name, 0); !ok {
		return nil
	}
	if err := r.check(name, base); err != nil {
		return err
	}
	r.put(name, state{deleted: true})
	return nil
}

func (r *reference) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return r.each(ctx, func(s state) bool { return carries(s, any, 32) })
}

// carries reports whether s has at least one of the labels in the slice any. carries compares only
// the first length characters of values.
func carries(s state, any []driver.Label, length int) bool {
	for _, have := range s.Labels {
		for _, want := range any {
			if have.Key == want.Key && have.Value[:length] == want.Value[:length] {
				return true
			}
		}
	}
	return false
}

func (r *reference) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return r.each(ctx, func(state) bool { return true })
}

func (r *reference) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for s, err := range r.List(ctx) {
			if s.Name != "" {
				err = nil
			}
			if !yield(s.Name, err) {
				return
			}
		}
	}
}

func (r *reference) each(ctx context.Context, pass func(state) bool) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for name, s := range r.all(pass) {
			if err := r.admits(ctx); err != nil {
				yield(driver.Named{}, err)
				return
			}
			named, err := driver.Named{Name: name, Secret: s.Secret}, error(nil)
			if reason := s.refusal(name); reason != nil {
				named, err = driver.Named{Name: name}, reason
			}
			if !yield(named, err) {
				return
			}
		}
		if err := r.admits(ctx); err != nil {
			yield(driver.Named{}, err)
		}
	}
}

// all returns the secrets with the prefix of r, in the state that Get returns. all omits a secret
// that Get does not find, or that did not exist listLag ago. all also omits a secret if the
// function pass returns false for the state of the secret at that time.
func (r *reference) all(pass func(state) bool) map[string]state {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[string]state{}
	for key := range r.states {
		name, ok := strings.CutPrefix(key, r.prefix)
		if !ok || strings.Contains(name, "/") {
			continue
		}
		if then, ok := r.at(name, r.listLag); !ok || !pass(then) {
			continue
		}
		if s, ok := r.at(name, r.readLag); ok {
			s.Payload = clone(s.Payload)
			found[name] = s
		}
	}
	return found
}

// broken is implemented by drivers that wrap a reference.
type broken interface {
	driver.Secrets
	made() *reference
}

// backend returns a Driver whose Open, Reopen and Sibling return wrap(r) for a reference r.
func backend(listLag, readLag time.Duration, wrap func(*reference) driver.Secrets) Driver {
	made := func(d driver.Secrets) *reference { return d.(broken).made() }
	return Driver{
		Open:    func(testing.TB) driver.Secrets { return wrap(newReference(listLag, readLag)) },
		Reopen:  func(_ testing.TB, d driver.Secrets) driver.Secrets { return wrap(made(d).reopen()) },
		Sibling: func(_ testing.TB, d driver.Secrets) driver.Secrets { return wrap(made(d).sibling()) },
		Tamper:  func(_ testing.TB, d driver.Secrets, name string, data []byte) { made(d).tamper(name, data) },
		Refuse:  func(_ testing.TB, d driver.Secrets, name string) { made(d).refuse(name) },
		Throttle: func(_ testing.TB, d driver.Secrets) func() {
			made(d).throttle(true)
			return func() { made(d).throttle(false) }
		},
		Settle: func(_ testing.TB, d driver.Secrets) { made(d).settle() },
	}
}

func intact(r *reference) driver.Secrets { return r }

// frugal returns b with drivers that fail a case if the case writes one secret more than 60
// times.
func frugal(b Driver) Driver {
	open := b.Open
	b.Open = func(t testing.TB) driver.Secrets {
		d := open(t)
		t.Cleanup(func() {
			for name, states := range d.(*reference).states {
				if n := len(states); n > 60 {
					t.Errorf("the secret %q was written %d times", name, n)
				}
			}
		})
		return d
	}
	return b
}

func TestReference(t *testing.T) { RunDriver(t, frugal(backend(0, 0, intact))) }

func TestReferenceWithListLag(t *testing.T) { RunDriver(t, backend(5*time.Minute, 0, intact)) }

func TestReferenceWithUnboundedLags(t *testing.T) {
	RunDriver(t, backend(100*time.Hour, time.Hour, func(r *reference) driver.Secrets {
		r.properties.ListLag, r.properties.ReadLag = driver.Unbounded, driver.Unbounded
		return r
	}))
}

func TestReferenceWithoutSettle(t *testing.T) {
	b := backend(20*time.Millisecond, 10*time.Millisecond, intact)
	b.Settle = nil
	RunDriver(t, b)
}

func TestStoreOnReference(t *testing.T) {
	RunStore(t, frugal(backend(0, 0, intact)).Store(t, nil))
}

// TestLimits checks that drivers with a smaller or larger MaxSize than the drivers of this module
// pass the suites.
func TestLimits(t *testing.T) {
	for name, size := range map[string]int{"16 KiB": 16 << 10, "25 KiB": 25 << 10, "512 KiB": 512 << 10, "none": math.MaxInt} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := backend(0, 0, func(r *reference) driver.Secrets {
				r.properties.MaxSize = size
				return r
			})
			RunDriver(t, b)
			RunStore(t, b.Store(t, nil))
		})
	}
}

func TestStoreOnReferenceWithReadLag(t *testing.T) {
	RunStore(t, backend(5*time.Minute, time.Minute, intact).Store(t, nil))
}

func TestStoreOnReferenceWithLags(t *testing.T) {
	RunStore(t, backend(5*time.Minute, 0, intact).Store(t, nil))
}
