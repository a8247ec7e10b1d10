package integration_test

import (
	"sync"
	"testing"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// A vaultBackend opens drivers on a real server. The token of each driver has exactly the
// capabilities of vaultstore.Policy.
type vaultBackend struct {
	*integration.Vault
	counts *integration.Backend

	mu       sync.Mutex
	prefixes map[driver.Secrets]string
}

func (b *vaultBackend) open(t testing.TB, prefix string) driver.Secrets {
	t.Helper()
	client := b.Client(t, b.Token(t, vaultstore.Policy(b.Mount, prefix), 0))
	d, err := vaultstore.NewDriver(client, b.Mount, prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prefixes[d] = prefix
	return d
}

func (b *vaultBackend) prefix(d driver.Secrets) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prefixes[d]
}

func (b *vaultBackend) driver() conformance.Driver {
	return conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			b.counts.Count(t)
			b.Watch(t)
			return b.open(t, b.Prefix(t)+"/a")
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.prefix(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			return b.open(t, b.prefix(d)+"-2")
		},
		Tamper: func(t testing.TB, d driver.Secrets, name string, data []byte) {
			_, err := b.Client(t, b.RootToken).Logical().WriteWithContext(t.Context(),
				b.Mount+"/data/"+b.prefix(d)+"/tokens/"+name, map[string]any{"data": map[string]any{"note": string(data)}})
			if err != nil {
				t.Fatal(err)
			}
		},
	}
}

func newVaultBackend(v *integration.Vault, counts *integration.Backend) *vaultBackend {
	return &vaultBackend{Vault: v, counts: counts, prefixes: map[driver.Secrets]string{}}
}

func TestVaultstoreDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newVaultBackend(integration.SharedVault(t), integration.VaultBackend).driver())
}

func TestVaultstoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newVaultBackend(integration.SharedVault(t), integration.VaultBackend).driver().Store(t, nil))
}

func TestOpenBaoDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newVaultBackend(integration.SharedOpenBao(t), integration.OpenBaoBackend).driver())
}

func TestOpenBaoConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newVaultBackend(integration.SharedOpenBao(t), integration.OpenBaoBackend).driver().Store(t, nil))
}
