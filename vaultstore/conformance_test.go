package vaultstore_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// A backend is a server on which each driver has its own client and token. The token has the
// capabilities that Policy returns, except capabilities that Refuse has denied.
type backend struct {
	server *fakevault.Server
	opts   *vaultstore.Options

	mu        sync.Mutex
	prefixes  map[driver.Secrets]string
	denied    map[string]string // additional rules by prefix
	throttled map[string]bool   // by prefix
	next      int
}

func newBackend(t testing.TB, server *fakevault.Options, opts *vaultstore.Options) *backend {
	b := &backend{server: fakevault.New(server), opts: opts, prefixes: map[driver.Secrets]string{}, denied: map[string]string{}, throttled: map[string]bool{}}
	t.Cleanup(b.server.Close)
	b.server.Inject(b.throttle)
	return b
}

// throttle returns the response to a request about a throttled prefix, or nil for any other
// request.
func (b *backend) throttle(r *fakevault.Request) *fakevault.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	for prefix, away := range b.throttled {
		if away && strings.Contains(r.Path, "/"+prefix+"/") {
			return &fakevault.Fault{Status: 429, Errors: []string{fmt.Sprintf("request path %q: rate limit quota exceeded", r.Path)}}
		}
	}
	return nil
}

// turnAway makes the server reject requests about the prefix of d if away is true, and accept
// these requests otherwise.
func (b *backend) turnAway(d driver.Secrets, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.throttled[b.prefixes[d]] = away
}

func (b *backend) open(t testing.TB, prefix string) driver.Secrets {
	t.Helper()
	b.grant(t, prefix)
	d, err := vaultstore.NewDriver(newClient(t, b.server.URL, b.server.Token("", 0, prefix)), "secret", prefix, b.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prefixes[d] = prefix
	return d
}

// grant sets the policy of a prefix to the result of Policy and the rules in denied.
func (b *backend) grant(t testing.TB, prefix string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.server.Policy("", prefix, vaultstore.Policy("secret", prefix)+b.denied[prefix]); err != nil {
		t.Fatal(err)
	}
}

func (b *backend) prefix(d driver.Secrets) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prefixes[d]
}

func (b *backend) driver() conformance.Driver {
	return conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			b.mu.Lock()
			b.next++
			prefix := fmt.Sprintf("oauth/app%d", b.next)
			b.mu.Unlock()
			return b.open(t, prefix)
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			return b.open(t, b.prefix(d)+"-2")
		},
		Tamper: func(t testing.TB, d driver.Secrets, name string, data []byte) {
			_, err := newClient(t, b.server.URL, fakevault.RootToken).Logical().WriteWithContext(t.Context(),
				"secret/data/"+b.prefix(d)+"/tokens/"+name, map[string]any{"data": map[string]any{"note": string(data)}})
			if err != nil {
				t.Fatal(err)
			}
		},
		Refuse: func(t testing.TB, d driver.Secrets, name string) {
			prefix := b.prefix(d)
			b.mu.Lock()
			b.denied[prefix] += "path \"secret/data/" + prefix + "/tokens/" + name + "\" {\n  capabilities = [\"deny\"]\n}\n"
			b.mu.Unlock()
			b.grant(t, prefix)
		},
		Throttle: func(_ testing.TB, d driver.Secrets) func() {
			b.turnAway(d, true)
			return func() { b.turnAway(d, false) }
		},
		Calls: func() int64 { return int64(len(b.server.Requests())) },
	}
}

func TestDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(t, nil, nil).driver())
}

func TestDriverConformsOnOpenBao(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(t, &fakevault.Options{OpenBao: true}, nil).driver())
}

func TestStoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t, nil, nil).driver().Store(t, nil))
}

func TestStoreConformsWithKeys(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t, nil, nil).driver().Store(t, &tokenstore.Options{
		NameKey:   []byte("a key of names, 16 bytes or more"),
		IndexKeys: [][]byte{[]byte("a key of labels, 16 bytes or more"), []byte("an earlier key of labels")},
	}))
}

// TestDriverConformsOnStandbys checks that a driver conforms on standby nodes that lag, and
// that forward requests for the active node.
func TestDriverConformsOnStandbys(t *testing.T) {
	t.Parallel()
	const lag = time.Minute
	b := newBackend(t, &fakevault.Options{Lag: lag, Forward: fakevault.ForwardDone}, &vaultstore.Options{ListLag: lag, ReadLag: lag})
	d := b.driver()
	d.Settle = func(testing.TB, driver.Secrets) { b.server.Advance(lag) }
	conformance.RunDriver(t, d)
}

func BenchmarkStore(b *testing.B) {
	conformance.Bench(b, newBackend(b, nil, nil).driver().Store(b, nil))
}
