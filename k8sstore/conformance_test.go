package k8sstore_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// newClient returns a client that uses the given token and does not limit its requests.
func newClient(t testing.TB, url, token string) corev1.SecretsGetter {
	t.Helper()
	client, err := corev1.NewForConfig(&rest.Config{Host: url, BearerToken: token, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// A backend is a server on which each driver has its own client and token. Each token has
// exactly the permissions of Policy.
type backend struct {
	server *fakek8s.Server

	mu       sync.Mutex
	prefixes map[driver.Secrets]string
	tokens   map[driver.Secrets]string
	turned   map[string]bool // tokens whose calls the server rejects
	next     int
}

func newBackend(t testing.TB) *backend {
	b := &backend{server: fakek8s.New(nil), prefixes: map[driver.Secrets]string{}, tokens: map[driver.Secrets]string{}, turned: map[string]bool{}}
	t.Cleanup(b.server.Close)
	b.server.Inject(b.turn)
	return b
}

func (b *backend) open(t testing.TB, prefix string) driver.Secrets {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	token := fmt.Sprintf("token-%d", b.next)
	b.server.Account(token, "default", "app")
	if err := b.server.Bind(token, k8sstore.Policy("default", "tokens")); err != nil {
		t.Fatal(err)
	}
	d, err := k8sstore.NewDriver(newClient(t, b.server.URL, token), "default", prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.prefixes[d], b.tokens[d] = prefix, token
	return d
}

// turnAway makes the server reject the calls of d if turned is true, and accept them
// otherwise.
func (b *backend) turnAway(d driver.Secrets, turned bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turned[b.tokens[d]] = turned
}

// turn returns the response to a call that the server rejects, or nil for any other call. The
// response has no Retry-After header, so the client does not repeat the call.
func (b *backend) turn(q *fakek8s.Request) *fakek8s.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	if token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer "); !b.turned[token] {
		return nil
	}
	status := apierrors.NewTooManyRequests("Too many requests, please try again later.", 0).Status()
	return &fakek8s.Fault{Status: &status}
}

func (b *backend) prefix(d driver.Secrets) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prefixes[d]
}

// driver describes the backend to the conformance suite.
func (b *backend) driver() conformance.Driver {
	return conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			b.mu.Lock()
			b.next++
			prefix := fmt.Sprintf("app%d", b.next)
			b.mu.Unlock()
			return b.open(t, prefix)
		},
		Reopen:  func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)+"-2") },
		Tamper: func(t testing.TB, d driver.Secrets, name string, data []byte) {
			admin := newClient(t, b.server.URL, fakek8s.AdminToken).Secrets("default")
			full := b.prefix(d) + "-" + name
			o, err := admin.Get(t.Context(), full, metav1.GetOptions{})
			if err != nil {
				o, err = admin.Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: full}, Type: "tokenkeep.dev/record"}, metav1.CreateOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
			o.Data = map[string][]byte{"note": data}
			if _, err := admin.Update(t.Context(), o, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
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
	conformance.RunDriver(t, newBackend(t).driver())
}

func TestStoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t).driver().Store(t, nil))
}

func TestStoreConformsWithKeys(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t).driver().Store(t, &tokenstore.Options{
		NameKey:   []byte("a key of names, 16 bytes or more"),
		IndexKeys: [][]byte{[]byte("a key of labels, 16 bytes or more"), []byte("an earlier key of labels")},
	}))
}

func BenchmarkStore(b *testing.B) {
	conformance.Bench(b, newBackend(b).driver().Store(b, nil))
}
