package initializer_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// standard returns a configuration for a server other than Zoho's. The configuration has no issuer,
// because the records that tests save have none.
func (w *world) standard(t tokenstore.Token) initializer.Config {
	c := w.config(t)
	c.Environment, c.FindUser = initializer.Environment{}, false
	c.OAuth2 = &oauth2.Config{
		ClientID: clientID, ClientSecret: secret, RedirectURL: redirect,
		Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/oauth/v2/token", AuthStyle: oauth2.AuthStyleInHeader},
	}
	c.RevokeURL = "https://id.example.com/oauth/v2/token/revoke"
	c.Issuer = initializer.NoIssuer
	return c
}

func TestAnyServerWithRotatingRefreshTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{Strict: true})
	like := tokenstore.Token{UserName: "ann", GrantToken: tokenstore.Secret(w.zoho.Code(consent()))}
	c := w.start(w.standard(like))
	first := w.token(c)
	if first.UserName != "ann" || first.ClientSecret != "" || first.RefreshToken == "" || first.APIDomain != "" {
		t.Errorf("the token is %s, client secret %q", describe(first), string(first.ClientSecret))
	}
	last := first
	for range 12 {
		w.clock.Advance(2 * time.Hour)
		next := w.token(c)
		if next.RefreshToken == last.RefreshToken || w.record() != next {
			t.Fatalf("the token is %s", describe(next))
		}
		last = next
	}

	// A configuration with the first refresh token finds the record. The Client does not use
	// that token, because the server would then revoke all tokens.
	w.clock.Advance(2 * time.Hour)
	old := tokenstore.Token{RefreshToken: first.RefreshToken}
	w.token(w.start(w.standard(old)))
	w.asked(1, 13)
	if n := w.zoho.Refused("invalid_grant"); n != 0 {
		t.Errorf("%d requests were refused", n)
	}
}

func TestAnyServersTokenIsSentAsBearer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{Strict: true})
	c := w.start(w.standard(tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))}))
	if tok, err := c.TokenSource(t.Context()).Token(); err != nil || tok.Type() != "Bearer" || tok.RefreshToken != "" {
		t.Errorf("the source: %v", err)
	}
	res, err := c.HTTPClient(t.Context()).Get("https://api.example.com/crm/v8/Leads")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(err)
	}
	if _, err := c.HTTPClient(t.Context()).Get("/crm/v8/Leads"); err == nil {
		t.Error("a URL without a host was taken though there is no API domain")
	}
	requests := w.zoho.Requests()
	if h := requests[len(requests)-1].Header.Get("Authorization"); !strings.HasPrefix(h, "Bearer ") {
		t.Error("the scheme is not Bearer")
	}
	if err := c.Revoke(t.Context()); err != nil || len(w.records()) != 0 {
		t.Errorf("Revoke: %v", err)
	}
}

// TestAuthStyleAutoDetect checks that the exchange of a one-time code is repeated in the other
// style only if the server refuses the client.
func TestAuthStyleAutoDetect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{Strict: true})
	conf := w.standard(tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))})
	conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Form.Get("client_id") != "" { // this server requires the credentials in the header
			return &zohoaccounts.Fault{Status: http.StatusUnauthorized, Body: `{"error":"invalid_client"}`, Header: http.Header{"Content-Type": {"application/json"}}}
		}
		return nil
	})
	c := w.start(conf)
	w.asked(2, 0)
	w.clock.Advance(2 * time.Hour)
	w.token(c)
	w.asked(2, 1)

	// The exchange is not repeated if its response is lost.
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &zohoaccounts.Fault{Drop: true, Applied: true} })
	conf.Token = tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))}
	w.openError(conf, initializer.ErrServer)
	w.asked(3, 1)
}

func TestErrorClasses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer *zohoaccounts.Fault
		class  error
	}{
		"invalid_grant":         {status(400, `{"error":"invalid_grant","error_description":"canary"}`), initializer.ErrReauthRequired},
		"access_denied":         {status(403, `{"error":"access_denied"}`), initializer.ErrReauthRequired},
		"invalid_client":        {status(401, `{"error":"invalid_client"}`), initializer.ErrClient},
		"401 without a word":    {status(401, ``), initializer.ErrClient},
		"unauthorized_client":   {status(400, `{"error":"unauthorized_client"}`), initializer.ErrClient},
		"429":                   {status(429, `canary`), initializer.ErrThrottled},
		"slow_down":             {status(400, `{"error":"slow_down"}`), initializer.ErrThrottled},
		"server_error":          {status(500, `{"error":"server_error"}`), initializer.ErrServer},
		"HTML":                  {status(200, `<html>canary</html>`), initializer.ErrServer},
		"a form that is broken": {&zohoaccounts.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: "access_token=canary%zz"}, initializer.ErrServer},
		"no access token":       {status(200, `{"token_type":"Bearer"}`), initializer.ErrServer},
		"half an answer":        {status(200, `{"access_token":"canary"`), initializer.ErrServer},
		"five megabytes":        {status(200, `{"access_token":"canary","x":"`+strings.Repeat("a", 5<<20)+`"}`), initializer.ErrServer},
		"a redirect":            {&zohoaccounts.Fault{Status: 307, Header: http.Header{"Location": {"https://elsewhere.example.com/"}}}, initializer.ErrServer},
		"no answer":             {&zohoaccounts.Fault{Drop: true}, initializer.ErrServer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			old := w.saved(true)
			w.answers(c.answer)
			w.openError(w.standard(tokenstore.Token{ID: old.ID}), c.class)
			if w.record() != old {
				t.Errorf("the record is %s", describe(w.record()))
			}
			w.asked(0, 1)
			if n := w.zoho.Count(zohoaccounts.Other); n != 0 {
				t.Error("the redirect was followed")
			}
		})
	}
}

func TestExchangePKCEVerifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conf := w.standard(tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))})
	verifier := oauth2.GenerateVerifier()
	conf.ExchangeOptions = []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	w.start(conf)
	if form := w.zoho.Requests()[0].Form; form.Get("code_verifier") != verifier || form.Get("redirect_uri") != redirect {
		t.Errorf("the request was %v", form)
	}
}

func TestTokenWithoutExpiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.answers(ok(`{"access_token":"canary-1","refresh_token":"canary-r","token_type":"bearer"}`))
	c := w.start(w.standard(tokenstore.Token{GrantToken: "canary-code"}))
	w.clock.Advance(1000 * time.Hour)
	if got, err := c.Token(t.Context()); err != nil || got.AccessToken != "canary-1" || !got.ExpiresAt.IsZero() {
		t.Fatalf("the token is %s: %v", describe(got), err)
	}
	w.answers(ok(`{"access_token":"canary-2","token_type":"bearer"}`))
	if _, err := c.HTTPClient(t.Context()).Get("https://api.example.com/crm/v8/Leads"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Token(t.Context()); err != nil || got.AccessToken != "canary-2" || got.RefreshToken != "canary-r" {
		t.Fatalf("the token is %s: %v", describe(got), err)
	}
}

func TestRevokeNeedsARevokeURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conf := w.standard(tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))})
	conf.RevokeURL = ""
	if err := w.start(conf).Revoke(t.Context()); err == nil || len(w.records()) != 1 {
		t.Errorf("Revoke: %v; there are %d records", err, len(w.records()))
	}
}
