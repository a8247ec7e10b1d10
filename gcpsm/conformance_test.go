package gcpsm_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const (
	project  = "projects/crm-prod"
	location = "projects/crm-prod/locations/europe-west1"
)

func newClient(t testing.TB, server *fakegcp.Server, more ...option.ClientOption) *secretmanager.Client {
	t.Helper()
	client, err := secretmanager.NewClient(t.Context(), append(server.ClientOptions(), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// A backend is a server on which each namespace has its own prefix, and each driver has its own
// client. The clients have exactly the permissions that Permissions returns.
type backend struct {
	server *fakegcp.Server
	parent string
	lag    time.Duration

	mu        sync.Mutex
	prefixes  map[driver.Secrets]string
	throttled map[string]bool // by prefix
	next      int
}

func newBackend(t testing.TB, parent string, server *fakegcp.Options) *backend {
	b := &backend{server: fakegcp.New(server), parent: parent, prefixes: map[driver.Secrets]string{}, throttled: map[string]bool{}}
	t.Cleanup(b.server.Close)
	if server != nil {
		b.lag = max(server.Lag.Alias, server.Lag.Metadata, server.Lag.List)
	}
	b.server.Deny(unneeded()...)
	return b
}

// throttle returns an interceptor that rejects calls while the prefix is throttled.
func (b *backend) throttle(prefix string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		b.mu.Lock()
		away := b.throttled[prefix]
		b.mu.Unlock()
		if away {
			return status.Error(codes.ResourceExhausted, "Quota exceeded")
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
}

// turnAway throttles the calls of d if away is true, and otherwise ends the throttling.
func (b *backend) turnAway(d driver.Secrets, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.throttled[b.prefixes[d]] = away
}

// unneeded returns the permissions of Secret Manager that Permissions does not return.
func unneeded() []string {
	all := []string{
		"secretmanager.secrets.create", "secretmanager.secrets.delete", "secretmanager.secrets.get",
		"secretmanager.secrets.list", "secretmanager.secrets.update", "secretmanager.versions.access",
		"secretmanager.versions.add", "secretmanager.versions.destroy", "secretmanager.versions.disable",
		"secretmanager.versions.enable", "secretmanager.versions.get", "secretmanager.versions.list",
	}
	return slices.DeleteFunc(all, func(p string) bool { return slices.Contains(gcpsm.Permissions(), p) })
}

func (b *backend) open(t testing.TB, prefix string) driver.Secrets {
	t.Helper()
	d, err := gcpsm.NewDriver(newClient(t, b.server, option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(b.throttle(prefix)))), b.parent, prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prefixes[d] = prefix
	return d
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
			prefix := fmt.Sprintf("app%d", b.next)
			b.mu.Unlock()
			return b.open(t, prefix)
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			return b.open(t, b.prefix(d)+"-2")
		},
		Tamper: func(t testing.TB, d driver.Secrets, name string, data []byte) {
			edit(t, b.server, b.parent+"/secrets/"+b.prefix(d)+"-"+name, data)
		},
		Refuse: func(t testing.TB, d driver.Secrets, name string) {
			path := b.parent + "/secrets/" + b.prefix(d) + "-" + name
			turn(t, b.server, path, secretmanagerpb.SecretVersion_DISABLED, len(b.server.Versions(path)))
		},
		Throttle: func(_ testing.TB, d driver.Secrets) func() {
			b.turnAway(d, true)
			return func() { b.turnAway(d, false) }
		},
		Settle: func(testing.TB, driver.Secrets) { b.server.Advance(b.lag) },
		Calls:  func() int64 { return int64(len(b.server.Requests())) },
	}
}

// edit adds a version to a secret and moves the alias to that version, as an operator does.
func edit(t testing.TB, server *fakegcp.Server, path string, data []byte) {
	t.Helper()
	v, err := server.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{
		Parent: path, Payload: &secretmanagerpb.SecretPayload{Data: data},
	})
	if err != nil {
		t.Fatal(err)
	}
	var number int64
	if _, err := fmt.Sscan(v.GetName()[strings.LastIndex(v.GetName(), "/")+1:], &number); err != nil {
		t.Fatal(err)
	}
	point(t, server, path, number)
}

func point(t testing.TB, server *fakegcp.Server, path string, number int64) {
	t.Helper()
	m := server.Secret(path)
	m.VersionAliases["current"] = number
	change(t, server, m)
}

// change stores the labels, annotations and aliases of m in the secret, as an operator does.
func change(t testing.TB, server *fakegcp.Server, m *secretmanagerpb.Secret) {
	t.Helper()
	_, err := server.UpdateSecret(t.Context(), &secretmanagerpb.UpdateSecretRequest{
		Secret: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels", "annotations", "version_aliases"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fast returns a clock on which an hour passes within the given real time, so that tests can wait
// for the end of a lag.
func fast(hour time.Duration) func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(time.Since(start) * (time.Hour / hour)) }
}

// lagging returns the options of a server whose reads lag by up to an hour on the clock that fast
// returns. The lag changes from read to read.
func lagging(hour time.Duration) *fakegcp.Options {
	lag := fakegcp.All(time.Hour)
	lag.Uneven = true
	return &fakegcp.Options{Lag: lag, Now: fast(hour)}
}

func TestDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(t, project, nil).driver())
}

func TestDriverConformsWhileReadsLag(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(t, project, lagging(100*time.Millisecond)).driver())
}

func TestStoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t, project, nil).driver().Store(t, nil))
}

func TestStoreConformsWhileReadsLag(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t, project, lagging(100*time.Millisecond)).driver().Store(t, nil))
}

func TestStoreConformsWithKeys(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(t, location, nil).driver().Store(t, &tokenstore.Options{
		NameKey:   []byte("a key of names, 16 bytes or more"),
		IndexKeys: [][]byte{[]byte("a key of labels, 16 bytes or more"), []byte("an earlier key of labels")},
	}))
}

func BenchmarkStore(b *testing.B) {
	conformance.Bench(b, newBackend(b, project, nil).driver().Store(b, nil))
}
