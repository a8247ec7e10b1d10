// Package memstore keeps token records in memory: for tests, for examples, and
// as the reference for what a driver does.
package memstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// New returns a store on an empty memory of its own. It panics if opts cannot be
// used, which is a mistake of the program.
func New(opts *tokenstore.Options) *tokenstore.Store {
	s, err := tokenstore.New(NewDriver(), opts)
	if err != nil {
		panic(err)
	}
	return s
}

// MaxSize is the largest record in bytes: that of the cloud services, so that
// what fits here fits there.
const MaxSize = 64 << 10

// A Driver keeps secrets in memory. Every operation on it is atomic.
type Driver struct{ mem *memory }

var _ driver.Leaser = (*Driver)(nil)

// A memory is what several handles share.
type memory struct {
	place   string // random: no two memories are one store
	mu      sync.Mutex
	secrets map[string]driver.Secret
	version uint64 // of the last write; never reused, so no state looks like an earlier one
}

// NewDriver returns a driver on an empty memory.
func NewDriver() *Driver {
	return &Driver{&memory{place: "memstore/" + rand.Text(), secrets: map[string]driver.Secret{}}}
}

// Reopen returns another driver on the same memory.
func (d *Driver) Reopen() *Driver { return &Driver{d.mem} }

// Overwrite stores data under name whatever is there, as somebody does who edits
// a secret by hand. Tests use it.
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

// Fresh implements driver.Secrets. It is Get: memory does not lag.
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
	case s.Version != base.Version || s.Note != base.Note:
		return fmt.Errorf("memstore: note %q: %w", name, driver.ErrConflict)
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
	delete(d.mem.secrets, name)
	return nil
}

// Lookup implements driver.Secrets.
func (d *Driver) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	return d.each(ctx, func(s driver.Secret) bool {
		return slices.ContainsFunc(s.Labels, func(have driver.Label) bool {
			return slices.ContainsFunc(any, func(want driver.Label) bool {
				return have.Key == want.Key && have.Value == want.Value
			})
		})
	})
}

// List implements driver.Secrets.
func (d *Driver) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return d.each(ctx, func(driver.Secret) bool { return true })
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

// Close implements driver.Secrets. There is nothing to release.
func (d *Driver) Close() error { return nil }

// each yields the secrets that pass the test, as they are when it begins.
func (d *Driver) each(ctx context.Context, test func(driver.Secret) bool) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(driver.Named{}, err)
			return
		}
		for _, s := range d.mem.snapshot(test) {
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

func (m *memory) snapshot(test func(driver.Secret) bool) []driver.Named {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []driver.Named
	for name, s := range m.secrets {
		if test(s) {
			found = append(found, driver.Named{Name: name, Secret: clone(s)})
		}
	}
	return found
}

// put stores p as the next state of name. m.mu is held.
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
	m.secrets[name] = clone(s)
	return s.Version
}

func clone(s driver.Secret) driver.Secret {
	s.Data = slices.Clone(s.Data)
	s.Labels = slices.Clone(s.Labels)
	return s
}
