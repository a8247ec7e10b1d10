package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/tokenkeep/tokenkeep/examples/internal/readme"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestMain(m *testing.M) { readme.Main(m) }

const user = "ann@example.com:6001"

// settings holds the environment variables that the README sets.
var settings = map[string]string{
	"PROJECT": "my-project", "TOKEN_PREFIX": "crm", "ZOHO_DATA_CENTER": "us", "TOKEN_USER": user, "TOKEN_CLIENT": "1000.CLIENT",
}

// newClient returns a client of server. Each instance uses its own client, as a separate
// process does.
func newClient(t *testing.T, server *fakegcp.Server) *secretmanager.Client {
	t.Helper()
	client, err := secretmanager.NewClient(t.Context(), server.ClientOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// A world consists of a fake of Secret Manager, whose lists lag by three hours, and a fake of
// Zoho.
type world struct {
	gcp     *fakegcp.Server
	zoho    *zohoaccounts.Server
	refresh string // a refresh token that zoho issued for ann@example.com
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{gcp: fakegcp.New(&fakegcp.Options{Lag: fakegcp.Lag{Alias: time.Second, Metadata: time.Second, List: 3 * time.Hour}}), zoho: zohoaccounts.New(nil)}
	t.Cleanup(w.gcp.Close)
	w.zoho.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret"})
	w.refresh, _ = w.zoho.Tokens(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})
	return w
}

func (w *world) save(t *testing.T) {
	t.Helper()
	s, err := gcpsm.New(newClient(t, w.gcp), "projects/my-project", "crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.SaveToken(t.Context(), tokenstore.Token{
		UserName: user, ClientID: "1000.CLIENT", ClientSecret: "secret",
		RefreshToken: tokenstore.Secret(w.refresh), AccessToken: "expired", ExpiresAt: time.Now().Add(-time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// instance returns the Client of a new instance whose environment is settings.
func (w *world) instance(t *testing.T, settings map[string]string) (*initializer.Client, error) {
	t.Helper()
	env := func(name string) string { return settings[name] }
	return open(t.Context(), env, newClient(t, w.gcp), w.zoho.Client(), slog.New(slog.DiscardHandler))
}

func get(t *testing.T, client *initializer.Client) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	routes(client, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/leads", nil))
	return w.Result()
}

// secrets returns the number of secrets in the project. It first advances the clock by more
// than the lag of lists.
func (w *world) secrets(t *testing.T) int {
	t.Helper()
	w.gcp.Advance(4 * time.Hour)
	n := 0
	for _, err := range newClient(t, w.gcp).ListSecrets(t.Context(), &secretmanagerpb.ListSecretsRequest{Parent: "projects/my-project"}).All() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// cloud returns a program that simulates the gcloud commands in the README. The command
// "run deploy" starts an instance, and prints the status of a request for leads.
func (w *world) cloud(t *testing.T) readme.Program {
	return func(c readme.Call) (string, error) {
		args := strings.Join(c.Args, " ")
		switch {
		case strings.HasPrefix(args, "iam roles create tokenkeep ") && slices.Contains(c.Args, "--permissions="+strings.Join(gcpsm.Permissions(), ",")):
			return "", nil
		case strings.HasPrefix(args, "projects add-iam-policy-binding my-project ") && c.Flag("role") == "projects/my-project/roles/tokenkeep":
			return "", nil
		case strings.HasPrefix(args, "run deploy crm --source . "):
			deployed := map[string]string{}
			for pair := range strings.SplitSeq(c.Flag("set-env-vars"), ",") {
				name, value, _ := strings.Cut(pair, "=")
				deployed[name] = value
			}
			w.gcp.Advance(time.Minute) // while the image is built, the lag of the imported record passes
			client, err := w.instance(t, deployed)
			if err != nil {
				return "", err
			}
			return fmt.Sprintln("leads:", get(t, client).Status), nil
		}
		return "", fmt.Errorf("unexpected arguments %q", c.Args)
	}
}

func TestREADME(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	rows := "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain\n" +
		"1," + user + ",1000.CLIENT,secret," + w.refresh + ",1000.expired,,1767225600000,,https://www.zohoapis.com"
	if err := os.WriteFile(filepath.Join(dir, "sdk_tokens.txt"), []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	emulated := func(args []string) []string {
		for i, arg := range args {
			if strings.HasPrefix(arg, "gcpsm:") {
				args[i] = arg + "?endpoint=http://" + w.gcp.Addr
			}
		}
		return args
	}
	script := readme.Only(readme.Blocks(t, "README.md"), "sh")
	out := readme.Run(t, dir, script, map[string]readme.Program{
		"tokenkeep": readme.Binary(readme.Tokenkeep(t), emulated),
		"gcloud":    w.cloud(t),
	})
	if !strings.HasSuffix(out, "leads: 200 OK\n") {
		t.Errorf("the blocks print %s", out)
	}
	if n := w.zoho.Count(zohoaccounts.Refresh); n != 1 {
		t.Errorf("there were %d refreshes", n)
	}
	if n := w.secrets(t); n != 1 {
		t.Errorf("%d secrets are billed for one token", n)
	}
}

func TestInstancesAtOnceRefreshOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.save(t)
	const instances = 4
	var wg sync.WaitGroup
	for range instances {
		wg.Go(func() {
			client, err := w.instance(t, settings)
			if err != nil {
				t.Error(err)
				return
			}
			if res := get(t, client); res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
				t.Errorf("the service answers %s", res.Status)
			}
		})
	}
	wg.Wait()
	if n := w.zoho.Count(zohoaccounts.Refresh); n != 1 {
		t.Errorf("%d instances made %d refreshes", instances, n)
	}
	if n := w.secrets(t); n != 1 {
		t.Errorf("%d secrets are billed for one token", n)
	}
}

func TestStatusTellsWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.save(t)
	client, err := w.instance(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := get(t, client); res.StatusCode != http.StatusBadGateway {
		t.Errorf("with a token that was revoked it answers %s", res.Status)
	}
	for err, want := range map[error]int{
		initializer.ErrThrottled:       http.StatusServiceUnavailable,
		initializer.ErrServer:          http.StatusServiceUnavailable,
		tokenstore.ErrUnavailable:      http.StatusServiceUnavailable,
		initializer.ErrReauthRequired:  http.StatusBadGateway,
		initializer.ErrWrongDataCenter: http.StatusBadGateway,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v is status %d", err, got)
		}
	}
}
