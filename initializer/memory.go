package initializer

import (
	"errors"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	firstWait      = time.Second
	lastWait       = 30 * time.Minute
	lastClientWait = time.Minute
)

// A memory keeps the last refusal in this process, where the store does not: no
// store keeps a refusal of the client, and one that is no tokenstore.Refresher
// keeps none. Without it every call of a program would make a request.
type memory struct {
	last time.Duration // the longest wait where the server says nothing

	mu      sync.Mutex
	refused *tokenstore.RefreshError
	of      tokenstore.Token // with which credentials
	count   int
	from    time.Time
	wait    time.Duration
}

// counts returns the refusal of the credentials of t, if it still counts.
func (m *memory) counts(t tokenstore.Token, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch gone := now.Sub(m.from); {
	case m.refused == nil || m.of != credentials(t):
		return nil
	case m.refused.Permanent:
		return m.refused
	case gone < 0 || gone >= m.wait: // a clock that was set back makes no call wait
		return nil
	default:
		again := *m.refused
		again.RetryAfter = m.wait - gone
		return &again
	}
}

// keep keeps what a refresh with the credentials of t has come to.
func (m *memory) keep(err error, t tokenstore.Token, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused, ok := errors.AsType[*tokenstore.RefreshError](err)
	if !ok {
		m.refused, m.count = nil, 0
		return
	}
	if of := credentials(t); m.of != of {
		m.of, m.count = of, 0
	}
	m.refused, m.from = refused, now
	m.wait = refused.RetryAfter
	if m.wait == 0 {
		m.wait = min(firstWait<<min(m.count, 20), m.last)
	}
	m.count++
}

// credentials returns the part of t that a refusal is about.
func credentials(t tokenstore.Token) tokenstore.Token {
	return tokenstore.Token{ClientID: t.ClientID, ClientSecret: t.ClientSecret, RefreshToken: t.RefreshToken, GrantToken: t.GrantToken}
}
