package initializer_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

func TestNewWithCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.open(byCode(w.zoho.Code(consent())))
	got := w.token(c)
	if got.UserName != user || got.RefreshToken == "" || got.APIDomain != "https://www.zohoapis.com" || !got.ExpiresAt.Equal(w.clock.Now().Add(time.Hour)) {
		t.Errorf("the token is %s", describe(got))
	}
	if stored := w.record(); stored != got {
		t.Errorf("stored is\n\t%s\nand not\n\t%s", describe(stored), describe(got))
	}
	w.asked(1, 0)
}

func TestNewFromStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	code := w.zoho.Code(consent())
	first := w.token(w.open(byCode(code)))
	for name, like := range map[string]tokenstore.Token{
		"the same code":           byCode(code),
		"the refresh token":       byRefresh(string(first.RefreshToken)),
		"the user":                {UserName: user},
		"the user and the client": byUser(),
		"the ID":                  {ID: first.ID},
		"the ID and the user":     {ID: first.ID, UserName: user},
		"the access token":        {AccessToken: first.AccessToken},
		"the user and the code":   {UserName: user, ClientID: clientID, ClientSecret: secret, GrantToken: tokenstore.Secret(code)},
	} {
		before := len(w.zoho.Requests())
		if got := w.token(w.open(like)); got.ID != first.ID || got.AccessToken != first.AccessToken {
			t.Errorf("%s: the token is %s", name, describe(got))
		}
		if n := len(w.zoho.Requests()) - before; n != 0 {
			t.Errorf("%s: there were %d requests", name, n)
		}
	}
	w.record()
}

func TestExchangeStoresCodeFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	code := w.zoho.Code(consent())
	seen := false
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange {
			rec := w.record()
			seen = string(rec.GrantToken) == code && rec.AccessToken == "" && rec.UserName == ""
		}
		return nil
	})
	w.open(byCode(code))
	if !seen {
		t.Error("the code was not stored when it was exchanged")
	}
}

func TestExchangeFindUserFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	code := w.zoho.Code(consent())
	calls := 0
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind != zohoaccounts.API {
			return nil
		}
		if calls++; w.record().RefreshToken == "" {
			t.Error("the refresh token was not stored when the CRM was called")
		}
		return &zohoaccounts.Fault{Drop: true}
	})
	got := w.token(w.open(byCode(code)))
	if calls == 0 || got.UserName != "" {
		t.Fatalf("the CRM was called %d times, and the user is %q", calls, got.UserName)
	}
	// The next New looks up the user.
	w.zoho.Inject(nil)
	if got := w.token(w.open(byCode(code))); got.UserName != user {
		t.Errorf("the token is %s", describe(got))
	}
	w.record()
	w.asked(1, 0)
}

func TestNewWithoutFindUser(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "ann"} {
		w := newWorld(t, nil)
		like := byCode(w.zoho.Code(consent()))
		like.UserName = name
		conf := w.config(like)
		conf.FindUser = false
		w.start(conf)
		if rec := w.record(); rec.UserName != name || rec.RefreshToken == "" {
			t.Errorf("%q: the record is %s", name, describe(rec))
		}
		if n := w.zoho.Count(zohoaccounts.API); n != 0 {
			t.Errorf("%q: the CRM was called %d times", name, n)
		}
	}
}

func TestFindUserMissingScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := consent()
	c.Scopes = []string{"ZohoCRM.modules.ALL"}
	w.token(w.open(byCode(w.zoho.Code(c))))
	if rec := w.record(); rec.UserName != "" || rec.RefreshToken == "" {
		t.Errorf("the record is %s", describe(rec))
	}
}

func TestNewWithRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	refresh, _ := w.zoho.Tokens(consent())
	got := w.token(w.open(byRefresh(refresh)))
	if got.UserName != user || string(got.RefreshToken) != refresh || w.record() != got {
		t.Errorf("the token is %s", describe(got))
	}
	w.asked(0, 1)
}

func TestNewWithAccessToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	_, access := w.zoho.Tokens(consent())
	got := w.token(w.open(tokenstore.Token{AccessToken: tokenstore.Secret(access)}))
	if got.UserName != user || got.APIDomain != "https://www.zohoapis.com" || w.record() != got {
		t.Errorf("the token is %s", describe(got))
	}
	w.asked(0, 0)
}

func TestNewExpiredToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	old := w.saved(true)
	got := w.token(w.open(tokenstore.Token{ID: old.ID}))
	if got.AccessToken == old.AccessToken || got.RefreshToken != old.RefreshToken || w.record() != got {
		t.Errorf("the token is %s", describe(got))
	}
	w.asked(0, 1)
}

func TestEarlyExpiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conf := w.config(tokenstore.Token{ID: w.saved(false).ID})
	conf.EarlyExpiry = 5 * time.Minute
	c := w.start(conf)
	first := w.token(c)
	w.clock.Advance(54 * time.Minute)
	if w.token(c) != first {
		t.Error("it was replaced six minutes before its end")
	}
	w.clock.Advance(time.Minute)
	if w.token(c).AccessToken == first.AccessToken {
		t.Error("it was not replaced five minutes before its end")
	}
	w.asked(0, 1)
}

func TestEarlyExpiryShortToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{AccessLife: 4 * time.Second})
	refresh, _ := w.zoho.Tokens(consent())
	c := w.open(byRefresh(refresh))
	first := w.token(c)
	w.clock.Advance(time.Second)
	if w.token(c).AccessToken != first.AccessToken {
		t.Error("it was replaced after a second")
	}
	w.clock.Advance(time.Second)
	if w.token(c).AccessToken == first.AccessToken {
		t.Error("it was not replaced after two seconds")
	}
}

func TestExpiresInMayBeMilliseconds(t *testing.T) {
	t.Parallel()
	for body, life := range map[string]time.Duration{
		`{"access_token":"a","expires_in":1800}`:                              30 * time.Minute,
		`{"access_token":"a","expires_in":"1800"}`:                            30 * time.Minute,
		`{"access_token":"a","expires_in":1800000,"expires_in_sec":1800}`:     30 * time.Minute,
		`{"access_token":"a"}`:                                                time.Hour,
		`{"access_token":"a","expires_in":0}`:                                 time.Hour,
		`{"access_token":"a","expires_in":-5}`:                                time.Hour,
		`{"access_token":"a","expires_in":1e300}`:                             10 * 365 * 24 * time.Hour,
		`{"access_token":"a","expires_in":3600,"token_type":"Bearer","x":{}}`: time.Hour,
	} {
		w := newWorld(t, nil)
		conf := w.config(byRefresh("canary-refresh"))
		conf.FindUser = false
		w.answers(ok(body))
		got, err := w.start(conf).Token(t.Context())
		if err != nil || !got.ExpiresAt.Equal(w.clock.Now().Add(life)) {
			t.Errorf("%s: it expires at %v: %v", body, got.ExpiresAt, err)
		}
	}
}

func TestNewSecondConsent(t *testing.T) {
	t.Parallel()
	for name, sameUser := range map[string]bool{"the user is found out": false, "the user is given": true} {
		w := newWorld(t, nil)
		first := w.token(w.open(byCode(w.zoho.Code(consent()))))
		w.clock.Advance(time.Minute)
		like := byCode(w.zoho.Code(consent()))
		if sameUser {
			like.UserName = user
		}
		second := w.token(w.open(like))
		if second.ID != first.ID || second.RefreshToken == first.RefreshToken || w.record() != second {
			t.Errorf("%s: the token is\n\t%s\nafter\n\t%s", name, describe(second), describe(first))
		}
		w.asked(2, 0)
	}
}

func TestNewBadCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.token(w.open(byCode(w.zoho.Code(consent()))))
	like := byCode("1000.canary-burnt")
	w.openError(w.config(like), initializer.ErrReauthRequired)
	w.openError(w.config(like), initializer.ErrReauthRequired) // the store keeps the refusal
	w.asked(2, 0)

	// With a user name, New uses the record of the user.
	like.UserName = user
	if got := w.token(w.open(like)); got != first {
		t.Errorf("the token is\n\t%s\nand not\n\t%s", describe(got), describe(first))
	}
	w.asked(2, 0)
}

func TestConfiguredRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	old := w.saved(true)
	newer, _ := w.zoho.Tokens(consent())
	like := byRefresh(newer)
	like.UserName = user
	if got := w.token(w.open(like)); got.RefreshToken != old.RefreshToken {
		t.Error("the stored refresh token was not used though it is good")
	}
	w.zoho.RevokeTokens(clientID, "abc.a@zoho.com")
	w.clock.Advance(time.Hour)
	newest, _ := w.zoho.Tokens(consent())
	like.RefreshToken = tokenstore.Secret(newest)
	got := w.token(w.open(like))
	if string(got.RefreshToken) != newest || got.ID != old.ID || w.record() != got {
		t.Errorf("the token is %s", describe(got))
	}
}

func TestClientSecretChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	old := w.saved(true)
	const changed = "canary-new-secret"
	w.zoho.AddClient(zohoaccounts.Client{ID: clientID, Secret: changed})
	w.openError(w.config(tokenstore.Token{ID: old.ID}), initializer.ErrClient)
	w.token(w.open(tokenstore.Token{ID: old.ID, ClientID: clientID, ClientSecret: changed}))
	if rec := w.record(); rec.ClientSecret != changed {
		t.Errorf("the record has the client secret %q", string(rec.ClientSecret))
	}
}

func TestWhatIsNotThereHasToBeAuthorized(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for name, like := range map[string]tokenstore.Token{
		"a user": {UserName: "nobody"},
		"an ID":  {ID: "99"},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.openError(w.config(like), initializer.ErrReauthRequired)
			w.wants(err, tokenstore.ErrNotFound)
		})
	}
	w.saved(false)
	like := byCode(w.zoho.Code(consent()))
	w.open(like)
	like.UserName = "another"
	w.openError(w.config(like), tokenstore.ErrIDMismatch)
}

func TestAPIDomainOfRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{DataCenter: "eu"})
	c := consent()
	c.Environment = "sandbox"
	conf := w.config(byCode(w.zoho.Code(c)))
	conf.Environment = initializer.EU.Production()
	client := w.start(conf)
	got := w.token(client)
	if got.UserName != user || client.APIDomain() != "https://sandbox.zohoapis.eu" || got.APIDomain != client.APIDomain() {
		t.Fatalf("the token is %s", describe(got))
	}

	// A Client configured for another data center finds the record, and refreshes it at the data
	// center of the record.
	w.clock.Advance(2 * time.Hour)
	conf.Environment = initializer.US.Production()
	conf.Token = byUser()
	client = w.start(conf)
	w.token(client)
	last := w.zoho.Requests()[len(w.zoho.Requests())-1]
	if last.Host != "accounts.zoho.eu" || client.APIDomain() != "https://sandbox.zohoapis.eu" {
		t.Errorf("it was refreshed at %s, for %s", last.Host, client.APIDomain())
	}
}

func TestAnswerWithoutAPIDomain(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"", `,"api_domain":"http://example.com"`, `,"api_domain":"javascript:x"`, `,"api_domain":"https://u:p@example.com"`} {
		w := newWorld(t, nil)
		old := w.saved(true)
		if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, APIDomain: "https://sandbox.zohoapis.com"}); err != nil {
			t.Fatal(err)
		}
		w.answers(ok(`{"access_token":"a","expires_in":3600` + domain + `}`))
		w.open(tokenstore.Token{ID: old.ID})
		if rec := w.record(); rec.APIDomain != "https://sandbox.zohoapis.com" || rec.RefreshToken != old.RefreshToken {
			t.Errorf("%s: the record is %s", domain, describe(rec))
		}
	}
}

func TestSwitchUserLeavesTheFirstClientAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first := w.open(byCode(w.zoho.Code(consent())))
	other := consent()
	other.Email, other.ZGID = "b@zoho.com", "7"
	second, err := first.SwitchUser(t.Context(), tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(other))})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := w.token(first), w.token(second); a.UserName != user || b.UserName != "b@zoho.com:7" || len(w.records()) != 2 {
		t.Errorf("the users are %q and %q", a.UserName, b.UserName)
	}
}

func TestRevokeEndsTheTokensAndTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.open(byCode(w.zoho.Code(consent())))
	got := w.token(c)
	if err := c.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.zoho.Alive(string(got.AccessToken)) || len(w.records()) != 0 {
		t.Error("the token is still good, or stored")
	}
	_, err := c.Token(t.Context())
	w.wants(err, initializer.ErrReauthRequired)
	requests := w.zoho.Requests()
	if last := requests[len(requests)-1]; len(last.Query) != 0 {
		t.Error("the token was sent in the URL")
	}
}

func TestRevokeStoredRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.open(byCode(w.zoho.Code(consent())))
	w.token(w.open(byCode(w.zoho.Code(consent())))) // a second consent in another process
	now := w.record()
	if err := c.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.zoho.Alive(string(now.AccessToken)) || len(w.records()) != 0 {
		t.Error("what the other process had got was not revoked")
	}
}

func TestRevokeRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.open(byCode(w.zoho.Code(consent())))
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return status(503, "<html>") })
	w.wants(c.Revoke(t.Context()), initializer.ErrServer)
	w.zoho.Inject(nil)
	w.outages.set(false, true)
	w.wants(c.Revoke(t.Context()), tokenstore.ErrUnavailable)
	w.outages.set(false, false)
	if err := c.Revoke(t.Context()); err != nil || len(w.records()) != 0 {
		t.Errorf("Revoke: %v; %d records", err, len(w.records()))
	}
}

func TestClientClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.open(tokenstore.Token{ID: w.saved(false).ID})
	source, h := c.TokenSource(t.Context()), c.HTTPClient(t.Context())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Token(t.Context())
	w.wants(err, initializer.ErrClosed)
	_, err = source.Token()
	w.wants(err, initializer.ErrClosed)
	_, err = h.Get("/crm/v8/Leads")
	w.wants(err, initializer.ErrClosed)
	_, err = c.SwitchUser(t.Context(), byUser())
	w.wants(err, initializer.ErrClosed)
	w.wants(c.Revoke(t.Context()), initializer.ErrClosed)
}

func TestClientPrinting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conf := w.config(byCode(w.zoho.Code(consent())))
	c := w.start(conf)
	w.token(c)
	for _, v := range []any{c, *c.HTTPClient(t.Context()), c.TokenSource(t.Context()), conf} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
			w.clean(fmt.Sprintf("%s of a %T", verb, v), fmt.Sprintf(verb, v))
		}
		var b strings.Builder
		slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
		w.clean("a log record", b.String())
	}
}

// TestFilestoreForgottenID checks that a Client finds its record again if the store has dropped
// the ID. A store in the format of the SDKs drops the ID of a record that it merges into the
// user's record.
func TestFilestoreForgottenID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	path := filepath.Join(t.TempDir(), "sdk_tokens.txt")
	open := func() *filestore.Store {
		s, err := filestore.New(path, &filestore.Options{Now: w.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	conf := w.config(byCode(w.zoho.Code(consent())))
	conf.Store = open()
	w.start(conf)

	w.clock.Advance(time.Minute)

	// Another process starts with a second code, without FindUser. A third process with the
	// same code looks up the user, so that the store merges the records.
	conf.Token, conf.FindUser = byCode(w.zoho.Code(consent())), false
	second := w.start(conf)
	conf.FindUser = true
	w.start(conf)
	w.clock.Advance(2 * time.Hour)
	if got := w.token(second); got.UserName != user {
		t.Errorf("the token is %s", describe(got))
	}
	tokens, err := open().GetTokens(t.Context())
	if err != nil || len(tokens) != 1 {
		t.Errorf("there are %d records: %v", len(tokens), err)
	}
}

func TestStoreWithoutRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conf := w.config(byCode(w.zoho.Code(consent())))
	conf.Store = simple{w.store}
	c := w.start(conf)
	first := w.token(c)
	w.clock.Advance(2 * time.Hour)
	if got := w.token(c); got.AccessToken == first.AccessToken || w.record() != got {
		t.Errorf("the token is %s", describe(got))
	}
	w.asked(1, 1)
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for name, change := range map[string]func(*initializer.Config){
		"no store":                  func(c *initializer.Config) { c.Store = nil },
		"no server":                 func(c *initializer.Config) { c.Environment = initializer.Environment{} },
		"an unknown data center":    func(c *initializer.Config) { c.Environment = initializer.DataCenter("xx").Production() },
		"plain http":                func(c *initializer.Config) { c.Environment.AccountsURL = "http://accounts.zoho.com" },
		"a name like an address":    func(c *initializer.Config) { c.Environment.AccountsURL = "http://127.example.com" },
		"an empty token":            func(c *initializer.Config) { c.Token = tokenstore.Token{} },
		"a code without a client":   func(c *initializer.Config) { c.Token = tokenstore.Token{GrantToken: "canary"} },
		"a code without the secret": func(c *initializer.Config) { c.Token.ClientSecret = "" },
		"a redacted secret":         func(c *initializer.Config) { c.Token.ClientSecret = "[redacted]" },
		"a negative EarlyExpiry":    func(c *initializer.Config) { c.EarlyExpiry = -1 },
		"a domain that is no URL":   func(c *initializer.Config) { c.Token.APIDomain = "zohoapis.com" },
		"a RevokeURL with Zoho":     func(c *initializer.Config) { c.RevokeURL = "https://example.com" },
	} {
		conf := w.config(byCode("1000.canary"))
		change(&conf)
		c, err := initializer.New(t.Context(), conf)
		if c != nil || err == nil {
			t.Errorf("%s: New returned %v and the error %v", name, c != nil, err)
			continue
		}
		w.clean(name, err.Error())
	}
	if n := w.outages.count() + len(w.zoho.Requests()); n != 0 {
		t.Errorf("there were %d calls", n)
	}
}
