package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

// TestMigrationChainVault checks that TestChain of package cli passes on the shared Vault
// server. TestChain kills the processes that migrate. With TOKENKEEP_FULL, the chain has 10,000
// records and 50 kills.
func TestMigrationChainVault(t *testing.T) {
	t.Parallel()
	VaultBackend.Count(t)
	v := SharedVault(t)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=3h", "-v", "-run=^TestChain$", "./cli")
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
