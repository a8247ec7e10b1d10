package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The benchmarks compare this module with its peers in one run. "make bench" runs benchstat
// with -col /by, which shows the module and its peers in columns.

var peersFull = flag.Bool("evidence.peers", false, "print the stampedes as benchmarks")

// BenchmarkFresh measures how long this module and its peers take to return a valid access
// token from memory.
func BenchmarkFresh(b *testing.B) {
	parts, err := locals(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	cached := newCache(time.Hour, func(context.Context) (string, error) { return "token", nil })
	by := map[string]func() error{"cache": func() error { _, err := cached.get(b.Context()); return err }}
	for _, p := range parts {
		switch p.name {
		case localSource:
			by[tokenkeep] = p.do
		case localReuse:
			by["xoauth2"] = p.do
		}
	}
	for _, name := range []string{tokenkeep, "xoauth2", "cache"} {
		b.Run("by="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := by[name](); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A cache keeps a secret in memory for ttl, and then reads the secret again. A cache simulates the
// caching client of AWS Secrets Manager, which is not a dependency of this module.
type cache struct {
	mu    sync.Mutex
	value string
	until time.Time
	ttl   time.Duration
	read  func(context.Context) (string, error)
}

func newCache(ttl time.Duration, read func(context.Context) (string, error)) *cache {
	return &cache{ttl: ttl, read: read}
}

func (c *cache) get(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.value, nil
	}
	value, err := c.read(ctx)
	if err == nil {
		c.value, c.until = value, time.Now().Add(c.ttl)
	}
	return value, err
}

// A shelf is a service that stores strings. Each call takes roundTrip.
type shelf struct {
	mu    sync.Mutex
	texts map[string]string
	calls int
}

func (s *shelf) do(ctx context.Context, change func(texts map[string]string)) error {
	if err := pass(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.calls++
	change(s.texts)
	s.mu.Unlock()
	return pass(ctx)
}

func (s *shelf) get(ctx context.Context, key string) (value string, err error) {
	err = s.do(ctx, func(texts map[string]string) { value = texts[key] })
	return value, err
}

func (s *shelf) put(ctx context.Context, key, value string) error {
	return s.do(ctx, func(texts map[string]string) { texts[key] = value })
}

// add stores value under key unless key already has a value. add reports whether value was
// stored.
func (s *shelf) add(ctx context.Context, key, value string) (added bool, err error) {
	err = s.do(ctx, func(texts map[string]string) {
		if added = texts[key] == ""; added {
			texts[key] = value
		}
	})
	return added, err
}

// A pattern is a way to prevent several processes from refreshing the same token
// concurrently.
type pattern struct {
	name string

	// try tries to take the lock, and reports whether the lock was taken. A nil try means that
	// the pattern has no lock.
	try func(ctx context.Context, s *shelf) (bool, error)

	// poll returns the pause before the next attempt.
	poll func() time.Duration
}

const (
	lockKey   = "lock"
	tokenKey  = "token"
	freshText = "fresh"
)

// patterns lists the patterns that programs implement themselves. In these tests, no process
// ends while it holds the lock, so the locks need no leases.
var patterns = []pattern{
	{name: "getput"}, // no lock
	{
		name: "redis", // SET lock NX PX, polled ten times each second
		try:  func(ctx context.Context, s *shelf) (bool, error) { return s.add(ctx, lockKey, "mine") },
		poll: func() time.Duration { return 100 * time.Millisecond },
	},
	{
		name: "dynamodb", // PutItem if attribute_not_exists, polled once each second, like AWS's lock client
		try:  func(ctx context.Context, s *shelf) (bool, error) { return s.add(ctx, lockKey, "mine") },
		poll: func() time.Duration { return time.Second },
	},
	{
		name: "readwrite", // a lock in Vault that is read, then written unconditionally, like the lock of certmagic-vault-storage
		try: func(ctx context.Context, s *shelf) (bool, error) {
			if held, err := s.get(ctx, lockKey); held != "" || err != nil {
				return false, err
			}
			return true, s.put(ctx, lockKey, "mine")
		},
		poll: func() time.Duration { return 5 * time.Second },
	},
	{
		name: "stages", // a staging label in Secrets Manager that is moved on a condition, like the lock of Cloud-Foundations/golib
		try: func(ctx context.Context, s *shelf) (bool, error) {
			if held, err := s.get(ctx, lockKey); held != "" || err != nil {
				return false, err
			}
			return s.add(ctx, lockKey, "mine")
		},
		poll: func() time.Duration { return 15*time.Second + rand.N(2500*time.Millisecond) },
	},
}

// refresh simulates one process, which needs a token that has not expired.
func (p pattern) refresh(ctx context.Context, s *shelf, mint func()) error {
	token, err := s.get(ctx, tokenKey)
	if err != nil || token == freshText {
		return err
	}
	if p.try != nil {
		for {
			held, err := p.try(ctx, s)
			if err != nil {
				return err
			}
			if held {
				break
			}
			<-time.After(p.poll())
			if token, err = s.get(ctx, tokenKey); err != nil || token == freshText {
				return err
			}
		}
		if token, err = s.get(ctx, tokenKey); err != nil {
			return err
		}
	}
	if token != freshText {
		mint()
		err = s.put(ctx, tokenKey, freshText)
	}
	if p.try != nil {
		err = errors.Join(err, s.put(ctx, lockKey, ""))
	}
	return err
}

// stampede runs a crowd with the pattern p, and returns the outcome.
func (p pattern) stampede(t *testing.T, c crowd) *crowded {
	t.Helper()
	r := &crowded{calls: map[string]int{}}
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{texts: map[string]string{}}
		began := time.Now()
		var all sync.WaitGroup
		for range c.n {
			all.Go(func() {
				if c.within > 0 {
					<-time.After(rand.N(c.within))
				}
				err := p.refresh(t.Context(), s, func() {
					r.mu.Lock()
					r.mints++
					r.mu.Unlock()
					<-time.After(c.mint)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		r.took, r.calls["all"] = time.Since(began), s.calls
	})
	return r
}

// TestPeers checks that exactly one of a hundred processes with this module requests a token,
// and that no process fails. The test reports the costs of this module, and the costs of the
// patterns that programs implement themselves. All processes find the same token expired, within a
// second or at the same instant. On the virtual clock, a call takes 20 ms, and the
// authorization server takes 571 ms. The documented quotas apply only to the calls of this
// module.
func TestPeers(t *testing.T) {
	for _, within := range []time.Duration{0, time.Second} {
		c := crowd{n: 100, within: within, mint: 571 * time.Millisecond}
		print := func(by string, r *crowded) {
			line := fmt.Sprintf("BenchmarkStampede/within=%v/by=%s 1 %d ns/op %d mints/op %d rpcs/op %d failed/op", within, by, r.took.Nanoseconds(), r.mints, total(r.calls), r.failed)
			report(t, attrPeer, peerResult{By: by, Within: within, Requests: r.mints, Failed: r.failed, Calls: total(r.calls), Took: r.took})
			if *peersFull {
				fmt.Println(line)
			} else {
				t.Log(line)
			}
		}
		for _, service := range coldServices {
			c.service = service
			r := c.meet(t)
			if r.mints != 1 || r.failed != 0 || !r.stored {
				t.Errorf("%s: %v", service, r)
			}
			print(tokenkeep+"-"+service, r)
		}
		for _, p := range patterns {
			r := p.stampede(t, c)
			if r.mints == 0 {
				t.Errorf("%s: no process has asked", p.name)
			}
			print(p.name, r)
		}
	}
}
