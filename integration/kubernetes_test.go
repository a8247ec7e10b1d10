package integration_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A k8sBackend opens drivers on a real API server. Each driver has its own service account
// with exactly the permissions of k8sstore.Policy. Each Open creates a new namespace.
type k8sBackend struct {
	*integration.Kubernetes

	mu     sync.Mutex
	places map[driver.Secrets][2]string // namespace and prefix
}

func newK8sBackend(t testing.TB) *k8sBackend {
	return &k8sBackend{Kubernetes: integration.SharedKubernetes(t), places: map[driver.Secrets][2]string{}}
}

func (b *k8sBackend) open(t testing.TB, namespace, prefix string) driver.Secrets {
	t.Helper()
	client := b.Client(t, b.Account(t, namespace, k8sstore.Policy(namespace, "tokens")))
	d, err := k8sstore.NewDriver(client, namespace, prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.places[d] = [2]string{namespace, prefix}
	return d
}

func (b *k8sBackend) place(d driver.Secrets) (namespace, prefix string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.places[d][0], b.places[d][1]
}

func (b *k8sBackend) driver() conformance.Driver {
	return conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			integration.KubernetesBackend.Count(t)
			b.Watch(t)
			return b.open(t, b.Namespace(t), "crm")
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets {
			namespace, prefix := b.place(d)
			return b.open(t, namespace, prefix)
		},
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			namespace, prefix := b.place(d)
			return b.open(t, namespace, prefix+"-2")
		},
		Tamper: func(t testing.TB, d driver.Secrets, name string, data []byte) {
			namespace, prefix := b.place(d)
			secrets := b.Client(t, "").Secrets(namespace)
			full := prefix + "-" + name
			o, err := secrets.Get(t.Context(), full, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				o, err = secrets.Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: full}, Type: "tokenkeep.dev/record"}, metav1.CreateOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
			o.Data = map[string][]byte{"note": data}
			if _, err := secrets.Update(t.Context(), o, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestK8sstoreDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newK8sBackend(t).driver())
}

func TestK8sstoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newK8sBackend(t).driver().Store(t, nil))
}

// TestKubernetesRules checks that a real server follows fakek8s.Rules.
func TestKubernetesRules(t *testing.T) {
	t.Parallel()
	k := integration.SharedKubernetes(t)
	client, err := rest.HTTPClientFor(k.Config(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range fakek8s.Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			t.Parallel()
			integration.KubernetesBackend.Count(t)
			url := k.URL() + "/api/v1/namespaces/" + k.Namespace(t)
			for i, q := range rule.Steps {
				r, err := q.Request(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if err != nil || answer.StatusCode != q.Code || !strings.Contains(string(text), q.Want) {
					t.Errorf("step %d, %s %s: %d %s, error %v; want %d with %q", i, q.Method, q.Path, answer.StatusCode, text, err, q.Code, q.Want)
				}
			}
		})
	}
}

// TestK8sstoreRole checks that the Role of a service account allows all calls of the driver in
// one namespace, and none in another. The test also checks the error for an unknown token.
func TestK8sstoreRole(t *testing.T) {
	t.Parallel()
	integration.KubernetesBackend.Count(t)
	k := integration.SharedKubernetes(t)
	mine, other := k.Namespace(t), k.Namespace(t)
	token := k.Account(t, mine, k8sstore.Policy(mine, "tokens"))
	for namespace, want := range map[string]error{mine: nil, other: driver.ErrDenied} {
		d, err := k8sstore.NewDriver(k.Client(t, token), namespace, "crm", nil)
		if err != nil {
			t.Fatal(err)
		}
		for p, err := range d.(driver.Inspector).Probe(t.Context()) {
			if err != nil || !errors.Is(p.Err, want) {
				t.Errorf("%s: %v, %v, want %v", p.Call, p.Err, err, want)
			}
		}
	}
	d, err := k8sstore.NewDriver(k.Client(t, "unknown"), mine, "crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(t.Context(), "u1"); !errors.Is(err, driver.ErrCredentials) {
		t.Errorf("Get with an unknown token: %v", err)
	}
}

// TestFiftySaversOnKubernetes checks that no field is lost if fifty independent stores save a new
// user concurrently, and then change the record concurrently.
func TestFiftySaversOnKubernetes(t *testing.T) { // not parallel, because its processes starve other tests
	integration.KubernetesBackend.Count(t)
	k := integration.SharedKubernetes(t)
	namespace := k.Namespace(t)
	token := k.Account(t, namespace, k8sstore.Policy(namespace, "tokens"))
	const savers = 50
	stores := make([]*tokenstore.Store, savers)
	for i := range stores {
		var err error
		if stores[i], err = k8sstore.New(k.Client(t, token), namespace, "crm", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, begin := range []string{"new", "changed"} {
		var wg sync.WaitGroup
		for i, s := range stores {
			wg.Go(func() {
				token := tokenstore.Token{UserName: "ann", ClientID: "app", RefreshToken: "refresh"}
				switch value := begin + "-" + fmt.Sprint(i%5); i % 5 {
				case 0:
					token.AccessToken = tokenstore.Secret(value)
				case 1:
					token.ClientSecret = tokenstore.Secret(value)
				case 2:
					token.RedirectURL = "https://example.com/" + value
				case 3:
					token.APIDomain = "https://" + value
				case 4:
					token.GrantToken = tokenstore.Secret(value)
				}
				if _, err := s.SaveToken(t.Context(), token); err != nil {
					t.Errorf("saver %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		all, err := stores[0].GetTokens(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%d records, want 1: %v", len(all), err)
		}
		want := tokenstore.Token{
			ID: all[0].ID, UserName: "ann", ClientID: "app", RefreshToken: "refresh", AccessToken: tokenstore.Secret(begin + "-0"),
			ClientSecret: tokenstore.Secret(begin + "-1"), RedirectURL: "https://example.com/" + begin + "-2", APIDomain: "https://" + begin + "-3",
			GrantToken: tokenstore.Secret(begin + "-4"),
		}
		if all[0] != want {
			t.Errorf("a field that was saved is lost")
		}
	}
}

// TestKubernetesListsGoOnAfterACompaction checks that a list continues if etcd has removed
// the state of the list between two pages.
func TestKubernetesListsGoOnAfterACompaction(t *testing.T) {
	t.Parallel()
	integration.KubernetesBackend.Count(t)
	k := integration.StartKubernetes(t, time.Second)
	namespace := k.Namespace(t)
	d, err := k8sstore.NewDriver(k.Client(t, k.Account(t, namespace, k8sstore.Policy(namespace, "tokens"))), namespace, "crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	const records = 1100
	create := func(name string) {
		if _, err := d.Create(t.Context(), name, driver.Payload{Data: []byte("x")}); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for part := range 20 {
		wg.Go(func() {
			for i := part; i < records; i += 20 {
				create(fmt.Sprintf("u%05d", i))
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	admin, compacted := k.Client(t, "").Secrets(namespace), false
	first, err := admin.List(t.Context(), metav1.ListOptions{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for n, err := range d.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, n.Name); len(seen) != 300 {
			continue
		}
		create("a00001") // before the position of the list
		create("z00001") // after the position of the list
		if gone, err := d.Get(t.Context(), "u01050"); err != nil || d.Delete(t.Context(), "u01050", gone) != nil {
			t.Fatal("a record cannot be deleted")
		}
		integration.Eventually(t, func() error {
			_, err := admin.List(t.Context(), metav1.ListOptions{Limit: 10, Continue: first.Continue})
			if compacted = apierrors.IsResourceExpired(err); !compacted {
				return fmt.Errorf("etcd has not forgotten: %w", err)
			}
			return nil
		})
	}
	if !compacted {
		t.Error("the list ended before the compaction")
	}
	if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
		t.Error("a name is listed twice, or out of order")
	}
	for i := range records {
		if name := fmt.Sprintf("u%05d", i); i != 1050 && !slices.Contains(seen, name) {
			t.Errorf("%s is missing", name)
		}
	}
}
