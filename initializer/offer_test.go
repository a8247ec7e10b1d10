package initializer_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// TestOffer checks that Offer keeps the newer of the stored token and the given token. A record
// with the refresh token "kept" had the refresh token "first" before.
func TestOffer(t *testing.T) {
	t.Parallel()
	const (
		never   = time.Duration(0)
		past    = -time.Hour
		soon    = time.Hour
		later   = 2 * time.Hour
		rotates = "first"
	)
	for _, c := range []struct {
		what                    string
		kept, given             string // access tokens
		keptEnds, givenEnds     time.Duration
		keptRefresh             string
		givenRefresh            string
		wantAccess, wantRefresh string
	}{
		// The given token is older than the stored token, equals the stored token, or has no access
		// token.
		{"an earlier refresh token", "new", "old", soon, past, "kept", rotates, "new", "kept"},
		{"an earlier refresh token, lifetimes unknown", "new", "old", never, never, "kept", rotates, "new", "kept"},
		{"an earlier refresh token, of a token that lives long", "new", "old", soon, later, "kept", rotates, "old", "kept"},
		{"an earlier refresh token alone", "new", "", soon, never, "kept", rotates, "new", "kept"},
		{"any refresh token alone", "new", "", soon, never, "kept", "other", "new", "kept"},
		{"an older token of a lineage that is not known", "new", "old", soon, past, "kept", "other", "new", "kept"},
		{"an older token without a refresh token", "new", "old", soon, past, "kept", "", "new", "kept"},
		{"a token of no lifetime beside one that has", "new", "old", soon, never, "kept", "other", "new", "kept"},
		{"an expired token beside one of no lifetime", "new", "old", never, past, "kept", "other", "new", "kept"},
		{"a handed out token, lifetimes unknown", "new", "old", never, never, "kept", "", "new", "kept"},
		{"the same token", "new", "new", soon, soon, "kept", "kept", "new", "kept"},
		{"the same token, handed out", "new", "new", soon, soon, "kept", "", "new", "kept"},
		{"the same refresh token, older", "new", "old", soon, past, "kept", "kept", "new", "kept"},
		{"the same refresh token, lifetimes unknown", "new", "old", never, never, "kept", "kept", "new", "kept"},

		// The given token results from another consent, or from a refresh by another program.
		{"another consent", "old", "new", soon, later, "kept", "other", "new", "other"},
		{"another consent, after the end", "old", "new", past, soon, "kept", "other", "new", "other"},
		{"another consent, lifetimes unknown", "old", "new", never, never, "kept", "other", "new", "other"},
		{"another consent, the first lifetime", "old", "new", never, soon, "kept", "other", "new", "other"},
		{"another consent without a refresh token", "old", "new", soon, later, "kept", "", "new", "kept"},
		{"another consent, access tokens alone", "old", "new", never, never, "", "", "new", ""},
		{"a refresh by another program, the refresh token stays", "old", "new", past, soon, "kept", "kept", "new", "kept"},
		{"a refresh token for a record that has none", "new", "new", soon, soon, "", "other", "new", "other"},
	} {
		clock := newClock()
		at := func(d time.Duration) time.Time {
			if d == never {
				return time.Time{}
			}
			return clock.Now().Add(d)
		}
		store := memstore.New(&tokenstore.Options{Now: clock.Now})
		save := func(access, refresh string, ends time.Time) {
			t.Helper()
			if _, err := store.SaveToken(t.Context(), tokenstore.Token{
				UserName: user, ClientID: clientID, Issuer: "https://as.example", AccessToken: tokenstore.Secret(access), RefreshToken: tokenstore.Secret(refresh), ExpiresAt: ends,
			}); err != nil {
				t.Fatal(err)
			}
		}
		if c.keptRefresh != "" {
			save("before", rotates, at(past))
		}
		save(c.kept, c.keptRefresh, at(c.keptEnds))
		conf := initializer.Config{
			OAuth2: &oauth2.Config{ClientID: clientID, Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}},
			Issuer: "https://as.example", Store: store, Token: tokenstore.Token{UserName: user}, Now: clock.Now,
		}
		given := tokenstore.Token{AccessToken: tokenstore.Secret(c.given), RefreshToken: tokenstore.Secret(c.givenRefresh), ExpiresAt: at(c.givenEnds), Scope: "given"}
		got, err := initializer.Offer(t.Context(), conf, given)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if string(got.AccessToken) != c.wantAccess || string(got.RefreshToken) != c.wantRefresh {
			t.Errorf("%s: kept are %q and %q", c.what, string(got.AccessToken), string(got.RefreshToken))
		}
		if found, err := store.FindTokenByID(t.Context(), got.ID); err != nil || found != got {
			t.Errorf("%s: the store has %s: %v", c.what, describe(found), err)
		}
		// Repeating the offer does not change the record.
		if again, err := initializer.Offer(t.Context(), conf, given); err != nil || again != got {
			t.Errorf("%s, again: %s: %v", c.what, describe(again), err)
		}
	}
}

func TestOfferWithoutRecord(t *testing.T) {
	t.Parallel()
	conf := initializer.Config{
		OAuth2: &oauth2.Config{ClientID: clientID, ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}},
		Store:  memstore.New(nil), Token: tokenstore.Token{UserName: user},
	}
	given := tokenstore.Token{AccessToken: "a", RefreshToken: "r", Scope: "s", TokenType: "Bearer", IDToken: "i", Extra: `{"x":1}`}
	got, err := initializer.Offer(t.Context(), conf, given)
	want := given
	want.ID, want.UserName, want.ClientID, want.Issuer = got.ID, user, clientID, "https://id.example.com/token"
	if err != nil || got != want {
		t.Errorf("stored was %s, for %q: %v", describe(got), got.Issuer, err)
	}
	// The tokens are stored even though the members do not fit.
	given = tokenstore.Token{AccessToken: "later", RefreshToken: "r2", ExpiresAt: time.Now().Add(time.Hour), Extra: tokenstore.Secret(`{"large":"` + strings.Repeat("x", codec.MaxExtra) + `","y":2}`)}
	if got, err = initializer.Offer(t.Context(), conf, given); err != nil || got.AccessToken != "later" || got.Extra != `{"x":1,"y":2}` {
		t.Errorf("stored was %s, with the Extra %.40s: %v", describe(got), string(got.Extra), err)
	}
	conf.Token = tokenstore.Token{ID: "x"}
	if _, err := initializer.Offer(t.Context(), conf, given); !errors.Is(err, tokenstore.ErrInvalidToken) {
		t.Errorf("without a user: %v", err)
	}
	if _, err := initializer.Forget(t.Context(), conf); !errors.Is(err, tokenstore.ErrInvalidToken) {
		t.Errorf("without a user: %v", err)
	}
}
