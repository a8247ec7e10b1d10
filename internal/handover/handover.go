// Package handover passes a record from the call that finds the record to the call that refreshes
// the record, so that a starting process reads the record only once.
package handover

import (
	"context"
	"fmt"
	"io"
	"sync"
)

type key struct{}

// A memory holds the record from the last call of Keep, unless Take has removed the record.
type memory struct {
	mu     sync.Mutex
	store  any
	id     string
	record any
}

// Format prints "*handover.memory", so that package fmt does not print tokens.
func (m *memory) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*handover.memory") }

// Context returns a copy of ctx with room for one record. The copy keeps the record in memory, so
// only the operation that needs the record may use the copy.
func Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, &memory{})
}

// Keep keeps the record that store found under the given ID, in place of any earlier record. Keep
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

// Take removes and returns the kept record. Take returns nil if no record is kept, if the kept
// record belongs to another store or ID, or if ctx does not derive from a result of Context.
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
