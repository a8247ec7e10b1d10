package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/examples/internal/readme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

func TestMain(m *testing.M) { readme.Main(m) }

const user = "ann@example.com"

// A machine is the environment of the program: environment variables, and fakes of Vault and
// of Zoho's accounts server.
type machine struct {
	t        *testing.T
	vault    *fakevault.Server
	accounts *zohoaccounts.Server
	env      map[string]string
}

// newMachine returns a machine, with Vault set up according to the README.
func newMachine(t *testing.T) *machine {
	t.Helper()
	v := fakevault.New(nil)
	t.Cleanup(v.Close)
	if err := v.Policy("", "crm", vaultstore.Policy("secret", "oauth/crm")); err != nil {
		t.Fatal(err)
	}
	v.AppRole("", "role", "role-secret", time.Hour, "crm")
	file := filepath.Join(t.TempDir(), "secret-id")
	if err := os.WriteFile(file, []byte("role-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := zohoaccounts.New(nil)
	a.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "client-secret"})
	return &machine{t, v, a, map[string]string{
		"VAULT_ADDR": v.URL, "VAULT_ROLE_ID": "role", "VAULT_SECRET_ID_FILE": file, "ZOHO_DATA_CENTER": "us", "ZOHO_CLIENT_ID": "1000.CLIENT",
	}}
}

func (m *machine) run(input string, args ...string) (string, error) {
	m.t.Helper()
	return m.runWith(m.t.Context(), input, args...)
}

func (m *machine) runWith(ctx context.Context, input string, args ...string) (string, error) {
	m.t.Helper()
	var out bytes.Buffer
	c := &command{in: strings.NewReader(input), out: &out, env: func(key string) string { return m.env[key] }, http: m.accounts.Client()}
	err := c.run(ctx, args)
	return out.String(), err
}

// code returns a one-time code, as Zoho's API console does.
func (m *machine) code() string {
	return m.accounts.Code(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})
}

func (m *machine) twoLeads() {
	m.accounts.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Path == "/crm/v8/Leads" {
			return &zohoaccounts.Fault{Status: 200, Body: `{"data":[{"Last_Name":"Boyle"},{"Last_Name":"Patricia"}]}`}
		}
		return nil
	})
}

// operator simulates the vault commands that the README runs.
func (m *machine) operator(c readme.Call) (string, error) {
	switch args := strings.Join(c.Args, " "); args {
	case "secrets enable -path=secret -version=2 kv", "auth enable approle":
		return "", nil // the fake has this configuration from the start
	case "policy write crm crm.hcl":
		text, err := os.ReadFile(filepath.Join(c.Dir, "crm.hcl"))
		if err != nil {
			return "", err
		}
		return "", m.vault.Policy("", "crm", string(text))
	case "write auth/approle/role/crm token_policies=crm,default token_ttl=20m":
		m.vault.AppRole("", "the-role", "the-secret", 20*time.Minute, "crm")
		return "", nil
	case "read -field=role_id auth/approle/role/crm/role-id":
		return "the-role\n", nil
	case "write -f -field=secret_id auth/approle/role/crm/secret-id":
		return "the-secret\n", nil
	default:
		return "", fmt.Errorf("unexpected arguments %q", c.Args)
	}
}

func TestREADME(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.twoLeads()
	dir, code := t.TempDir(), m.code()
	if err := os.WriteFile(filepath.Join(dir, "crm.hcl"), []byte(vaultstore.Policy("secret", "oauth/crm")), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := func(c readme.Call) (string, error) {
		var out bytes.Buffer
		input := "client-secret\n" + code + "\n" // the input of the user
		err := (&command{in: strings.NewReader(input), out: &out, env: c.Getenv, http: m.accounts.Client()}).run(t.Context(), c.Args)
		return out.String(), err
	}
	build := func(c readme.Call) (string, error) {
		if got := strings.Join(c.Args, " "); got != "build -o vaultcli ./examples/vaultcli" {
			return "", fmt.Errorf("unexpected arguments %q", got)
		}
		return "", nil
	}
	script := strings.Replace(readme.Only(readme.Blocks(t, "README.md"), "sh"), "https://vault.example.com:8200", m.vault.URL, 1)
	out := readme.Run(t, dir, script, map[string]readme.Program{"vault": m.operator, "vaultcli": tool, "go": build}, "HOME="+dir)
	if !strings.Contains(out, user+" is logged in\nBoyle\nPatricia\n") || strings.Contains(out, code) {
		t.Errorf("the blocks print %s", out)
	}
	if n := m.accounts.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); n != 1 {
		t.Errorf("there were %d requests for tokens", n)
	}
	info, err := os.Stat(filepath.Join(dir, ".config", "crm", "secret-id"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the secret: %v, %v", info, err)
	}
}

func TestLoginLeadsAndLogout(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	code := m.code()
	out, err := m.run("client-secret\n"+code+"\n", "login", user)
	if err != nil || !strings.Contains(out, user+" is logged in") || strings.Contains(out, code) {
		t.Fatalf("login printed %q: %v", out, err)
	}

	m.twoLeads()
	if out, err := m.run("", "leads", user); err != nil || out != "Boyle\nPatricia\n" {
		t.Fatalf("leads printed %q: %v", out, err)
	}

	if _, err := m.run("", "logout", user); err != nil {
		t.Fatal(err)
	}
	_, err = m.run("", "leads", user)
	if !errors.Is(err, initializer.ErrReauthRequired) || exitCode(err) != 2 {
		t.Errorf("after the logout: %v", err)
	}
	if n := m.accounts.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); n != 1 {
		t.Errorf("there were %d requests for tokens", n)
	}
}

func TestExitCodeRejectedCode(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, err := m.run("client-secret\n1000.burnt\n", "login", user)
	if exitCode(err) != 2 || strings.Contains(err.Error(), "burnt") || strings.Contains(err.Error(), "client-secret") {
		t.Errorf("the error is %v", err)
	}
}

func TestExitCodeVaultUnavailable(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	// 472 is the status of a disaster recovery secondary. Vault's client retries after 503,
	// which takes time, and does not retry after 472.
	m.vault.Inject(func(*fakevault.Request) *fakevault.Fault { return &fakevault.Fault{Status: 472} })
	if _, err := m.run("", "leads", user); exitCode(err) != 75 {
		t.Errorf("the error is %v", err)
	}
}

func TestOtherArgumentsAreExplained(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, args := range [][]string{nil, {"leads"}, {"login"}, {"login", "x", "y"}, {"show", "x"}, {"help"}} {
		if _, err := m.run("", args...); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestLoginStoreFails checks that login stores the tokens if Vault refuses only the first write.
// If Vault refuses all writes, login must report the error.
func TestLoginStoreFails(t *testing.T) {
	t.Parallel()
	for what, refusals := range map[string]int64{"once": 1, "always": 1 << 30} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			var writes atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m.vault.Inject(func(q *fakevault.Request) *fakevault.Fault {
				if q.Operation != "write" || q.Class != "data" || m.accounts.Count(zohoaccounts.Exchange) == 0 || writes.Add(1) > refusals {
					return nil
				}
				if writes.Load() > 1 {
					cancel() // the user gives up
				}
				return &fakevault.Fault{Status: 403, Errors: []string{"permission denied"}}
			})
			out, err := m.runWith(ctx, "client-secret\n"+m.code()+"\n", "login", user)
			if refusals > 1 {
				if !errors.Is(err, tokenstore.ErrNotPersisted) || strings.Contains(out, "is logged in") {
					t.Errorf("login printed %q: %v", out, err)
				}
				return
			}
			if err != nil || !strings.Contains(out, user+" is logged in") {
				t.Fatalf("login printed %q: %v", out, err)
			}
			if writes.Load() < 2 {
				t.Error("Vault has refused no write")
			}
			m.twoLeads()
			if out, err := m.run("", "leads", user); err != nil || out != "Boyle\nPatricia\n" {
				t.Errorf("leads printed %q: %v", out, err)
			}
			if n := m.accounts.Count(zohoaccounts.Exchange, zohoaccounts.Refresh); n != 1 {
				t.Errorf("there were %d requests for tokens", n)
			}
		})
	}
}
