package agent

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/flight"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// maxKeys is the maximum number of keys of an entry.
const maxKeys = 8

// A key is a digest of the fields by which a caller describes a record. The digest reveals
// nothing about a token and is resistant to collisions.
type key [sha256.Size]byte

// An entry holds either the Client of a record, or an error in the field failed.
type entry struct {
	id     string
	client *initializer.Client
	opened atomic.Int64 // time from which the age of the entry counts, in nanoseconds of Unix time
	kept   atomic.Bool  // whether client has a token that could not be stored

	// failed is the error with which the authorization server refused the OAuth client, or nil.
	// Until opened + pause, the agent returns this error without another request to the
	// authorization server.
	failed error
	pause  time.Duration

	// clients.mu guards the following fields.
	keys  []key
	place *list.Element
}

// clients holds the most recently requested entries.
type clients struct {
	salt    [sha256.Size]byte
	most    int
	flights flight.Group[*entry]

	mu    sync.Mutex
	byKey map[key]*entry
	order *list.List // values are *entry, the most recently requested first
}

func newClients(most int) *clients {
	c := &clients{most: most, byKey: map[key]*entry{}, order: list.New()}
	_, _ = rand.Read(c.salt[:]) // rand.Read never fails
	return c
}

// keyOf returns the key for the fields of the parameter like.
func (c *clients) keyOf(like tokenstore.Token) (k key) {
	h := hmac.New(sha256.New, c.salt[:])
	var size [8]byte
	for _, text := range like.Fields().All() {
		binary.LittleEndian.PutUint64(size[:], uint64(len(text)))
		_, _ = h.Write(size[:])
		_, _ = io.WriteString(h, text)
	}
	h.Sum(k[:0])
	return k
}

// get returns the entry for a key, or nil if there is no entry. get marks the entry as the most
// recently requested one.
func (c *clients) get(k key) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e != nil {
		c.order.MoveToFront(e.place)
	}
	return e
}

// put makes room for e, and adds e under keys. If c is full of entries whose tokens could not be
// stored, put returns errUnsavedFull.
func (c *clients) put(e *entry, keys ...key) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() >= c.most {
		if !c.makeRoom() {
			return errUnsavedFull
		}
	}
	e.place = c.order.PushFront(e)
	for _, k := range keys {
		c.link(e, k)
	}
	return nil
}

// makeRoom removes the least recently requested entry that does not hold an unsaved token, and
// reports whether it removed one. The caller must hold c.mu.
func (c *clients) makeRoom() bool {
	for at := c.order.Back(); at != nil; at = at.Prev() {
		if e, ok := at.Value.(*entry); ok && !e.kept.Load() {
			c.remove(e)
			return true
		}
	}
	return false
}

// alias adds the key k to e, unless e was removed.
func (c *clients) alias(e *entry, k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.place != nil {
		c.link(e, k)
	}
}

// link adds the key k to e, and removes k from any other entry. If e has maxKeys keys, link first
// removes the oldest key. The caller must hold c.mu.
func (c *clients) link(e *entry, k key) {
	if old := c.byKey[k]; old != nil {
		if old == e {
			return
		}
		c.unlink(old, k)
	}
	if len(e.keys) >= maxKeys {
		c.unlink(e, e.keys[0])
	}
	e.keys = append(e.keys, k)
	c.byKey[k] = e
}

// unlink removes the key k from e. If e has no other key and no unsaved token, unlink also removes
// e. The caller must hold c.mu.
func (c *clients) unlink(e *entry, k key) {
	delete(c.byKey, k)
	for i := range e.keys {
		if e.keys[i] == k {
			e.keys = append(e.keys[:i:i], e.keys[i+1:]...)
			break
		}
	}
	if len(e.keys) == 0 && !e.kept.Load() {
		c.remove(e)
	}
}

// remove removes an entry. The caller must hold c.mu. Requests that already have the entry can
// still use it.
func (c *clients) remove(e *entry) {
	if e.place == nil {
		return
	}
	c.order.Remove(e.place)
	e.place = nil
	for _, k := range e.keys {
		delete(c.byKey, k)
	}
	e.keys = nil
}

// drop is like remove, but acquires c.mu itself.
func (c *clients) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(e)
}

// forget removes the entries of the records with the given IDs, and all entries that hold an error.
// Without IDs, forget removes all entries. If keep is set, forget keeps entries whose token could
// not be stored.
func (c *clients) forget(keep bool, ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := c.order.Front(); at != nil; {
		e, _ := at.Value.(*entry)
		at = at.Next()
		mine := e.failed != nil || len(ids) == 0
		for _, id := range ids {
			mine = mine || e.id == id
		}
		if mine && !(keep && e.kept.Load()) {
			c.remove(e)
		}
	}
}

// unsaved returns the entries whose tokens could not be stored.
func (c *clients) unsaved() (entries []*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := c.order.Front(); at != nil; at = at.Next() {
		if e, ok := at.Value.(*entry); ok && e.kept.Load() {
			entries = append(entries, e)
		}
	}
	return entries
}
