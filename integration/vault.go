package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	startTimeout = 30 * time.Second // from the start of the program to its being ready
	stopTimeout  = 10 * time.Second // from the end of its input to its end
	callTimeout  = 30 * time.Second // of one call that prepares a test or cleans up after it
)

// A Vault is a running server with a KV version 2 secrets engine.
type Vault struct {
	Addr      string // "http://127.0.0.1:…"
	RootToken string // may do everything
	Mount     string // of the KV engine, without a "/" at the end

	// UnsealKey unseals the server. It is empty if the server is not the test's
	// own; such a server is not to be sealed.
	UnsealKey string
}

// StartVault returns a server of the test's own, which is stopped when the test
// and its subtests are over. If TOKENKEEP_VAULT_ADDR is set, it returns the
// server that has that address: others may be using it.
func StartVault(t testing.TB) *Vault {
	t.Helper()
	if addr := os.Getenv("TOKENKEEP_VAULT_ADDR"); addr != "" {
		token := os.Getenv(api.EnvVaultToken)
		if token == "" {
			t.Fatalf("TOKENKEEP_VAULT_ADDR is set, and %s is not", api.EnvVaultToken)
		}
		return &Vault{
			Addr:      strings.TrimSuffix(addr, "/"),
			RootToken: token,
			Mount:     strings.Trim(cmp.Or(os.Getenv("TOKENKEEP_VAULT_MOUNT"), "secret"), "/"),
		}
	}

	v := &Vault{RootToken: "root-" + rand.Text(), Mount: "secret"}
	keyFile := filepath.Join(t.TempDir(), "unseal-key")
	cmd := exec.Command(Vaultdev(t), "-stdin", "-mount", v.Mount, "-unseal-key-file", keyFile)
	cmd.Env = append(withoutVault(os.Environ()), "VAULT_DEV_ROOT_TOKEN_ID="+v.RootToken)
	v.Addr = start(t, cmd)
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	v.UnsealKey = string(bytes.TrimSpace(key))
	return v
}

// withoutVault returns the environment without what is meant for Vault's
// programs: a test server is the same on every machine.
func withoutVault(environ []string) []string {
	return slices.DeleteFunc(environ, func(s string) bool { return strings.HasPrefix(s, "VAULT_") })
}

// start starts vaultdev and returns its address. The program is stopped when the
// test is over. It sees the end of its input also if this process is killed.
func start(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer // not to be read before exited is closed
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	first := make(chan string, 1)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		output := bufio.NewReader(stdout)
		line, _ := output.ReadString('\n')
		first <- line
		_, _ = io.Copy(io.Discard, output)
		_ = cmd.Wait() // whoever waits for exited looks at cmd.ProcessState
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		timeout := time.NewTimer(stopTimeout)
		defer timeout.Stop()
		select {
		case <-exited:
		case <-timeout.C:
			_ = cmd.Process.Kill()
			<-exited
			t.Errorf("vaultdev did not stop when its input was closed")
		}
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("vaultdev:\n%s", stderr.Bytes())
		}
	})

	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case line := <-first:
		addr, ok := strings.CutPrefix(line, "listening ")
		if !ok {
			t.Fatalf("vaultdev printed %q, not where it listens", line)
		}
		return strings.TrimSpace(addr)
	case <-timeout.C:
		t.Fatalf("vaultdev was not ready after %v", startTimeout)
	}
	return ""
}

// own reports whether the server is the test's own, so that nothing needs to be
// cleaned up.
func (v *Vault) own() bool { return v.UnsealKey != "" }

// Client returns a client with the given token, which may be empty. It is
// configured as a user's is, by the environment too unless the server is the
// test's own.
func (v *Vault) Client(t testing.TB, token string) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	if config.Error != nil {
		t.Fatal(config.Error)
	}
	config.Address = v.Addr
	config.AgentAddress = ""
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(token)
	if v.own() {
		client.ClearNamespace()
	}
	t.Cleanup(config.HttpClient.CloseIdleConnections)
	return client
}

// Prefix returns a path below the mount that nothing else uses, without a "/" at
// either end. What is there when the test is over is removed.
func (v *Vault) Prefix(t testing.TB) string {
	t.Helper()
	prefix := unique()
	if !v.own() {
		client := v.Client(t, v.RootToken)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			if err := v.remove(ctx, client, prefix+"/"); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
	return prefix
}

// remove removes all secrets in a folder and in those within.
func (v *Vault) remove(ctx context.Context, client *api.Client, folder string) error {
	list, err := client.Logical().ListWithContext(ctx, v.Mount+"/metadata/"+folder)
	if err != nil || list == nil {
		return err
	}
	names, _ := list.Data["keys"].([]any)
	for _, n := range names {
		name := folder + fmt.Sprint(n)
		if strings.HasSuffix(name, "/") {
			err = v.remove(ctx, client, name)
		} else {
			_, err = client.Logical().DeleteWithContext(ctx, v.Mount+"/metadata/"+name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Policy stores a policy and returns its name.
func (v *Vault) Policy(t testing.TB, hcl string) string {
	t.Helper()
	name := unique()
	v.set(t, "sys/policies/acl/"+name, map[string]any{"policy": hcl})
	return name
}

// Token returns a token that may do what the policy says, and with itself what
// Vault's policy "default" says. It expires after ttl, or after the server's
// default of weeks if that is 0. Vault counts in whole seconds.
func (v *Vault) Token(t testing.TB, hcl string, ttl time.Duration) string {
	t.Helper()
	policy := v.Policy(t, hcl)
	data := map[string]any{"policies": []string{policy}, "no_parent": true}
	if ttl > 0 {
		data["ttl"] = ttl.String()
	}
	secret := v.write(t, "auth/token/create", data)
	if !v.own() {
		accessor := secret.Auth.Accessor
		v.cleanUp(t, "auth/token/revoke-accessor", func(ctx context.Context, client *api.Client) error {
			err := client.Auth().Token().RevokeAccessorWithContext(ctx, accessor)
			if answer := (*api.ResponseError)(nil); errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest {
				return nil // it has expired, or the test has revoked it
			}
			return err
		})
	}
	return secret.Auth.ClientToken
}

// An AppRole is what a program logs in with.
type AppRole struct {
	Mount            string // of the auth method
	RoleID, SecretID string
}

// AppRole returns a role whose tokens may do what the policy says and expire
// after ttl, or after the server's default if that is 0.
func (v *Vault) AppRole(t testing.TB, hcl string, ttl time.Duration) AppRole {
	t.Helper()
	role := AppRole{Mount: "approle"}
	if !v.own() {
		role.Mount = unique()
		v.set(t, "sys/auth/"+role.Mount, map[string]any{"type": "approle"})
	}
	path := "auth/" + role.Mount + "/role/" + unique()
	data := map[string]any{"token_policies": []string{v.Policy(t, hcl)}}
	if ttl > 0 {
		data["token_ttl"] = ttl.String()
	}
	v.write(t, path, data)
	id, err := v.Client(t, v.RootToken).Logical().ReadWithContext(t.Context(), path+"/role-id")
	if err != nil {
		t.Fatal(err)
	}
	role.RoleID = fmt.Sprint(id.Data["role_id"])
	role.SecretID = fmt.Sprint(v.write(t, path+"/secret-id", nil).Data["secret_id"])
	return role
}

// Revoke revokes a token.
func (v *Vault) Revoke(t testing.TB, token string) {
	t.Helper()
	v.write(t, "auth/token/revoke", map[string]any{"token": token})
}

// Seal seals the server. It answers nothing then until Unseal.
func (v *Vault) Seal(t testing.TB) {
	t.Helper()
	if !v.own() {
		t.Skip("the server is not the test's own")
	}
	if err := v.Client(t, v.RootToken).Sys().SealWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Unseal unseals the server.
func (v *Vault) Unseal(t testing.TB) {
	t.Helper()
	client := v.Client(t, v.RootToken)
	status, err := client.Sys().UnsealWithContext(t.Context(), v.UnsealKey)
	if err != nil {
		t.Fatal(err)
	}
	if status.Sealed {
		t.Fatal("the server is still sealed")
	}
}

// write writes as root.
func (v *Vault) write(t testing.TB, path string, data map[string]any) *api.Secret {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	secret, err := v.Client(t, v.RootToken).Logical().WriteWithContext(ctx, path, data)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// set writes as root what the end of the test deletes.
func (v *Vault) set(t testing.TB, path string, data map[string]any) {
	t.Helper()
	v.write(t, path, data)
	if !v.own() {
		v.cleanUp(t, path, func(ctx context.Context, client *api.Client) error {
			_, err := client.Logical().DeleteWithContext(ctx, path)
			return err
		})
	}
}

// cleanUp makes the end of the test call f.
func (v *Vault) cleanUp(t testing.TB, what string, f func(context.Context, *api.Client) error) {
	client := v.Client(t, v.RootToken)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if err := f(ctx, client); err != nil {
			t.Errorf("clean up: %s: %v", what, err)
		}
	})
}

// unique returns a name that is not in use anywhere, and tells an operator whose
// it is.
func unique() string { return "tokenkeep-test-" + strings.ToLower(rand.Text()) }
