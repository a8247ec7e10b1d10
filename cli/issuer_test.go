package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// The domains of two authorization servers. Both servers have a client with the ID sharedClient,
// and the user ann.
const (
	serverA, serverB = "a.test", "b.test"
	sharedClient     = "https://app.example/client.json"
)

// twoServers is a store with the records of both servers.
type twoServers struct {
	t     *testing.T
	store tokenstore.TokenStore
	net   *authservers.Internet
	clock *fakeserver.Clock
}

// config returns the configuration of a program that uses the server of domain.
func (w *twoServers) config(domain string, like tokenstore.Token) initializer.Config {
	return initializer.Config{
		OAuth2: &oauth2.Config{
			ClientID: sharedClient, ClientSecret: w.net.Secret(domain),
			Endpoint: oauth2.Endpoint{TokenURL: "https://ID." + domain + ":443/token", AuthStyle: oauth2.AuthStyleInHeader},
		},
		RevokeURL: "https://id." + domain + "/revoke", Token: like, Store: w.store,
		HTTPClient: &http.Client{Transport: w.net}, Now: w.clock.Now,
	}
}

func (w *twoServers) keeper(domain string) (*oauth2keep.Keeper, *oauth2.Config) {
	c := w.config(domain, tokenstore.Token{})
	return oauth2keep.New(w.store, oauth2keep.As{User: "ann"}).With(c), c.OAuth2
}

// A way is a package through which a program uses a store.
type way struct {
	name string

	// open returns an HTTP client for the API of a domain. If code or refresh is not empty, open
	// starts with that code or refresh token.
	open func(w *twoServers, ctx context.Context, domain, code, refresh string) (*http.Client, error)

	forget func(w *twoServers, ctx context.Context, domain string) (initializer.Forgotten, error)
}

var ways = []way{
	{
		name: "initializer",
		open: func(w *twoServers, ctx context.Context, domain, code, refresh string) (*http.Client, error) {
			like := tokenstore.Token{UserName: "ann", GrantToken: tokenstore.Secret(code), RefreshToken: tokenstore.Secret(refresh)}
			c, err := initializer.New(ctx, w.config(domain, like))
			if err != nil {
				return nil, err
			}
			return c.HTTPClient(ctx), nil
		},
		forget: func(w *twoServers, ctx context.Context, domain string) (initializer.Forgotten, error) {
			return initializer.Forget(ctx, w.config(domain, tokenstore.Token{UserName: "ann"}))
		},
	},
	{
		name: "oauth2keep",
		open: func(w *twoServers, ctx context.Context, domain, code, refresh string) (*http.Client, error) {
			keep, conf := w.keeper(domain)
			if code != "" {
				if _, err := keep.Exchange(ctx, conf, code); err != nil {
					return nil, err
				}
			}
			var has *oauth2.Token
			if refresh != "" {
				has = &oauth2.Token{RefreshToken: refresh}
			}
			return keep.Client(ctx, conf, has)
		},
		forget: func(w *twoServers, ctx context.Context, domain string) (initializer.Forgotten, error) {
			keep, conf := w.keeper(domain)
			return keep.Forget(ctx, conf)
		},
	},
}

// TestTwoServersOneClientID checks that a user with the same client ID at two servers has two
// records, on every kind of store. No server may receive a secret that the other server issued.
func TestTwoServersOneClientID(t *testing.T) {
	t.Parallel()
	memory := kind{"mem", func(*testing.T) env { return env{envStore: "mem:"} }}
	for _, k := range append([]kind{memory}, storeKinds...) {
		for _, way := range ways {
			t.Run(k.name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				e, clock := k.open(t), &fakeserver.Clock{}
				s, err := (&app{schemes: allSchemes(), env: e.get, lookup: e.lookup, errs: io.Discard, now: time.Now}).open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				policy := authservers.Policy{Rotates: true, Revokes: true, Supersedes: true}
				w := &twoServers{t, s, authservers.NewInternet(policy, sharedClient, clock.Now, serverA, serverB), clock}
				w.use(way)
				w.mix()
				w.end(way)
				w.apart()
			})
		}
	}
}

// kept returns the record of the server at domain.
func (w *twoServers) kept(domain string) tokenstore.Token {
	w.t.Helper()
	issuer := "https://id." + domain + "/token"
	got, err := w.store.FindToken(w.t.Context(), tokenstore.Token{UserName: "ann", ClientID: sharedClient, Issuer: issuer})
	if err != nil || got.Issuer != issuer {
		w.t.Fatalf("the record of %s has the issuer %q: %v", domain, got.Issuer, err)
	}
	return got
}

// use exchanges a code at each server, and then refreshes the tokens. After each refresh, it
// starts again with the first refresh token, as a program with an outdated token would.
func (w *twoServers) use(by way) {
	w.t.Helper()
	call := func(domain, code, refresh string) {
		w.t.Helper()
		c, err := by.open(w, w.t.Context(), domain, code, refresh)
		if err != nil {
			w.t.Fatalf("%s: %v", domain, err)
		}
		res, err := c.Get("https://api." + domain + "/")
		if err != nil {
			w.t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			w.t.Fatalf("%s: the API answers %d", domain, res.StatusCode)
		}
	}
	first := map[string]tokenstore.Token{}
	for _, d := range []string{serverA, serverB} {
		call(d, w.net.Code(d), "")
		first[d] = w.kept(d)
	}
	for range 2 {
		w.clock.Advance(2 * time.Hour)
		for _, d := range []string{serverA, serverB} {
			call(d, "", "")
			call(d, "", string(first[d].RefreshToken))
			if got := w.kept(d); got.ID != first[d].ID || got.AccessToken == first[d].AccessToken || got.RefreshToken == first[d].RefreshToken {
				w.t.Errorf("%s: the record was %s and is %s, or is not refreshed", d, first[d].ID, got.ID)
			}
		}
	}
	all, err := w.store.GetTokens(w.t.Context())
	if err != nil || len(all) != 2 || w.kept(serverA).ID == w.kept(serverB).ID {
		w.t.Errorf("there are %d records, want 2 with different IDs: %v", len(all), err)
	}
}

// mix checks that New and RevokeToken refuse to use the record of one server at the other server.
// New must refuse whether the record is found by ID or by access token.
func (w *twoServers) mix() {
	w.t.Helper()
	ctx, a := w.t.Context(), w.kept(serverA)
	for what, like := range map[string]tokenstore.Token{
		"ID":           {ID: a.ID},
		"access token": {AccessToken: a.AccessToken},
	} {
		c := w.config(serverB, like)
		c.OAuth2.ClientID = ""
		if _, err := initializer.New(ctx, c); !errors.Is(err, tokenstore.ErrIDMismatch) {
			w.t.Errorf("by the %s: %v", what, err)
		}
	}
	if err := initializer.RevokeToken(ctx, w.config(serverB, tokenstore.Token{UserName: "ann"}), a); !errors.Is(err, tokenstore.ErrIDMismatch) {
		w.t.Errorf("the other server's token is revoked: %v", err)
	}
}

// end forgets one record after another, and checks that each call revokes and deletes only one
// record.
func (w *twoServers) end(by way) {
	w.t.Helper()
	for i, d := range []string{serverB, serverA} {
		kept := w.kept(d)
		f, err := by.forget(w, w.t.Context(), d)
		if err != nil || !f.Revoked || !f.Deleted || f.ID != kept.ID {
			w.t.Errorf("forgotten was %+v: %v", f, err)
		}
		if all, err := w.store.GetTokens(w.t.Context()); err != nil || len(all) != 1-i {
			w.t.Errorf("%d records are left: %v", len(all), err)
		}
	}
}

// apart checks that no server received a secret that the other server issued.
func (w *twoServers) apart() {
	w.t.Helper()
	for _, d := range []string{serverA, serverB} {
		own := 0
		for _, other := range []string{serverA, serverB} {
			for _, secret := range w.net.Issued(other) {
				switch sent := strings.Contains(w.net.Sent(d), secret); {
				case sent && other != d:
					w.t.Errorf("%s was sent what %s issued: %s", d, other, secret)
				case sent:
					own++
				}
			}
		}
		// The eight secrets are the client's secret, the code, three access tokens and three
		// refresh tokens.
		if own < 8 {
			w.t.Errorf("%s was sent %d secrets of its own, want 8 at least", d, own)
		}
	}
}
