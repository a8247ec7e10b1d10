package driverkit

import (
	"sync"
	"time"
)

const (
	// missLife is the time for which Take returns true after Add.
	missLife = time.Second

	// maxMisses is the maximum number of names in a Misses.
	maxMisses = 1 << 12
)

// A Misses holds the names that recent reads did not find. A secret with such a name probably
// does not exist. If the reads of a driver lag, Fresh can therefore first make the call that
// shows whether the secret exists. The zero Misses is empty and ready to use. The methods of a
// Misses are safe for concurrent use.
type Misses struct {
	mu sync.Mutex
	at map[string]time.Time
}

// Add stores the name after a read did not find it. The parameter now is the time of the read. If
// m holds 4,096 names, Add first removes all names.
func (m *Misses) Add(name string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil || len(m.at) >= maxMisses {
		m.at = map[string]time.Time{}
	}
	m.at[name] = now
}

// Take reports whether Add stored the name with a time that differs from now by less than a second.
// Take also removes the name.
func (m *Misses) Take(name string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.at[name]
	delete(m.at, name)
	return ok && now.Sub(at).Abs() < missLife
}
