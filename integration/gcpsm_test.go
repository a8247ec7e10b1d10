package integration_test

import (
	"path"
	"strconv"
	"sync"
	"testing"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

type gcpBackend struct {
	*integration.GCP

	mu       sync.Mutex
	prefixes map[driver.Secrets]string
}

func newGCPBackend(t testing.TB) *gcpBackend {
	return &gcpBackend{GCP: integration.SharedGCP(t), prefixes: map[driver.Secrets]string{}}
}

func (b *gcpBackend) open(t testing.TB, prefix string) driver.Secrets {
	t.Helper()
	d, err := gcpsm.NewDriver(b.Client(t), b.Parent, prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prefixes[d] = prefix
	return d
}

func (b *gcpBackend) prefix(d driver.Secrets) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prefixes[d]
}

func (b *gcpBackend) driver() conformance.Driver {
	d := conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			integration.GCPBackend.Count(t)
			b.Watch(t)
			return b.open(t, b.Prefix(t))
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			return b.open(t, b.prefix(d)+"-2")
		},
		Tamper: b.tamper,
	}
	if !b.Lags() {
		d.Settle = func(testing.TB, driver.Secrets) {}
	}
	return d
}

// tamper adds a version and points the version alias "current" to the new version, as an
// operator might do in Google's console.
func (b *gcpBackend) tamper(t testing.TB, d driver.Secrets, name string, data []byte) {
	t.Helper()
	client, secret := b.Client(t), b.Parent+"/secrets/"+b.prefix(d)+"-"+name
	version, err := client.AddSecretVersion(t.Context(), &secretmanagerpb.AddSecretVersionRequest{
		Parent: secret, Payload: &secretmanagerpb.SecretPayload{Data: data},
	})
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseInt(path.Base(version.GetName()), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.UpdateSecret(t.Context(), &secretmanagerpb.UpdateSecretRequest{
		Secret:     &secretmanagerpb.Secret{Name: secret, VersionAliases: map[string]int64{"current": number}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"version_aliases"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGcpsmDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newGCPBackend(t).driver())
}

func TestGcpsmConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newGCPBackend(t).driver().Store(t, nil))
}
