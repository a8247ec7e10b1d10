package oauth2keep_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// The tests of package initializer also run their flows through this package, against every
// server of package authservers.

const (
	clientID     = "client"
	clientSecret = "canary-secret"
	apiURL       = "https://api.example.com/"
)

// Keeper.TokenSource must have the signature of NewTokenSource in the MCP Go SDK.
var _ func(context.Context, *oauth2.Config, *oauth2.Token) (oauth2.TokenSource, error) = oauth2keep.New(nil, oauth2keep.As{}).TokenSource

// A world is an authorization server, the records of a program, and a clock for both.
type world struct {
	t      *testing.T
	server *authservers.Server
	driver *memstore.Driver
	conf   *oauth2.Config

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, p authservers.Policy) *world {
	t.Helper()
	w := &world{t: t, driver: memstore.NewDriver(), now: time.Now()}
	w.server = authservers.New(p, clientID, clientSecret, w.clock)
	w.conf = &oauth2.Config{
		ClientID: clientID, ClientSecret: clientSecret,
		Endpoint: oauth2.Endpoint{TokenURL: authservers.TokenURL, AuthStyle: oauth2.AuthStyleInHeader},
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// ctx returns a context with the server's HTTP client under oauth2.HTTPClient.
func (w *world) ctx() context.Context {
	return context.WithValue(w.t.Context(), oauth2.HTTPClient, &http.Client{Transport: w.server})
}

// process returns the Keeper of another process.
func (w *world) process() *oauth2keep.Keeper {
	w.t.Helper()
	store, err := tokenstore.New(w.driver.Reopen(), &tokenstore.Options{Now: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	return oauth2keep.New(store, oauth2keep.As{User: "ann"}).With(initializer.Config{Now: w.clock, RevokeURL: authservers.RevokeURL})
}

func (w *world) token(k *oauth2keep.Keeper, tok *oauth2.Token) *oauth2.Token {
	w.t.Helper()
	ts, err := k.TokenSource(w.ctx(), w.conf, tok)
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := ts.Token()
	if err != nil {
		w.t.Fatal(err)
	}
	if got.RefreshToken != "" || !w.server.Alive(got.AccessToken) {
		w.t.Fatal("the token is not good, or has a refresh token")
	}
	return got
}

func (w *world) fails(what string, err, class error) {
	w.t.Helper()
	if !errors.Is(err, class) || strings.Contains(err.Error(), "access-") || strings.Contains(err.Error(), "refresh-") || strings.Contains(err.Error(), "canary") {
		w.t.Fatalf("%s: the error is %v, and should be %v", what, err, class)
	}
}

// TestKeeperRotation checks that rotated tokens are kept for a program that always passes the
// outdated token of its file.
func TestKeeperRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, authservers.Policy{Rotates: true, Revokes: true})
	file, err := w.conf.Exchange(w.ctx(), w.server.Code())
	if err != nil {
		t.Fatal(err)
	}
	file.Expiry = w.clock().Add(time.Hour) // by the clock of the test
	for round := range 5 {
		w.token(w.process(), file)
		w.token(w.process(), nil)
		if n := w.server.CountBy(func(r authservers.Request) string { return string(r.Kind) }); n[string(authservers.Refresh)] != round {
			t.Fatalf("round %d: there were %v requests", round, n)
		}
		w.advance(2 * time.Hour)
	}
	// TokenSource replaces the kept token with the token of another consent.
	again, err := w.conf.Exchange(w.ctx(), w.server.Code())
	if err != nil {
		t.Fatal(err)
	}
	again.Expiry = w.clock().Add(3 * time.Hour)
	if got := w.token(w.process(), again); got.AccessToken != again.AccessToken {
		t.Error("the new token is not used")
	}
	if got := w.token(w.process(), file); got.AccessToken != again.AccessToken {
		t.Error("the token of the file is used")
	}
}

func TestKeeperExchange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, authservers.Policy{Rotates: true})
	_, err := w.process().TokenSource(w.ctx(), w.conf, nil)
	w.fails("nothing is kept", err, oauth2keep.ErrReauthRequired)
	code := w.server.Code()
	first, err := w.process().Exchange(w.ctx(), w.conf, code, oauth2.VerifierOption("verifier"))
	if err != nil || !w.server.Alive(first.AccessToken) || first.RefreshToken != "" {
		t.Fatalf("the token is not good: %v", err)
	}
	if r := w.server.Requests()[0]; r.Form.Get("code_verifier") != "verifier" {
		t.Errorf("sent was %v", r.Form)
	}
	if got := w.token(w.process(), first); got.AccessToken != first.AccessToken {
		t.Error("the kept token is another")
	}
	// Exchange returns an error for a refused code, even though a token is kept.
	_, err = w.process().Exchange(w.ctx(), w.conf, "code-unknown")
	w.fails("an unknown code", err, oauth2keep.ErrReauthRequired)
	// Exchange replaces the kept token.
	second, err := w.process().Exchange(w.ctx(), w.conf, w.server.Code())
	if err != nil {
		t.Fatal(err)
	}
	if got := w.token(w.process(), nil); got.AccessToken != second.AccessToken || second.AccessToken == first.AccessToken {
		t.Error("the kept token is another")
	}
}

// TestKeeperExchangeUnstated checks that the newest token is kept if the server states no
// lifetimes. The store cannot determine which of two such tokens is newer.
func TestKeeperExchangeUnstated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, authservers.Policy{Unstated: true})
	for range 3 {
		tok, err := w.process().Exchange(w.ctx(), w.conf, w.server.Code())
		if err != nil {
			t.Fatal(err)
		}
		if got := w.token(w.process(), nil); got.AccessToken != tok.AccessToken {
			t.Error("the kept token is another")
		}
	}
}

func TestKeeperErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, authservers.Policy{})
	if _, err := w.process().Exchange(w.ctx(), w.conf, w.server.Code()); err != nil {
		t.Fatal(err)
	}
	ts, err := w.process().TokenSource(w.ctx(), w.conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := ts.Token()
	if err != nil {
		t.Fatal(err)
	}
	client, err := w.process().Client(w.ctx(), w.conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := w.process().Transport(w.ctx(), w.conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.process().Forget(w.ctx(), w.conf)
	if err != nil || !f.Revoked || !f.Deleted || w.server.Alive(tok.AccessToken) {
		t.Errorf("forgotten was %+v: %v", f, err)
	}
	if f, err := w.process().Forget(w.ctx(), w.conf); err != nil || f != (initializer.Forgotten{}) {
		t.Errorf("forgotten was %+v: %v", f, err)
	}
	w.advance(2 * time.Hour)
	_, err = ts.Token()
	w.fails("the TokenSource", err, oauth2keep.ErrReauthRequired)
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" || refused.Response.StatusCode != http.StatusBadRequest {
		t.Errorf("it is no RetrieveError of x/oauth2: %v", err)
	}
	_, err = client.Get(apiURL)
	w.fails("the Client", err, oauth2keep.ErrReauthRequired)
	_, err = (&http.Client{Transport: transport}).Get(apiURL)
	w.fails("the Transport", err, oauth2keep.ErrReauthRequired)
	for what, c := range map[string]struct {
		as   oauth2keep.As
		conf *oauth2.Config
	}{
		"no user":   {oauth2keep.As{}, w.conf},
		"no config": {oauth2keep.As{User: "ann"}, nil},
		"no client": {oauth2keep.As{User: "ann"}, &oauth2.Config{Endpoint: w.conf.Endpoint}},
	} {
		_, err := oauth2keep.New(memstore.New(nil), c.as).TokenSource(w.ctx(), c.conf, nil)
		w.fails(what, err, tokenstore.ErrInvalidToken)
	}
	type custom struct{ A int }
	_, err = w.process().TokenSource(w.ctx(), w.conf, (&oauth2.Token{AccessToken: "access-x"}).WithExtra(map[string]any{"x": custom{1}}))
	w.fails("an Extra that JSON does not have", err, tokenstore.ErrInvalidToken)
	if f, err := oauth2keep.New(memstore.New(nil), oauth2keep.As{User: "ann"}).Forget(w.ctx(), w.conf); err != nil || f.Deleted {
		t.Errorf("forgotten was %+v: %v", f, err)
	}
}

// TestKeeperForgetWithoutURL checks that Forget without a revocation URL deletes the record, and
// that its result reports no revocation.
func TestKeeperForgetWithoutURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, authservers.Policy{})
	keep := oauth2keep.New(memstore.New(nil), oauth2keep.As{User: "ann"})
	tok, err := keep.Exchange(w.ctx(), w.conf, w.server.Code())
	if err != nil {
		t.Fatal(err)
	}
	if f, err := keep.Forget(w.ctx(), w.conf); err != nil || f.Revoked || !f.Deleted || f.ID == "" || !w.server.Alive(tok.AccessToken) {
		t.Errorf("forgotten was %+v: %v", f, err)
	}
}

func TestFromOAuth2(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for what, raw := range map[string]any{
		"none": nil, "a struct": struct{ A string }{"a"}, "an empty map": map[string]any{}, "an empty form": url.Values{}, "a form without a value": url.Values{"x": nil},
	} {
		tok := (&oauth2.Token{AccessToken: "a", TokenType: "bearer", RefreshToken: "r", Expiry: now, ExpiresIn: 5}).WithExtra(raw)
		got, err := oauth2keep.FromOAuth2(tok)
		if want := (tokenstore.Token{AccessToken: "a", TokenType: "bearer", RefreshToken: "r", ExpiresAt: now}); err != nil || got != want {
			t.Errorf("%s: %v: %v", what, got, err)
		}
	}
	// A program can set these values with WithExtra.
	tok := (&oauth2.Token{AccessToken: "a"}).WithExtra(map[string]any{"int": 7, "int64": int64(1) << 60, "uint": uint(7), "list": []string{"x"}, "map": map[string]int{"y": 1}, "nil": nil, "bool": true})
	given, err := oauth2keep.FromOAuth2(tok)
	if err != nil {
		t.Fatal(err)
	}
	back := oauth2keep.ToOAuth2(given)
	for name, want := range map[string]any{"int": int64(7), "int64": int64(1) << 60, "uint": 7.0, "nil": nil, "bool": true} {
		if got := back.Extra(name); got != want {
			t.Errorf("%s is %T(%v)", name, got, got)
		}
	}
	if got := fmt.Sprint(back.Extra("list"), back.Extra("map")); got != "[x] map[y:1]" {
		t.Errorf("the list and the map are %s", got)
	}
}

func TestKeeperPrints(t *testing.T) {
	t.Parallel()
	keep := oauth2keep.New(memstore.New(nil), oauth2keep.As{User: "ann"}).With(initializer.Config{OAuth2: &oauth2.Config{ClientSecret: clientSecret}})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{keep, struct{ k *oauth2keep.Keeper }{keep}, []any{keep}} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, clientSecret) {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}
