package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

const clientSecret = "canary-secret"

// A world consists of an MCP server that uses the SDK, an authorization server, and a store.
// The authorization server revokes all tokens if a refresh token is used twice.
type world struct {
	t      *testing.T
	oauth  *authservers.Server
	server *httptest.Server
	store  tokenstore.TokenStore
	logins int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: memstore.New(nil)}
	w.oauth = authservers.New(authservers.Policy{Rotates: true, Revokes: true}, "client", clientSecret, time.Now)
	mux := http.NewServeMux()
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	tools := mcp.NewServer(&mcp.Implementation{Name: "tools", Version: "1"}, nil)
	mcp.AddTool(tools, &mcp.Tool{Name: "greet"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, struct{}, error) {
		return &mcp.CallToolResult{}, struct{}{}, nil
	})
	verify := func(_ context.Context, token string, _ *http.Request) (*auth.TokenInfo, error) {
		if !w.oauth.Alive(token) {
			return nil, auth.ErrInvalidToken
		}
		return &auth.TokenInfo{Expiration: time.Now().Add(time.Hour)}, nil
	}
	resource := w.server.URL + "/.well-known/oauth-protected-resource/mcp"
	stream := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil)
	mux.Handle("/mcp", auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{ResourceMetadataURL: resource})(stream))
	mux.Handle("/.well-known/oauth-protected-resource/mcp", auth.ProtectedResourceMetadataHandler(&oauthex.ProtectedResourceMetadata{
		Resource: w.server.URL + "/mcp", AuthorizationServers: []string{w.server.URL},
	}))
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, strings.ReplaceAll(`{"issuer":"URL","authorization_endpoint":"URL/authorize","token_endpoint":"URL/token","response_types_supported":["code"],
			"grant_types_supported":["authorization_code","refresh_token"],"code_challenge_methods_supported":["S256"],"token_endpoint_auth_methods_supported":["client_secret_basic"]}`, "URL", w.server.URL))
	})
	mux.HandleFunc("/token", w.token)
	return w
}

// token forwards a request to the authorization server.
func (w *world) token(rw http.ResponseWriter, r *http.Request) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, authservers.TokenURL, r.Body)
	if err != nil {
		w.t.Error(err)
		return
	}
	out.Header = r.Header
	res, err := w.oauth.RoundTrip(out)
	if err != nil {
		w.t.Error(err)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(res.StatusCode)
	_, _ = io.Copy(rw, res.Body)
	_ = res.Body.Close()
}

// login simulates a user who logs in with the browser.
func (w *world) login(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	u, err := url.Parse(args.URL)
	if err != nil {
		return nil, err
	}
	w.logins++
	return &auth.AuthorizationResult{Code: w.oauth.Code(), State: u.Query().Get("state")}, nil
}

// run runs the program once, and checks the number of logins so far.
func (w *world) run(what string, logins int) {
	w.t.Helper()
	var out bytes.Buffer
	err := app{
		out: &out, store: w.store, http: w.server.Client(), fetch: w.login,
		endpoint: w.server.URL + "/mcp", issuer: w.server.URL,
		client: oauthex.ClientCredentials{ClientID: "client", ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: clientSecret}},
	}.list(w.t.Context())
	if err != nil || out.String() != "greet\n" {
		w.t.Fatalf("%s: it printed %q: %v", what, out.String(), err)
	}
	if w.logins != logins {
		w.t.Fatalf("%s: the user has logged in %d times", what, w.logins)
	}
}

func (w *world) outdate() {
	w.t.Helper()
	all, err := w.store.GetTokens(w.t.Context())
	if err != nil || len(all) != 1 || all[0].Issuer != w.server.URL || all[0].Resource != w.server.URL+"/mcp" {
		w.t.Fatalf("the records are %v: %v", all, err)
	}
	w.oauth.ExpireAll()
	if _, err := w.store.SaveToken(w.t.Context(), tokenstore.Token{ID: all[0].ID, AccessToken: all[0].AccessToken, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
		w.t.Fatal(err)
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("the first run", 1)
	w.run("the second run", 1)
	for range 3 {
		w.outdate()
		w.run("with a refresh token that was replaced", 1)
	}
	resources := 0
	for _, r := range w.oauth.Requests() {
		if r.Form.Get("resource") == w.server.URL+"/mcp" {
			resources++
		}
	}
	if resources != 4 {
		t.Errorf("%d of %d requests name the resource", resources, len(w.oauth.Requests()))
	}
	// The server first rejects the access token, and later revokes the consent.
	w.oauth.ExpireAll()
	w.run("with a token that the server rejects", 2)
	all, err := w.store.GetTokens(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("the records are %v: %v", all, err)
	}
	w.oauth.Revoke(string(all[0].RefreshToken))
	w.outdate()
	w.run("with a consent that was revoked", 3)
}

func TestLoginFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failed := errors.New("the user said no")
	err := app{
		out: io.Discard, store: w.store, http: w.server.Client(), endpoint: w.server.URL + "/mcp", issuer: w.server.URL,
		fetch:  func(context.Context, *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) { return nil, failed },
		client: oauthex.ClientCredentials{ClientID: "client", ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: clientSecret}},
	}.list(t.Context())
	if err == nil || strings.Contains(err.Error(), clientSecret) {
		t.Errorf("the error is %v", err)
	}
}
