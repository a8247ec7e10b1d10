package tokenstore_test

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/storetest"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A late is a driver that answers some reads with an earlier state of the secret, and some
// searches with earlier states of all secrets.
type late struct {
	*memstore.Driver

	mu     sync.Mutex
	random *rand.Rand
	before map[string]*driver.Secret // states before the last write, by name; nil means that the secret did not exist
	then   []driver.Named            // all secrets as they were some writes ago
}

func newLate(seed uint64) *late {
	return &late{Driver: memstore.NewDriver(), random: rand.New(rand.NewPCG(seed, 2)), before: map[string]*driver.Secret{}}
}

func (l *late) Properties() driver.Properties {
	p := l.Driver.Properties()
	p.ReadLag, p.ListLag = time.Second, time.Minute
	return p
}

// lags decides at random whether the next read is out of date.
func (l *late) lags() bool { return l.random.IntN(4) == 0 }

// written saves the state of the named secret before a write and, at random, the states of all
// secrets.
func (l *late) written(ctx context.Context, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before[name] = nil
	if s, err := l.Driver.Get(ctx, name); err == nil {
		l.before[name] = &s
	}
	if l.random.IntN(3) == 0 {
		l.then = nil
		for named, err := range l.Driver.List(ctx) {
			if err == nil {
				l.then = append(l.then, named)
			}
		}
	}
}

func (l *late) Get(ctx context.Context, name string) (driver.Secret, error) {
	l.mu.Lock()
	old, known := l.before[name]
	known = known && name != "keys" && l.lags()
	l.mu.Unlock()
	switch {
	case known && old == nil:
		return driver.Secret{}, driver.ErrNotFound
	case known:
		return *old, nil
	}
	return l.Driver.Get(ctx, name)
}

func (l *late) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	l.written(ctx, name)
	return l.Driver.Create(ctx, name, p)
}

func (l *late) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	l.written(ctx, name)
	return l.Driver.Update(ctx, name, base, p)
}

func (l *late) Delete(ctx context.Context, name string, base driver.Secret) error {
	l.written(ctx, name)
	return l.Driver.Delete(ctx, name, base)
}

func (l *late) Lookup(ctx context.Context, labels []driver.Label) iter.Seq2[driver.Named, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lags() {
		return l.Driver.Lookup(ctx, labels)
	}
	then := l.then
	return func(yield func(driver.Named, error) bool) {
		for _, named := range then {
			has := func(label driver.Label) bool {
				return slices.ContainsFunc(labels, func(q driver.Label) bool { return q.Key == label.Key && q.Value == label.Value })
			}
			if slices.ContainsFunc(named.Labels, has) && !yield(named, nil) {
				return
			}
		}
	}
}

// sequence runs one random sequence of operations on a driver whose reads and searches lag.
func sequence(t *testing.T, seed uint64, bare bool) *storetest.Crowd {
	var c *storetest.Crowd
	synctest.Test(t, func(t *testing.T) {
		c = &storetest.Crowd{Store: storeOn(t, newLate(seed), nil), Random: rand.New(rand.NewPCG(seed, 1)), Bare: bare}
		c.Run(t, sequenceSteps)
	})
	return c
}

const sequenceSteps = 16

// TestServers checks in 10,000 random sequences of operations that no record mixes secrets of
// several servers with the same users, clients, codes and IDs.
func TestServers(t *testing.T) {
	t.Parallel()
	const n = 10_000
	mixed, refused := 0, 0
	for seed := range uint64(n) {
		c := sequence(t, seed, false)
		refused += c.Refused
		if len(c.Mixed) > 0 {
			if mixed++; mixed <= 3 {
				t.Errorf("sequence %d: %s", seed, c.Mixed[0])
			}
		}
	}
	t.Logf("%d of %d sequences mixed two servers; %d of %d operations were refused", mixed, n, refused, sequenceSteps*n)
}

// TestServers_Check checks that TestServers detects mixed records. Without issuer and
// resource in the tokens, the servers share records.
func TestServers_Check(t *testing.T) {
	t.Parallel()
	mixed := 0
	for seed := range uint64(30) {
		mixed += min(len(sequence(t, seed, true).Mixed), 1)
	}
	if mixed < 15 {
		t.Errorf("%d of 30 sequences without issuers are mixed", mixed)
	}
}
