package integration

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/testcontainers/testcontainers-go"
	tcvault "github.com/testcontainers/testcontainers-go/modules/vault"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	vaultImage = "hashicorp/vault:1.21.4"
	vaultPort  = "8200/tcp"
)

// A Vault is a running server with a KV version 2 secrets engine.
type Vault struct {
	*Server
	Addr      string // base URL, without a trailing "/"
	RootToken string // token with all permissions
	Mount     string // mount path of the KV engine, without a trailing "/"

	// UnsealKey unseals the server. UnsealKey is empty for a shared server, which tests
	// must not seal.
	UnsealKey string
}

// SharedVault returns the server that the tests share: the server at TOKENKEEP_VAULT_ADDR, or
// a server that is started for all tests. If no server is available, SharedVault skips the
// test or, if TOKENKEEP_REQUIRE names the backend, fails the test.
func SharedVault(t testing.TB) *Vault {
	t.Helper()
	if addr := os.Getenv("TOKENKEEP_VAULT_ADDR"); addr != "" {
		return givenVault(t, strings.TrimSuffix(addr, "/"))
	}
	server := VaultBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		return runVault(ctx, sharedToken(), false)
	})
	server.Watch(t)
	v := &Vault{Server: server, Addr: "http://" + server.Addr, RootToken: sharedToken(), Mount: "secret"}
	v.waitForKV(t)
	return v
}

// sharedToken returns the root token of the shared Vault and OpenBao servers that the tests
// start.
var sharedToken = sync.OnceValue(func() string { return "root-" + rand.Text() })

// givenVault returns the external server at addr, with the token in VAULT_TOKEN.
func givenVault(t testing.TB, addr string) *Vault {
	t.Helper()
	token := os.Getenv(api.EnvVaultToken)
	if token == "" {
		t.Fatalf("TOKENKEEP_VAULT_ADDR is set, and %s is not", api.EnvVaultToken)
	}
	v := &Vault{
		Server:    &Server{what: "server " + addr},
		Addr:      addr,
		RootToken: token,
		Mount:     strings.Trim(cmp.Or(os.Getenv("TOKENKEEP_VAULT_MOUNT"), "secret"), "/"),
	}
	v.Server = VaultBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		version, err := vaultVersion(ctx, addr)
		return (&Server{what: v.what, about: version + ", real"}).orStop(err)
	})
	return v
}

// StartVault starts a server for one test. The server can be sealed and killed, and keeps its
// data when it is started again. The server is stopped when the test and its subtests end. If
// TOKENKEEP_VAULT_ADDR is set, StartVault skips the test.
func StartVault(t testing.TB) *Vault {
	t.Helper()
	if os.Getenv("TOKENKEEP_VAULT_ADDR") != "" {
		VaultBackend.Cannot(t, "the server that TOKENKEEP_VAULT_ADDR names is not the test's own")
	}
	server, err := runVault(t.Context(), "", true)
	VaultBackend.must(t, err)
	VaultBackend.ranOn(server)
	server.cleanUp(t)
	v := &Vault{Server: server, Addr: "http://" + server.Addr, Mount: "secret"}
	initial, err := v.Client(t, "").Sys().InitWithContext(t.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	v.RootToken, v.UnsealKey = initial.RootToken, initial.Keys[0]
	v.Unseal(t)
	v.write(t, "sys/mounts/"+v.Mount, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	v.waitForKV(t)
	return v
}

// Start restarts and unseals the server after Kill.
func (v *Vault) Start(t testing.TB) {
	t.Helper()
	v.Server.Start(t)
	v.Addr = "http://" + v.Server.Addr
	v.Unseal(t)
	v.waitForKV(t)
}

// waitForKV calls Eventually to wait until the KV engine answers. An engine is not ready
// immediately after the engine is mounted, or after the server is unsealed.
func (v *Vault) waitForKV(t testing.TB) {
	t.Helper()
	client := v.Client(t, v.RootToken)
	Eventually(t, func() error {
		_, err := client.Logical().ReadWithContext(t.Context(), v.Mount+"/config")
		return err
	})
}

// runVault starts a server. A durable server keeps its data across restarts and must be
// initialized. For any other server, token is the root token, and a KV engine is mounted at
// "secret".
func runVault(ctx context.Context, token string, durable bool) (*Server, error) {
	engine, err := docker()
	if reason := (*absentError)(nil); errors.As(err, &reason) {
		return vaultProcess(ctx, token, durable, reason.reason)
	} else if err != nil {
		return nil, err
	}
	image, err := engine.choose(ctx, "TOKENKEEP_VAULT_IMAGE", vaultImage, vaultStandIn)
	if err != nil {
		return nil, err
	}
	wanted := []int{http.StatusOK}
	if durable {
		wanted = []int{http.StatusNotImplemented, http.StatusServiceUnavailable} // not initialized, sealed
	}
	ready := wait.ForHTTP("/v1/sys/health").WithPort(vaultPort).WithStartupTimeout(startTimeout).
		WithStatusCodeMatcher(func(status int) bool { return slices.Contains(wanted, status) })
	run, addr, err := engine.run(ctx, image, vaultPort, func(options ...testcontainers.ContainerCustomizer) (testcontainers.Container, error) {
		options = append(options, testcontainers.WithWaitStrategy(ready))
		if durable {
			options = append(options, durableVault(image))
		} else {
			options = append(options, tcvault.WithToken(token))
		}
		c, err := tcvault.Run(ctx, image.ref, options...)
		if c == nil {
			return nil, err
		}
		return c.Container, err
	})
	if err != nil {
		return nil, err
	}
	version, err := vaultVersion(ctx, "http://"+addr)
	return (&Server{Addr: addr, what: run.what(), about: version + ", " + image.about, run: run}).orStop(err)
}

func vaultStandIn(ctx context.Context, e *engine) (image, error) {
	program, err := vaultdev()
	if err != nil {
		return image{}, err
	}
	i := image{about: "Vault's own core, built here", standIn: true}
	i.ref, err = e.build(ctx, "tokenkeep-standin/vault", []file{{"vaultdev", program}},
		"EXPOSE "+vaultPort, `ENTRYPOINT ["/vaultdev", "-addr", "0.0.0.0:8200"]`)
	return i, err
}

// durableVault returns an option for a container of the image i. With this option, the container
// starts a server that keeps its data, instead of a development server. The data is in integrated
// storage, because Vault's storage "file" does not survive a crash: see vaultdev.
func durableVault(i image) testcontainers.CustomizeRequestOption {
	return func(r *testcontainers.GenericContainerRequest) error {
		if i.standIn {
			r.Cmd = []string{"-storage", "/vault"}
			return nil
		}
		r.Cmd = []string{"server"}
		r.Env["VAULT_LOCAL_CONFIG"] = `{"storage": {"raft": {"path": "/vault/file", "node_id": "one", "performance_multiplier": "1"}},
			"cluster_addr": "https://127.0.0.1:8201", "disable_mlock": true,
			"listener": [{"tcp": {"address": "0.0.0.0:8200", "tls_disable": true}}], "api_addr": "http://127.0.0.1:8200"}`
		return nil
	}
}

func vaultProcess(ctx context.Context, token string, durable bool, reason string) (*Server, error) {
	program, err := vaultdev()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "tokenkeep-vault-")
	if err != nil {
		return nil, err
	}
	args := []string{"-stdin"}
	if durable {
		args = append(args, "-storage", filepath.Join(scratch, "storage"))
	}
	run, addr, err := startProcess(ctx, scratch, func() *exec.Cmd {
		cmd := exec.Command(program, args...)
		cmd.Env = append(withoutVault(os.Environ()), "VAULT_DEV_ROOT_TOKEN_ID="+token)
		return cmd
	})
	if err != nil {
		return nil, err
	}
	version, err := vaultVersion(ctx, "http://"+addr)
	about := version + ", stand-in: Vault's own core, built here (" + reason + ")"
	return (&Server{Addr: addr, what: "process vaultdev", about: about, run: run}).orStop(err)
}

func vaultVersion(ctx context.Context, url string) (string, error) {
	health, err := healthOf(ctx, url)
	if err != nil {
		return "", err
	}
	return "Vault " + health.Version, nil
}

func healthOf(ctx context.Context, url string) (*api.HealthResponse, error) {
	config := api.DefaultConfig()
	config.Address, config.AgentAddress = url, ""
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	return client.Sys().HealthWithContext(ctx)
}

// withoutVault removes the variables of Vault's programs from environ, so that test servers are
// the same on every machine.
func withoutVault(environ []string) []string {
	return slices.DeleteFunc(environ, func(s string) bool { return strings.HasPrefix(s, "VAULT_") })
}

// Client returns a client with the given token, which may be empty. The environment configures
// the client, except for the address and the token. The namespace from the environment applies
// only if the tests did not start the server.
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
	// By default, the client retries for seconds. If the server has crashed, the client
	// must not retry, so that the suite ends soon.
	client.SetCheckRetry(func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if v.dead() {
			return false, err
		}
		return api.DefaultRetryPolicy(ctx, resp, err)
	})
	t.Cleanup(config.HttpClient.CloseIdleConnections)
	return client
}

// Prefix returns a unique path below the mount, without a "/" at either end. On a server that the
// tests did not start, the secrets under the path are removed when the test ends.
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

// Token returns a token with the policy hcl and Vault's policy "default". The token expires after
// ttl, or after the server's default TTL if ttl is 0.
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
				return nil // the token has expired, or the test has revoked it
			}
			return err
		})
	}
	return secret.Auth.ClientToken
}

// An AppRole holds the credentials with which a program logs in.
type AppRole struct {
	Mount            string // mount path of the auth method
	RoleID, SecretID string
}

// AppRole returns a role whose tokens have the policy hcl and expire after ttl,
// or after the server's default if ttl is 0.
func (v *Vault) AppRole(t testing.TB, hcl string, ttl time.Duration) AppRole {
	t.Helper()
	role := AppRole{Mount: unique()}
	v.set(t, "sys/auth/"+role.Mount, map[string]any{"type": "approle"})
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

// Seal seals the server. A sealed server refuses all requests for data until Unseal is called.
func (v *Vault) Seal(t testing.TB) {
	t.Helper()
	if v.UnsealKey == "" {
		t.Fatal("the server is not the test's own")
	}
	if err := v.Client(t, v.RootToken).Sys().SealWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Unseal unseals the server, and calls Eventually to wait until the server is active. A server
// with integrated storage is a standby until the server elects itself.
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
	Eventually(t, func() error {
		health, err := client.Sys().HealthWithContext(t.Context())
		if err == nil && health.Standby {
			err = errors.New("the server is a standby")
		}
		return err
	})
}

// write writes data to a path with the root token.
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

// set writes data to a path with the root token. On a server that the tests did not start, the
// path is deleted when the test ends.
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

// cleanUp arranges for f to be called when the test ends, with a client that has the root token.
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

// unique returns a unique name that operators can recognize as a name of these tests.
func unique() string { return "tokenkeep-test-" + strings.ToLower(rand.Text()) }
