package mcpgo_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/client/transport"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/examples/mcp/mcpgo"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// TestStore checks that several processes with mcp-go share their tokens. The authorization
// server revokes all tokens if a refresh token is used twice.
func TestStore(t *testing.T) {
	t.Parallel()
	server := authservers.New(authservers.Policy{Rotates: true, Revokes: true}, "client", "canary-secret", time.Now)
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: server})
	conf := &oauth2.Config{ClientID: "client", ClientSecret: "canary-secret", Endpoint: oauth2.Endpoint{TokenURL: authservers.TokenURL, AuthStyle: oauth2.AuthStyleInHeader}}
	records := memstore.New(nil)
	process := func() (*mcpgo.Store, *transport.OAuthHandler) {
		s := mcpgo.New(oauth2keep.New(records, oauth2keep.As{User: "me"}), conf)
		return s, transport.NewOAuthHandler(transport.OAuthConfig{ClientID: "client", TokenStore: s})
	}
	first, handler := process()
	if _, err := first.GetToken(ctx); !errors.Is(err, transport.ErrNoToken) {
		t.Errorf("without a login: %v", err)
	}
	if _, err := handler.GetAuthorizationHeader(ctx); !errors.Is(err, transport.ErrOAuthAuthorizationRequired) {
		t.Errorf("without a login: %v", err)
	}
	tok, err := conf.Exchange(ctx, server.Code())
	if err != nil {
		t.Fatal(err)
	}
	// mcp-go saves the token response of a login in this form.
	if err := first.SaveToken(ctx, &transport.Token{AccessToken: tok.AccessToken, TokenType: "bearer", RefreshToken: tok.RefreshToken, ExpiresAt: tok.Expiry, Scope: "a b"}); err != nil {
		t.Fatal(err)
	}
	if got, err := first.GetToken(ctx); err != nil || got.Scope != "a b" || got.AccessToken != tok.AccessToken || got.RefreshToken != "" {
		t.Errorf("the token is not the one that was saved: %v", err)
	}
	for range 3 {
		all, err := records.GetTokens(ctx)
		if err != nil || len(all) != 1 {
			t.Fatalf("there are %d records: %v", len(all), err)
		}
		if _, err := records.SaveToken(ctx, tokenstore.Token{ID: all[0].ID, AccessToken: all[0].AccessToken, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		headers := make([]string, 4)
		for i := range headers {
			_, handler := process()
			group.Go(func() {
				var err error
				if headers[i], err = handler.GetAuthorizationHeader(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for _, h := range headers {
			if h != headers[0] || !server.Alive(h[len("Bearer "):]) {
				t.Error("a process has no good token, or one of its own")
			}
		}
	}
	if n := server.CountBy(func(r authservers.Request) string { return string(r.Kind) }); n[string(authservers.Refresh)] != 3 {
		t.Errorf("there were %v requests", n)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := first.GetToken(done); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}
