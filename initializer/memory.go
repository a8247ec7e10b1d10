package initializer

import (
	"errors"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const longestClientWait = time.Minute

// A memory keeps the last refusal in this process where the store does not: no
// store keeps a refusal of the client, and a store that is not a
// tokenstore.Refresher keeps none. Without it each call of a program would send a
// request.
type memory struct {
	longest time.Duration // the longest back-off where the server does not say

	mu     sync.Mutex
	last   *stored.Failure
	client bool // last refuses the client
}

// counts returns the refusal of the credentials of t, if it still counts.
func (m *memory) counts(t tokenstore.Token, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := refusal.Counts(m.last, credentials(t), now)
	if !ok {
		return nil
	}
	a.Client = m.client
	e := tokenstore.RefreshError(a)
	return &e
}

// keep keeps the result of a refresh with the credentials of t.
func (m *memory) keep(err error, t tokenstore.Token, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused, ok := errors.AsType[*tokenstore.RefreshError](err)
	if !ok {
		m.last = nil
		return
	}
	m.last = refusal.Note(m.last, refusal.Answer(*refused), credentials(t), now, m.longest)
	m.client = refused.Client
}

// credentials returns a digest of the fields of t that a refusal is about.
func credentials(t tokenstore.Token) string {
	return refusal.Digest(t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.GrantToken))
}
