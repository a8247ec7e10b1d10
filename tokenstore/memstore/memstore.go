// Package memstore keeps token records in memory, for tests and examples. Type Driver is also the
// reference implementation of the interfaces in package driver.
package memstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// New returns an empty store. opts may be nil. New panics if tokenstore.New returns an
// error for opts.
func New(opts *tokenstore.Options) *tokenstore.Store {
	s, err := tokenstore.New(NewDriver(), opts)
	if err != nil {
		panic(err)
	}
	return s
}

// MaxSize is the maximum size of an encoded record, in bytes. Packages awssm, k8sstore and
// vaultstore have the same limit.
const MaxSize = 64 << 10

// A Driver keeps secrets in memory. It is safe for concurrent use.
type Driver struct{ mem *memory }

var _ driver.Leaser = (*Driver)(nil)

// A memory holds the secrets that one or more Drivers share.
type memory struct {
	place   string // random, so that two memories have different places
	mu      sync.Mutex
	secrets map[string]driver.Secret
	index   map[attribute]map[string]bool // the names of the secrets that have an attribute
	version uint64                        // version of the last write; each write increases it, so that all versions differ
}

// An attribute is a label without its nonce.
type attribute struct{ key, value string }

// NewDriver returns a Driver without secrets.
func NewDriver() *Driver {
	return &Driver{&memory{place: "memstore/" + rand.Text(), secrets: map[string]driver.Secret{}, index: map[attribute]map[string]bool{}}}
}

// Reopen returns another Driver that shares the secrets of d.
func (d *Driver) Reopen() *Driver { return &Driver{d.mem} }

// Overwrite stores data in the named secret, regardless of the state of the secret. If the
// secret does not exist, Overwrite creates it. Overwrite keeps the labels of the secret. Tests
// use Overwrite to simulate a write by another tool.
func (d *Driver) Overwrite(name string, data []byte) {
	d.mem.mu.Lock()
	defer d.mem.mu.Unlock()
	was := d.mem.secrets[name]
	d.mem.put(name, driver.Payload{Data: data, Labels: was.Labels})
}

// Properties implements driver.Secrets.
func (d *Driver) Properties() driver.Properties {
	return driver.Properties{Name: "memstore", Place: d.mem.place, MaxSize: MaxSize}
}

// Get implements driver.Secrets.
func (d *Driver) Get(ctx context.Context, name string) (driver.Secret, error) {
	if err := ctx.Err(); err != nil {
		return driver.Secret{}, err
	}
	d.mem.mu.Lock()
	defer d.mem.mu.Unlock()
	s, ok := d.mem.secrets[name]
	if !ok {
		return driver.Secret{}, fmt.Errorf("memstore: get %q: %w", name, driver.ErrNotFound)
	}
	return clone(s), nil
}

// Fresh implements driver.Secrets. It is the same as Get, because reads do not lag.
func (d *Driver) Fresh(ctx context.Context, name string, _ driver.Secret) (driver.Secret, error) {
	return d.Get(ctx, name)
}

// Create implements driver.Secrets.
func (d *Driver) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	d.mem.mu.Lock()
	defer d.mem.mu.Unlock()
	if _, ok := d.mem.secrets[name]; ok {
		return "", fmt.Errorf("memstore: create %q: %w", name, driver.ErrExists)
	}
	return d.mem.put(name, p), nil
}

// Update implements driver.Secrets.
func (d *Driver) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	d.mem.mu.Lock()
	defer d.mem.mu.Unlock()
	switch s, ok := d.mem.secrets[name]; {
	case !ok:
		return "", fmt.Errorf("memstore: update %q: %w", name, driver.ErrNotFound)
	case s.Version != base.Version:
		return "", fmt.Errorf("memstore: update %q: %w", name, driver.ErrConflict)
	}
	return d.mem.put(name, p), nil
}

// Note implements driver.Leaser.
func (d *Driver) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mem.mu.Lock()
	defer d.mem.mu.Unlock()
	s, ok := d.mem.secrets[name]
	switch {
	case !ok:
		return fmt.Errorf("memstore: note %q: %w", name, driver.ErrNotFound)
	case s.Version != base.Version:
		return fmt.Errorf("memstore: note %q: %w", name, driver.ErrConflict)
	case s.Note != base.Note:
		return &driver.NoteError{Note: s.Note, Err: fmt.Errorf("memstore: note %q: %w", name, driver.ErrConflict)}
	}
	s.Note = note
	d.mem.secrets[name] = s
	return nil
}

// Delete implements driver.Secrets.
func (d *Driver) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mem.mu.Lock()
	defer d.mem.mu.Unlock()
	s, ok := d.mem.secrets[name]
	if ok && s.Version != base.Version {
		return fmt.Errorf("memstore: delete %q: %w", name, driver.ErrConflict)
	}
	d.mem.unlabel(name)
	delete(d.mem.secrets, name)
	return nil
}

// Lookup implements driver.Secrets.
func (d *Driver) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return d.each(ctx, func(m *memory) iter.Seq[string] {
		found := map[string]bool{}
		for _, label := range any {
			maps.Copy(found, m.index[attribute{label.Key, label.Value}])
		}
		return maps.Keys(found)
	})
}

// List implements driver.Secrets.
func (d *Driver) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return d.each(ctx, func(m *memory) iter.Seq[string] { return maps.Keys(m.secrets) })
}

// Names implements driver.Secrets.
func (d *Driver) Names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for s, err := range d.List(ctx) {
			if !yield(s.Name, err) {
				return
			}
		}
	}
}

// Close implements driver.Secrets. It does nothing.
func (d *Driver) Close() error { return nil }

// each yields the secrets whose names the function choose returns, in the states that they had when
// the iteration began. It calls choose while d.mem.mu is locked.
func (d *Driver) each(ctx context.Context, choose func(*memory) iter.Seq[string]) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(driver.Named{}, err)
			return
		}
		for _, s := range d.mem.snapshot(choose) {
			if err := ctx.Err(); err != nil {
				yield(driver.Named{}, err)
				return
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

func (m *memory) snapshot(choose func(*memory) iter.Seq[string]) []driver.Named {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []driver.Named
	for name := range choose(m) {
		found = append(found, driver.Named{Name: name, Secret: clone(m.secrets[name])})
	}
	return found
}

// unlabel removes the named secret from the index. The caller must hold m.mu.
func (m *memory) unlabel(name string) {
	for _, label := range m.secrets[name].Labels {
		of := attribute{label.Key, label.Value}
		delete(m.index[of], name)
		if len(m.index[of]) == 0 {
			delete(m.index, of)
		}
	}
}

// put stores p as the next state of the named secret, and returns the version of that state. The
// caller must hold m.mu.
func (m *memory) put(name string, p driver.Payload) driver.Version {
	m.version++
	was, exists := m.secrets[name]
	if exists {
		p.Incarnation = was.Incarnation
	}
	s := driver.Secret{
		Payload: p,
		Version: driver.Version(strconv.FormatUint(m.version, 10)),
		Note:    was.Note,
		Updated: time.Now(),
	}
	if s.Note == p.Drop {
		s.Note = ""
	}
	s.Drop = ""
	m.unlabel(name)
	m.secrets[name] = clone(s)
	for _, label := range s.Labels {
		of := attribute{label.Key, label.Value}
		if m.index[of] == nil {
			m.index[of] = map[string]bool{}
		}
		m.index[of][name] = true
	}
	return s.Version
}

func clone(s driver.Secret) driver.Secret {
	s.Data = slices.Clone(s.Data)
	s.Labels = slices.Clone(s.Labels)
	return s
}
