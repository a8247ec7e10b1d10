package driverkit

import (
	"sync"
	"time"
)

const (
	// missLife is how long a read that found nothing is remembered.
	missLife = time.Second

	// maxMisses limits the number of names in a Misses.
	maxMisses = 1 << 12
)

// Misses remembers the names that recent reads have not found. A driver whose reads
// lag can then begin Fresh with the call that proves an absence. The zero Misses is
// empty. Its methods are safe for concurrent use.
type Misses struct {
	mu sync.Mutex
	at map[string]time.Time
}

// Add remembers that a read at the given time did not find the name.
func (m *Misses) Add(name string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil || len(m.at) >= maxMisses {
		m.at = map[string]time.Time{}
	}
	m.at[name] = now
}

// Take reports whether a read within the last second did not find the name, and forgets
// that read.
func (m *Misses) Take(name string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.at[name]
	delete(m.at, name)
	return ok && now.Sub(at).Abs() < missLife
}
