package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

// The chain of migrations of cmd/tokenkeep, whose processes are killed on their
// way, leads through this Vault server. With TOKENKEEP_FULL it is 10,000 records
// and 50 kills.
func TestTheChainOfMigrationsLeadsThroughVault(t *testing.T) {
	t.Parallel()
	VaultBackend.Count(t)
	v := SharedVault(t)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=3h", "-v", "-run=^TestChain$", "./cmd/tokenkeep")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "TOKENKEEP_VAULT_ADDR="+v.Addr, "TOKENKEEP_VAULT_MOUNT="+v.Mount, api.EnvVaultToken+"="+v.RootToken)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out), 8<<10))
	}
	for line := range strings.Lines(string(out)) {
		if _, row, ok := strings.Cut(line, ".go:"); ok {
			t.Log(strings.TrimSpace(row))
		}
	}
}
