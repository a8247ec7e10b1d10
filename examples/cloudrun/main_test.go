package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"

	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const user = "ann@example.com:6001"

// store opens the store with a client of its own, as every instance does.
func store(t *testing.T, server *fakegcp.Server) *tokenstore.Store {
	t.Helper()
	client, err := secretmanager.NewClient(t.Context(), server.ClientOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	s, err := gcpsm.New(client, "projects/p", "crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world starts both servers and stores a token that has expired.
func world(t *testing.T) (*fakegcp.Server, *zohoaccounts.Server) {
	t.Helper()
	gcp := fakegcp.New(nil)
	t.Cleanup(gcp.Close)
	accounts := zohoaccounts.New(nil)
	accounts.AddClient(zohoaccounts.Client{ID: "1000.CLIENT", Secret: "secret"})
	refresh, _ := accounts.Tokens(zohoaccounts.Consent{ClientID: "1000.CLIENT", Email: "ann@example.com", ZGID: "6001"})
	_, err := store(t, gcp).SaveToken(t.Context(), tokenstore.Token{
		UserName: user, ClientID: "1000.CLIENT", ClientSecret: "secret",
		RefreshToken: tokenstore.Secret(refresh), AccessToken: "expired", ExpiresAt: time.Now().Add(-time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return gcp, accounts
}

func open(t *testing.T, gcp *fakegcp.Server, accounts *zohoaccounts.Server) (*initializer.Client, error) {
	t.Helper()
	return initializer.New(t.Context(), initializer.Config{
		Environment: initializer.US.Production(), Store: store(t, gcp),
		Token: tokenstore.Token{UserName: user}, HTTPClient: accounts.Client(),
	})
}

func get(t *testing.T, client *initializer.Client) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	routes(client, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/leads", nil))
	return w.Result()
}

func TestInstancesThatStartAtOnceRefreshOnce(t *testing.T) {
	t.Parallel()
	gcp, accounts := world(t)
	const instances = 4
	var wg sync.WaitGroup
	for range instances {
		wg.Go(func() {
			client, err := open(t, gcp, accounts)
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
	if n := accounts.Count(zohoaccounts.Refresh); n != 1 {
		t.Errorf("%d instances made %d refreshes", instances, n)
	}
}

func TestTheStatusTellsWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	gcp, accounts := world(t)
	client, err := open(t, gcp, accounts)
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
