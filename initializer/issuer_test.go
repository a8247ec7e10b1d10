package initializer_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// An internet is an authservers.Internet with additional methods for these tests.
type internet struct{ *authservers.Internet }

func newInternet(now func() time.Time, domain string) internet {
	return internet{authservers.NewInternet(authservers.Policy{Rotates: true, Revokes: true, Supersedes: true}, clientID, now, domain)}
}

// at returns the configuration of the client at the server of a domain.
func (n internet) at(domain string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: clientID, ClientSecret: n.Secret(domain),
		Endpoint: oauth2.Endpoint{TokenURL: "https://ID." + domain + ":443/token", AuthStyle: oauth2.AuthStyleInHeader},
	}
}

func issuerOf(domain string) string { return "https://id." + domain + "/token" }

func (n internet) code(domain string) tokenstore.Secret { return tokenstore.Secret(n.Code(domain)) }

// told reports whether a request to the servers at domain contained text.
func (n internet) told(domain string, text tokenstore.Secret) bool {
	return strings.Contains(n.Sent(domain), string(text))
}

// TestIssuerNone checks that a record without an issuer is used with NoIssuer, but not with another
// Config.Issuer. With another Issuer, no token of the record is sent to a server.
func TestIssuerNone(t *testing.T) {
	t.Parallel()
	clock, store := newClock(), memstore.New(nil)
	net := newInternet(clock.Now, "a.test")
	old := tokenstore.Token{UserName: user, ClientID: clientID, RefreshToken: "refresh-old", AccessToken: "access-old", ExpiresAt: clock.Now().Add(-time.Hour)}
	saved, err := store.SaveToken(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	config := func(like tokenstore.Token) initializer.Config {
		return initializer.Config{
			OAuth2: net.at("a.test"), Issuer: "https://a.test", Token: like, Store: store, HTTPClient: &http.Client{Transport: net}, Now: clock.Now,
		}
	}
	given := &oauth2.Token{AccessToken: "access-given", RefreshToken: "refresh-first"}
	keep := oauth2keep.New(store, oauth2keep.As{User: user, Issuer: "https://a.test"}).With(initializer.Config{Now: clock.Now})
	for what, c := range map[string]struct {
		start func() error
		class error
	}{
		"by the user": {func() error {
			_, err := initializer.New(t.Context(), config(tokenstore.Token{UserName: user}))
			return err
		}, initializer.ErrReauthRequired},
		"by the ID": {func() error {
			_, err := initializer.New(t.Context(), config(tokenstore.Token{ID: saved.ID}))
			return err
		}, tokenstore.ErrIDMismatch},
		"with an earlier refresh token": {func() error {
			_, err := initializer.New(t.Context(), config(tokenstore.Token{UserName: user, RefreshToken: "refresh-first"}))
			return err
		}, tokenstore.ErrIDMismatch},
		"with its refresh token alone": {func() error {
			_, err := initializer.New(t.Context(), config(tokenstore.Token{RefreshToken: "refresh-old"}))
			return err
		}, tokenstore.ErrIDMismatch},
		"kept": {func() error {
			_, err := keep.TokenSource(t.Context(), net.at("a.test"), nil)
			return err
		}, oauth2keep.ErrReauthRequired},
		"kept, with a token": {func() error {
			_, err := keep.TokenSource(t.Context(), net.at("a.test"), given)
			return err
		}, oauth2keep.ErrIDMismatch},
	} {
		err := c.start()
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), "NoIssuer") || strings.Contains(err.Error(), "refresh-") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if sent := net.Sent("a.test"); sent != "" {
		t.Errorf("sent was %s", sent)
	}
	// With NoIssuer, the record is used, and still has no issuer afterwards.
	c := config(tokenstore.Token{UserName: user})
	c.Issuer = initializer.NoIssuer
	if _, err := initializer.New(t.Context(), c); !errors.Is(err, initializer.ErrReauthRequired) || !net.told("a.test", old.RefreshToken) {
		t.Errorf("with NoIssuer: %v", err)
	}
	client, err := initializer.New(t.Context(), func() initializer.Config {
		c.Token = tokenstore.Token{UserName: user, GrantToken: net.code("a.test")}
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.Token(t.Context()); err != nil || got.ID != saved.ID || got.Issuer != "" {
		t.Errorf("the record %q has the issuer %q: %v", got.ID, got.Issuer, err)
	}
	// The record of another user of the Client also has no issuer.
	if other, err := client.SwitchUser(t.Context(), tokenstore.Token{UserName: "bob", GrantToken: net.code("a.test")}); err != nil {
		t.Error(err)
	} else if got, err := other.Token(t.Context()); err != nil || got.Issuer != "" || got.UserName != "bob" {
		t.Errorf("the record is of %q and has the issuer %q: %v", got.UserName, got.Issuer, err)
	}
}

// TestIssuerAdopted checks that New uses a record without an issuer, unless the record is
// Zoho's, is for a resource, or has another refresh token.
func TestIssuerAdopted(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		like, kept tokenstore.Token
		adopted    bool
	}{
		"by the user":                   {tokenstore.Token{UserName: user}, tokenstore.Token{}, true},
		"by the ID":                     {tokenstore.Token{ID: "7"}, tokenstore.Token{ID: "7"}, true},
		"with its refresh token":        {tokenstore.Token{UserName: user, RefreshToken: "refresh"}, tokenstore.Token{}, true},
		"with another refresh token":    {tokenstore.Token{UserName: user, RefreshToken: "other"}, tokenstore.Token{}, false},
		"a record of Zoho's":            {tokenstore.Token{UserName: user}, tokenstore.Token{APIDomain: "https://www.zohoapis.eu"}, false},
		"a record for another resource": {tokenstore.Token{UserName: user}, tokenstore.Token{Resource: "https://api.test"}, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			clock, store := newClock(), memstore.New(nil)
			net := newInternet(clock.Now, "a.test")
			old := c.kept
			old.UserName, old.ClientID, old.RefreshToken, old.AccessToken, old.ExpiresAt = user, clientID, "refresh", "access", clock.Now().Add(time.Hour)
			saved, err := store.SaveToken(t.Context(), old)
			if err != nil {
				t.Fatal(err)
			}
			client, err := initializer.New(t.Context(), initializer.Config{
				OAuth2: net.at("a.test"), Token: c.like, Store: store, HTTPClient: &http.Client{Transport: net}, Now: clock.Now,
			})
			if !c.adopted {
				if client != nil || err == nil || net.told("a.test", "refresh") || net.told("a.test", "access") {
					t.Errorf("it is used: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := client.Token(t.Context()); err != nil || got != saved {
				t.Errorf("the token is of the record %q, error %v", got.ID, err)
			}
			// The record of another user of the Client has an issuer.
			bob := tokenstore.Token{UserName: "bob", GrantToken: net.code("a.test")}
			other, err := client.SwitchUser(t.Context(), bob)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := other.Token(t.Context()); err != nil || got.Issuer == "" {
				t.Errorf("the record of bob has no issuer, error %v", err)
			}
		})
	}
}

// TestIssuerOfRefreshedRecord checks that a token of another server is not sent if a record
// with another issuer takes the ID of the current record.
func TestIssuerOfRefreshedRecord(t *testing.T) {
	t.Parallel()
	clock, store := newClock(), memstore.New(nil)
	net := newInternet(clock.Now, "a.test")
	const id = "own"
	save := func(issuer string) {
		t.Helper()
		if _, err := store.SaveToken(t.Context(), tokenstore.Token{
			ID: id, UserName: user, ClientID: clientID, Issuer: issuer,
			AccessToken: tokenstore.Secret("access-" + issuer), RefreshToken: tokenstore.Secret("refresh-" + issuer), ExpiresAt: clock.Now().Add(time.Hour),
		}); err != nil {
			t.Fatal(err)
		}
	}
	save(issuerOf("a.test"))
	c, err := initializer.New(t.Context(), initializer.Config{
		OAuth2: net.at("a.test"), Token: tokenstore.Token{ID: id}, Store: store, HTTPClient: &http.Client{Transport: net}, Now: clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.DeleteToken(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	save("another")
	for range 2 {
		clock.Advance(2 * time.Hour)
		if _, err := c.Token(t.Context()); !errors.Is(err, tokenstore.ErrIDMismatch) {
			t.Errorf("the error is %v", err)
		}
	}
	if err := c.Revoke(t.Context()); !errors.Is(err, tokenstore.ErrIDMismatch) {
		t.Errorf("the error is %v", err)
	}
	if sent := net.Sent("a.test"); sent != "" {
		t.Errorf("sent was %s", sent)
	}
}

func TestIssuerConfig(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://id.example.com/token":             "https://id.example.com/token",
		"HTTPS://ID.Example.COM:443/token#x":       "https://id.example.com/token",
		"https://id.example.com:8443/token?p=1":    "https://id.example.com:8443/token?p=1",
		"https://id.example.com":                   "https://id.example.com/",
		"http://127.0.0.1:80/Token":                "http://127.0.0.1/Token",
		"http://[::1]:8080/token":                  "http://[::1]:8080/token",
		"https://login.example.com/a%2Fb/v2/token": "https://login.example.com/a%2Fb/v2/token",
	} {
		for issuer, want := range map[string]string{"": want, "https://as.example": "https://as.example", initializer.NoIssuer: ""} {
			store := memstore.New(nil)
			c, err := initializer.New(t.Context(), initializer.Config{
				OAuth2: &oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: url}}, Issuer: issuer,
				Store: store, Token: tokenstore.Token{UserName: "ann", AccessToken: "a"},
			})
			if err != nil {
				t.Fatalf("%s: %v", url, err)
			}
			if got, err := c.Token(t.Context()); err != nil || got.Issuer != want {
				t.Errorf("%s: the issuer is %q, not %q: %v", url, got.Issuer, want, err)
			}
		}
	}
	good := &oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}
	like := tokenstore.Token{UserName: "ann", AccessToken: "a"}
	for what, c := range map[string]initializer.Config{
		"two issuers":            {OAuth2: good, Issuer: "https://a", Token: tokenstore.Token{UserName: "ann", AccessToken: "a", Issuer: "https://b"}},
		"two resources":          {OAuth2: good, Resource: "https://a", Token: tokenstore.Token{UserName: "ann", AccessToken: "a", Resource: "https://b"}},
		"a relative resource":    {OAuth2: good, Resource: "/a", Token: like},
		"a fragment":             {OAuth2: good, Resource: "https://a#b", Token: like},
		"a resource at Zoho":     {Environment: initializer.EU.Production(), Resource: "https://a", Token: like},
		"an issuer with newline": {OAuth2: good, Issuer: "https://a\n", Token: like},
	} {
		c.Store = memstore.New(nil)
		if _, err := initializer.New(t.Context(), c); err == nil {
			t.Errorf("%s: New took it", what)
		}
	}
}

// TestResource checks that the resource is sent with codes and refresh tokens, and that records
// with different resources are distinguished.
func TestResource(t *testing.T) {
	t.Parallel()
	clock, store := newClock(), memstore.New(nil)
	server := authservers.New(authservers.Policy{Rotates: true}, clientID, secret, clock.Now)
	for _, resource := range []string{"https://mcp.example/a", "https://mcp.example/b", ""} {
		config := initializer.Config{
			OAuth2:   &oauth2.Config{ClientID: clientID, ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: authservers.TokenURL, AuthStyle: oauth2.AuthStyleInHeader}},
			Resource: resource, Store: store, HTTPClient: &http.Client{Transport: server}, Now: clock.Now,
			Token:           tokenstore.Token{UserName: user, GrantToken: tokenstore.Secret(server.Code())},
			ExchangeOptions: []oauth2.AuthCodeOption{oauth2.VerifierOption("canary-verifier")},
		}
		c, err := initializer.New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(2 * time.Hour)
		if got, err := c.Token(t.Context()); err != nil || got.Resource != resource {
			t.Errorf("the resource is %q: %v", got.Resource, err)
		}
		all := server.Requests()
		for i, kind := range []authservers.Kind{authservers.Exchange, authservers.Refresh} {
			r := all[len(all)-2+i]
			if r.Kind != kind || r.Form.Get("resource") != resource || r.Form.Has("resource") != (resource != "") || (r.Form.Get("code_verifier") != "") != (i == 0) {
				t.Errorf("asked was %s with %v", r.Kind, r.Form["resource"])
			}
		}
		config.Token, config.ExchangeOptions = tokenstore.Token{UserName: user, ClientID: clientID}, nil
		config.Resource = resource + "/other"
		if _, err := initializer.New(t.Context(), config); resource != "" && !errors.Is(err, initializer.ErrReauthRequired) {
			t.Errorf("a token for %q is found for another: %v", resource, err)
		}
	}
	if all, err := store.GetTokens(context.Background()); err != nil || len(all) != 3 {
		t.Errorf("there are %d records: %v", len(all), err)
	}
}
