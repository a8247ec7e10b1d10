// Package handover passes a record from the call that finds the record to the call that
// refreshes it, so that a process that starts reads the record only once.
package handover

import (
	"context"
	"fmt"
	"io"
	"sync"
)

type key struct{}

// A memory holds the record that the last call found.
type memory struct {
	mu     sync.Mutex
	store  any
	id     string
	record any
}

// Format prints only "*handover.memory", so that package fmt does not print tokens.
func (m *memory) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*handover.memory") }

// Context returns a copy of ctx with room for one record. The record is kept as long as the
// result is referenced, so the result must not outlive the operation that needs it.
func Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, &memory{})
}

// Keep keeps record, which store has found under the ID, in place of any earlier record. It
// does nothing if ctx does not derive from a result of Context.
func Keep[T any](ctx context.Context, store any, id string, record T) {
	m, ok := ctx.Value(key{}).(*memory)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.store, m.id, m.record = store, id, record
}

// Take removes and returns the kept record. It returns nil if there is no record, or if the
// record is of another store or ID.
func Take(ctx context.Context, store any, id string) (record any) {
	m, ok := ctx.Value(key{}).(*memory)
	if !ok {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store != store || m.id != id {
		return nil
	}
	record = m.record
	m.store, m.id, m.record = nil, "", nil
	return record
}
