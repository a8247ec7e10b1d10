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

// A memory keeps the last refusal in place of the store. No store keeps a refusal of the client,
// and a store that is not a tokenstore.Refresher keeps no refusals at all. Without a memory, every
// call after such a refusal would send a request to the authorization server.
type memory struct {
	longest time.Duration // the maximum back-off if the server states no time to wait

	mu     sync.Mutex
	last   *stored.Failure
	client bool // last is a refusal of the client
}

// counts returns the last refusal if that refusal applies to the credentials of t and has not
// expired. Otherwise, counts returns nil.
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

// keep stores err if err is a refusal of the credentials of t. Otherwise, keep removes the last
// refusal.
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

// credentials returns a digest of the fields of t to which a refusal applies.
func credentials(t tokenstore.Token) string {
	return refusal.Digest(t.ClientID, string(t.ClientSecret), string(t.RefreshToken), string(t.GrantToken))
}
