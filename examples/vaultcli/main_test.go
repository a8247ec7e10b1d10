package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

const user = "ann@example.com:6001"

// A machine is where the program runs.
type machine struct {
	t        *testing.T
	vault    *fakevault.Server
	accounts *zohoaccounts.Server
	env      map[string]string
}

// newMachine sets Vault up as the README says.
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
		"VAULT_ADDR": v.URL, "VAULT_ROLE_ID": "role", "VAULT_SECRET_ID_FILE": file, "ZOHO_DATA_CENTER": "us",
	}}
}

// run runs the program and returns what it prints.
func (m *machine) run(input string, args ...string) (string, error) {
	m.t.Helper()
	var out bytes.Buffer
	c := &command{in: strings.NewReader(input), out: &out, env: func(key string) string { return m.env[key] }, http: m.accounts.Client()}
	err := c.run(m.t.Context(), args)
	return out.String(), err
}

// code is what Zoho's API console issues.
func (m *machine) code() string {
	return m.accounts.Code(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})
}

func TestLoginLeadsAndLogout(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	code := m.code()
	out, err := m.run("1000.CLIENT\nclient-secret\n"+code+"\n", "login")
	if err != nil || !strings.Contains(out, user+" is logged in") || strings.Contains(out, code) {
		t.Fatalf("login printed %q: %v", out, err)
	}

	m.accounts.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Path == "/crm/v8/Leads" {
			return &zohoaccounts.Fault{Status: 200, Body: `{"data":[{"Last_Name":"Boyle"},{"Last_Name":"Patricia"}]}`}
		}
		return nil
	})
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

func TestABurntCodeIsExitCode2(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, err := m.run("1000.CLIENT\nclient-secret\n1000.burnt\n", "login")
	if exitCode(err) != 2 || strings.Contains(err.Error(), "burnt") || strings.Contains(err.Error(), "client-secret") {
		t.Errorf("the error is %v", err)
	}
}

func TestAVaultThatCannotAnswerIsExitCode75(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	// A standby's status: Vault's client does not try again, as it does for 503.
	m.vault.Inject(func(*fakevault.Request) *fakevault.Fault { return &fakevault.Fault{Status: 472} })
	if _, err := m.run("", "leads", user); exitCode(err) != 75 {
		t.Errorf("the error is %v", err)
	}
}

func TestOtherArgumentsAreExplained(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, args := range [][]string{nil, {"leads"}, {"login", "x"}, {"help"}} {
		if _, err := m.run("", args...); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
