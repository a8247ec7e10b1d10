package agent_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// BenchmarkWarmFind measures how long a Handler takes to find a record in memory, without a
// network connection.
func BenchmarkWarmFind(b *testing.B) {
	store := memstore.New(nil)
	if _, err := store.SaveToken(b.Context(), tokenstore.Token{
		UserName: userName, ClientID: clientID, ClientSecret: clientSecret, RefreshToken: "1000.refresh",
		AccessToken: "1000.access", ExpiresAt: time.Now().Add(time.Hour), APIDomain: "https://www.zohoapis.com",
	}); err != nil {
		b.Fatal(err)
	}
	h, err := agent.New(agent.Config{Store: store, Initializer: initializer.Config{Environment: initializer.US.Production()}, Token: agentToken})
	if err != nil {
		b.Fatal(err)
	}
	body := `{"user_name":"` + userName + `","client_id":"` + clientID + `"}`
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/find", strings.NewReader(body))
		req.Host = "localhost"
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(agent.TokenHeader, agentToken)
		res := httptest.NewRecorder()
		if h.ServeHTTP(res, req); res.Code != http.StatusOK {
			b.Fatalf("status %d", res.Code)
		}
	}
}
