package integration_test

import (
	"os"
	"testing"

	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/internal/languages"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// TestHerdsOfEveryLanguage checks that programs in each SDK's language, which request the same
// token at the same time, get a valid token with only one token request. The Vault token of the
// agents has the policy from vaultstore.Policy.
func TestHerdsOfEveryLanguage(t *testing.T) { // not parallel, because its processes starve other tests
	herds := map[string]languages.Herd{"expired": {}, "code": {Code: true}, "killed": {Kill: true}}
	for _, l := range languages.All() {
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			p := l.Build(t, "..")
			for name, h := range herds {
				if os.Getenv("TOKENKEEP_FULL") == "" && l.Name != "python" && name != "expired" {
					continue // package sdk runs these herds in all languages on other stores
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					v := integration.SharedVault(t)
					integration.VaultBackend.Count(t)
					v.Watch(t)
					prefix := v.Prefix(t)
					p.Herd(t, languages.NewBed(t, "vault:"+v.Mount+"/"+prefix,
						"VAULT_ADDR="+v.Addr, "VAULT_TOKEN="+v.Token(t, vaultstore.Policy(v.Mount, prefix), 0)), h)
				})
			}
		})
	}
}
