package rowstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A memory is a minimal Table that keeps its rows in memory.
type memory struct {
	mu      sync.Mutex
	rows    []codec.Fields
	damaged map[string]bool
	locked  map[string]bool
	notes   map[string]string
	last    int64 // the largest ID of removed rows

	writing sync.Mutex
	writes  atomic.Int64
	ahead   atomic.Int64 // how far the stores' clock is ahead, in nanoseconds
}

func (m *memory) view(w rowstore.Writer, fields []codec.Fields) *rowstore.Rows {
	place := func(i int) string { return fmt.Sprintf("row %q", fields[i].ID) }
	rows := &rowstore.Rows{Writer: w, Numbered: true, Place: place}
	for _, f := range fields {
		var damage error
		if m.damaged[f.ID] {
			damage = errors.New("damaged")
		}
		rows.Add(f, damage)
	}
	return rows
}

func (m *memory) Read(context.Context, *codec.Fields) (*rowstore.Rows, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view(nil, slices.Clone(m.rows)), nil
}

func (m *memory) Update(ctx context.Context, _ *codec.Fields, change rowstore.Change) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	w := &writer{memory: m}
	m.mu.Lock()
	w.rows = slices.Clone(m.rows)
	m.mu.Unlock()
	rows, err := w.Reread(ctx)
	if err != nil {
		return err
	}
	if changed, err := change(ctx, rows); err != nil || !changed {
		return err
	}
	w.drop()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows = w.rows
	m.writes.Add(1)
	return nil
}

// A writer is the Writer of one Update.
type writer struct {
	*memory
	rows []codec.Fields
	gone []int
}

func (w *writer) NextID(context.Context) (string, error) {
	next := w.last
	for _, f := range w.rows {
		n, _ := codec.IDNumber(f.ID)
		next = max(next, n)
	}
	return strconv.FormatInt(next+1, 10), nil
}

func (w *writer) Put(_ context.Context, i int, f codec.Fields) error {
	if err := rowstore.Check(f, i < 0); err != nil {
		return err
	}
	if i < 0 {
		w.rows = append(w.rows, f)
	} else {
		w.rows[i] = f
	}
	return nil
}

func (w *writer) Remove(_ context.Context, rows []int, _ bool) error {
	w.gone = append(w.gone, rows...)
	return nil
}

func (w *writer) Reread(context.Context) (*rowstore.Rows, error) {
	w.drop()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view(w, slices.Clone(w.rows)), nil
}

func (w *writer) drop() {
	slices.Sort(w.gone)
	for _, i := range slices.Backward(w.gone) {
		n, _ := codec.IDNumber(w.rows[i].ID)
		w.last = max(w.last, n)
		w.rows = slices.Delete(w.rows, i, i+1)
	}
	w.gone = nil
}

func (m *memory) Precheck(context.Context, rules.Plan) error { return nil }

func (m *memory) Fits(context.Context) (func(codec.Fields) error, error) {
	return func(f codec.Fields) error { return rowstore.Check(f, true) }, nil
}

func (m *memory) Erased(_ context.Context, ids []string, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.notes, id)
	}
	return nil
}

func (m *memory) Lock(_ context.Context, id string) (rowstore.Lock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[id] {
		return nil, nil
	}
	m.locked[id] = true
	return &lock{m, id}, nil
}

func (m *memory) Peek(_ context.Context, id string) (note string, leased bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.notes[id], m.locked[id], nil
}

type lock struct {
	*memory
	id string
}

func (l *lock) Note(context.Context) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.notes[l.id]
}

func (l *lock) SetNote(_ context.Context, text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes[l.id] = text
	return nil
}

func (l *lock) Release(_ context.Context, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !keep {
		delete(l.notes, l.id)
	}
	delete(l.locked, l.id)
}

type store struct {
	*rowstore.Store
	memory *memory
}

func open(t testing.TB, m *memory) tokenstore.TokenStore {
	t.Helper()
	now := func() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) }
	o, err := rowstore.Options{AnyID: true, Now: now}.Complete("rowstore")
	if err != nil {
		t.Fatal(err)
	}
	return &store{rowstore.New("rowstore", m, o), m}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	of := func(s tokenstore.TokenStore) *memory { return s.(*store).memory }
	conformance.RunStore(t, conformance.Store{
		Open: func(t testing.TB) tokenstore.TokenStore {
			return open(t, &memory{damaged: map[string]bool{}, locked: map[string]bool{}, notes: map[string]string{}})
		},
		Reopen:        func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore { return open(t, of(s)) },
		ForeignFormat: true,
		Forward: func(_ testing.TB, s tokenstore.TokenStore, d time.Duration) {
			of(s).ahead.Add(int64(d))
		},
		Corrupt: func(_ testing.TB, s tokenstore.TokenStore, id string) {
			m := of(s)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.damaged[id] = true
		},
		Writes: func(_ testing.TB, s tokenstore.TokenStore) int64 { return of(s).writes.Load() },
	})
}

// TestRows_Format checks that package fmt does not print the tokens of Rows.
func TestRows_Format(t *testing.T) {
	t.Parallel()
	rows := &rowstore.Rows{}
	rows.Add(codec.Fields{ID: "1", RefreshToken: "canary"}, nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, rows); strings.Contains(text, "canary") {
			t.Errorf("%s shows the token", verb)
		}
	}
}
