package cli

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/k8sstore"
)

// kubeconfig writes a configuration with the contexts "here" and "there", and returns the path of
// the file.
func kubeconfig(t *testing.T, server *fakek8s.Server, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: here
clusters:
- {name: here, cluster: {server: %q, certificate-authority-data: %s}}
- {name: there, cluster: {server: "http://192.0.2.1"}}
users:
- {name: app, user: {token: %q}}
contexts:
- {name: here, context: {cluster: here, user: app}}
- {name: there, context: {cluster: there, user: app}}
`, server.URL, base64.StdEncoding.EncodeToString(server.CA), token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// k8sEnv returns an environment with a new fake of Kubernetes as the store, and the fake.
func k8sEnv(t *testing.T) (env, *fakek8s.Server) {
	t.Helper()
	server := fakek8s.New(&fakek8s.Options{TLS: true})
	t.Cleanup(server.Close)
	server.Account(canary, "default", "tokenkeep")
	if err := server.Bind(canary, k8sstore.Policy("default", "tokens")); err != nil {
		t.Fatal(err)
	}
	return env{envStore: "k8s:default/oauth", "KUBECONFIG": kubeconfig(t, server, canary)}, server
}

func TestKubernetesConfiguration(t *testing.T) {
	t.Parallel()
	e, server := k8sEnv(t)
	e.ok(t, `{"user_name": "ann", "client_id": "app", "refresh_token": "s3cret"}`, "save", "--json")
	t.Run("home", func(t *testing.T) {
		t.Parallel()
		home := t.TempDir()
		if err := os.Mkdir(filepath.Join(home, ".kube"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(kubeconfig(t, server, canary), filepath.Join(home, ".kube", "config")); err != nil {
			t.Fatal(err)
		}
		e.with("KUBECONFIG", "").with("HOME", home).ok(t, "", "ls")
	})
	for _, c := range []struct {
		name string
		e    env
		code int
		want string
	}{
		{"another context, of plain http", e.with(envStore, "k8s:default/oauth?context=there"), 2, "plain http"},
		{"no such context", e.with(envStore, "k8s:default/oauth?context=nowhere"), 2, "no such context"},
		{"no such file", e.with("KUBECONFIG", filepath.Join(t.TempDir(), "none")), 2, "no cluster"},
		{"a namespace that is none", e.with(envStore, "k8s:Default/oauth"), 2, "namespace"},
		{"a token that is unknown", e.with("KUBECONFIG", kubeconfig(t, server, "canary-that-is-unknown")), 7, "log in to the cluster again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := c.e.fails(t, c.code, "", "ls")
			if !strings.Contains(text, c.want) || strings.Contains(text, "canary") {
				t.Errorf("it says %q, want %q", text, c.want)
			}
		})
	}
	t.Run("a file that cannot be read", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte("users: [{name: app, user: {token: canary}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if text := e.with("KUBECONFIG", path).fails(t, 2, "", "ls"); !strings.Contains(text, "cannot be read") || strings.Contains(text, "canary") {
			t.Errorf("it says %q", text)
		}
	})
}
