package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// TestVaultCauses checks that errors name the mistake in the set-up and have the right class.
// All commands with one mistake must end within ten seconds, because the program must not retry
// permanent errors.
func TestVaultCauses(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	e = e.with("VAULT_TOKEN", fakevault.RootToken).with("HOME", t.TempDir())
	server.Mount("", "kv1", fakevault.Config{KV1: true})
	everywhere := strings.Replace(server.URL, "127.0.0.1", "0.0.0.0", 1)
	for _, c := range []struct {
		name string
		e    env
		code int
		text string
	}{
		{"no address", e.with("VAULT_ADDR", ""), 2, "VAULT_ADDR"},
		{"no token", e.with("VAULT_TOKEN", ""), 7, "no token: set VAULT_TOKEN or log in"},
		{"unknown token", e.with("VAULT_TOKEN", "hvs.unknown"), 7, "invalid token"},
		{"unknown mount", e.with(envStore, "vault:nomount/x"), 14, `no KV version 2 engine at "nomount"`},
		{"unknown namespace", e.with("VAULT_NAMESPACE", "nowhere"), 14, `no KV version 2 engine at "secret"`},
		{"version 1", e.with(envStore, "vault:kv1/oauth"), 14, "not a KV version 2 secrets engine"},
		{"https to http", e.with("VAULT_ADDR", strings.Replace(server.URL, "http:", "https:", 1)), 14, "the server speaks http,"},
		{"http over a network", e.with("VAULT_ADDR", everywhere), 2, "insecure=true"},
		{"insecure, but not meant", e.with("VAULT_ADDR", everywhere).with(envStore, "vault:secret/oauth?insecure=false"), 2, "insecure=true"},
		{"insecure of nothing", e.with(envStore, "vault:secret/oauth?insecure="), 2, "insecure"},
		{"a lag that is none", e.with(envStore, "vault:secret/oauth?list-lag=soon"), 2, "list-lag"},
		{"a lag below zero", e.with(envStore, "vault:secret/oauth?read-lag=-5s"), 2, "read-lag"},
		{"data in the path", e.with(envStore, "vault:secret/data/oauth"), 2, `begins with "data/"`},
		{"metadata in the path", e.with(envStore, "vault:secret/metadata/oauth"), 2, `begins with "metadata/"`},
		{"v1 in the path", e.with(envStore, "vault:v1/secret/data/oauth"), 14, `no KV version 2 engine at "v1"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			for _, args := range [][]string{{"ls"}, {"get", "--user", "ann"}, {"rm", "--all", "--yes"}, {"doctor"}} {
				if text := c.e.fails(t, c.code, "", args...); !strings.Contains(text, c.text) {
					t.Errorf("%v: %s", args, text)
				}
			}
			if text := c.e.fails(t, c.code, `{"user_name":"ann","access_token":"a"}`, "save"); !strings.Contains(text, c.text) {
				t.Errorf("save: %s", text)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("that took %v", took)
			}
		})
	}
	t.Run("insecure", func(t *testing.T) {
		t.Parallel()
		e := e.with("VAULT_ADDR", everywhere).with(envStore, "vault:secret/insecure?insecure=true&list-lag=5s&read-lag=1s")
		e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
	})
}

func TestVaultSealed(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	server.Seal(true)
	if text := e.fails(t, 8, "", "ls"); !strings.Contains(text, "Vault is sealed") {
		t.Errorf("message: %s", text)
	}
	if n := len(server.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestVaultExpires checks that doctor reports a record that Vault will delete automatically.
func TestVaultExpires(t *testing.T) {
	t.Parallel()
	e, server := vaultEnv(t)
	server.Mount("", "secret", fakevault.Config{DeleteVersionAfter: 24 * time.Hour})
	e.ok(t, `{"user_name":"ann","access_token":"a"}`, "save")
	if r := e.tk(t, "", "doctor"); r.code != 13 || !strings.Contains(r.out, "secret-expires") || !strings.Contains(r.out, "delete_version_after") {
		t.Errorf("exit code %d\n%s", r.code, r.out)
	}
}
