package cli

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A forgetWorld is a store, and an authorization server with three OAuth clients.
type forgetWorld struct {
	env
	t      *testing.T
	zoho   *zohoaccounts.Server
	onOut  func()            // called when the program writes to standard output
	access map[string]string // access tokens by client and user
}

func newForgetWorld(t *testing.T, e env, opts *zohoaccounts.Options) *forgetWorld {
	t.Helper()
	w := &forgetWorld{env: e, t: t, zoho: zohoaccounts.New(opts), access: map[string]string{}}
	for client, center := range map[string]string{"of-eu": "eu", "of-us": "us", "plain": ""} {
		w.zoho.AddClient(zohoaccounts.Client{ID: client, Secret: canary + client, DataCenter: center})
	}
	return w
}

// adds saves a record of the user and client with valid tokens.
func (w *forgetWorld) adds(user, client, apiDomain string) {
	w.t.Helper()
	refresh, access := w.zoho.Tokens(zohoaccounts.Consent{ClientID: client, Email: user})
	w.access[client+" "+user] = access
	w.ok(w.t, `{"user_name":"`+user+`","client_id":"`+client+`","client_secret":"`+canary+client+`","refresh_token":"`+refresh+
		`","access_token":"`+access+`","expiry_time":4070908800000,"api_domain":"`+apiDomain+`"}`, "save")
}

// A tellingWriter calls the function tell before each write.
type tellingWriter struct {
	bytes.Buffer
	tell func()
}

func (w *tellingWriter) Write(p []byte) (int, error) {
	if w.tell != nil {
		w.tell()
	}
	return w.Buffer.Write(p)
}

// forget runs the command with the authorization server of w, and checks that the command prints
// no secrets.
func (w *forgetWorld) forget(args ...string) result {
	w.t.Helper()
	var errs bytes.Buffer
	out := &tellingWriter{tell: w.onOut}
	a := &app{schemes: allSchemes(), env: w.get, lookup: w.lookup, in: strings.NewReader(""), out: bufio.NewWriter(out), errs: &errs, now: time.Now, http: w.zoho.Client()}
	r := result{a.run(w.t.Context(), append([]string{"forget"}, args...)), out.String(), errs.String()}
	for _, q := range w.zoho.Requests() {
		for _, token := range q.Form["token"] {
			if strings.Contains(r.out+r.err, token) || strings.Contains(strings.Join(args, " "), token) || len(q.Query) > 0 {
				w.t.Errorf("forget %v shows a token: %+v", args, r)
			}
		}
	}
	if form := shown(r.out + r.err); form != "" {
		w.t.Errorf("forget %v shows %s of a secret: %+v", args, form, r)
	}
	return r
}

// wants checks the exit code and the remaining records. Each element of the parameter left
// consists of a client and a user.
func (w *forgetWorld) wants(r result, code int, left ...string) {
	w.t.Helper()
	var got []string
	for _, rec := range decode[[]recordJSON](w.t, w.ok(w.t, "", "ls", "--json")) {
		got = append(got, rec.ClientID+" "+rec.UserName)
	}
	for _, want := range left {
		if !strings.Contains(strings.Join(got, ","), want) {
			w.t.Errorf("%s is gone", want)
		}
	}
	if r.code != code || len(got) != len(left) {
		w.t.Errorf("exit code %d, want %d; records %v, want %v\n%s%s", r.code, code, got, left, r.out, r.err)
	}
}

func (w *forgetWorld) alive(who string) bool { return w.zoho.Alive(w.access[who]) }

const eu, us = "https://www.zohoapis.eu", "https://sandbox.zohoapis.com"

func TestForget(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		if kind.name == "mysql" || kind.name == "localstack" {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w := newForgetWorld(t, kind.open(t), nil)
			w.adds("ann", "of-eu", eu)
			w.adds("ann", "of-us", us)
			w.adds("bob", "of-eu", eu)

			r := w.forget("--user", "ann", "--dry-run")
			w.wants(r, 0, "of-eu ann", "of-us ann", "of-eu bob")
			if !strings.Contains(r.out, "would be revoked at accounts.zoho.eu, and deleted") || !strings.Contains(r.out, "2 records of "+w.get(envStore)+" would be forgotten") {
				t.Errorf("dry run: %s", r.out)
			}
			if len(w.zoho.Requests()) > 0 {
				t.Error("the dry run asks the server")
			}

			r = w.forget("--user", "ann", "--client", "of-us", "--yes", "--json")
			w.wants(r, 0, "of-eu ann", "of-eu bob")
			got := decode[forgetting](t, r.out)
			if got.Before != 1 || got.After != 0 || len(got.Records) != 1 || !got.Records[0].Revoked || !got.Records[0].Deleted || got.Records[0].Server != "accounts.zoho.com" {
				t.Errorf("report: %+v", got)
			}

			r = w.forget("--user", "ann", "--yes")
			w.wants(r, 0, "of-eu bob")
			if !strings.Contains(r.out, "revoked at accounts.zoho.eu, deleted") || !strings.Contains(r.out, "before, 0 after") {
				t.Errorf("report: %s", r.out)
			}
			if w.alive("of-eu ann") || w.alive("of-us ann") || !w.alive("of-eu bob") {
				t.Error("tokens of ann are alive, or bob's are not")
			}
			for _, q := range w.zoho.Requests() {
				if q.Kind != zohoaccounts.Revoke || q.Host != "accounts.zoho.eu" && q.Host != "accounts.zoho.com" {
					t.Errorf("%s asked for %s", q.Host, q.Kind)
				}
			}
			w.wants(w.forget("--user", "ann", "--yes"), 3, "of-eu bob")
		})
	}
}

func TestForgetUsage(t *testing.T) {
	t.Parallel()
	w := newForgetWorld(t, fileStoreEnv(t), nil)
	w.adds("ann", "plain", "")
	w.adds("ann", "of-eu", "https://api.example.com")
	left := []string{"plain ann", "of-eu ann"}
	for _, args := range []string{
		"--yes", "--user ann", "--user ann --yes --dry-run", "--user ann --yes", "--user ann --dry-run", "ann --user ann --yes",
		"--user ann --yes --accounts-url https://a.example.com", // the records may belong to two servers
		"--user ann --client plain --yes --accounts-url http://a.example.com",
		"--user ann --client plain --yes --revocation-endpoint ftp://a.example.com",
		"--user ann --client plain --yes --revocation-endpoint https://u:" + canary + "@a.example.com",
		"--user ann --client plain --yes --accounts-url https://a.example.com --revocation-endpoint https://a.example.com",
	} {
		w.wants(w.forget(strings.Fields(args)...), 2, left...)
	}
	if n := len(w.zoho.Requests()); n > 0 {
		t.Errorf("%d requests", n)
	}
	w.wants(w.forget("--user", "ann", "--client", "plain", "--yes", "--accounts-url", "http://localhost:1"), 0, "of-eu ann")
	if w.alive("plain ann") {
		t.Error("the token is alive")
	}
	w.wants(w.forget("--user", "ann", "--yes", "--delete-unrevoked"), 10)
	if !w.alive("of-eu ann") {
		t.Error("a token was sent to a server that is not known")
	}
}

// TestForgetRevocationEndpoint checks that forget authenticates the client at a revocation
// endpoint that requires it.
func TestForgetRevocationEndpoint(t *testing.T) {
	t.Parallel()
	w := newForgetWorld(t, fileStoreEnv(t).with(envClientSecret, canary+"of-env"), nil)
	refresh, access := w.zoho.Tokens(zohoaccounts.Consent{ClientID: "plain", Email: "ann"})
	w.ok(t, `{"access_token":"`+access+`","token_type":"bearer","refresh_token":"`+refresh+`","expiry":"2099-01-01T00:00:00Z"}`, "save", "--user", "ann", "--client", "plain")
	w.wants(w.forget("--user", "ann", "--yes", "--revocation-endpoint", "https://id.example.com/oauth/v2/token/revoke"), 0)
	q := w.zoho.Requests()[0]
	user, password, _ := (&http.Request{Header: q.Header}).BasicAuth()
	if q.Host != "id.example.com" || user != "plain" || password != canary+"of-env" || w.zoho.Alive(access) {
		t.Errorf("%s was asked by %q, with a secret of %d bytes", q.Host, user, len(password))
	}
}

func TestForgetOneFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault zohoaccounts.Fault
		code  int
	}{
		"server fails":   {zohoaccounts.Fault{Status: http.StatusInternalServerError, Body: canary}, 8},
		"no answer":      {zohoaccounts.Fault{Drop: true}, 8},
		"client refused": {zohoaccounts.Fault{Status: http.StatusUnauthorized, Body: `{"error":"invalid_client","error_description":"` + canary + `"}`}, 14},
		"refused":        {zohoaccounts.Fault{Status: http.StatusBadRequest, Body: `{"error":"unsupported_token_type"}`}, 14},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := vaultEnv(t)
			w := newForgetWorld(t, e, nil)
			w.adds("ann", "of-eu", eu)
			w.adds("ann", "of-us", us)
			w.zoho.Inject(func(q zohoaccounts.Request) *zohoaccounts.Fault {
				if q.Host == "accounts.zoho.eu" {
					return &test.fault
				}
				return nil
			})
			w.wants(w.forget("--user", "ann", "--client", "of-eu", "--yes"), test.code, "of-eu ann", "of-us ann")
			r := w.forget("--user", "ann", "--yes")
			w.wants(r, 10, "of-eu ann")
			if !strings.Contains(r.out, "kept: not revoked") || !strings.Contains(r.out, "before, 1 after") {
				t.Errorf("report: %s", r.out)
			}
			// A failed revocation must not count as a refusal of the refresh token: a later
			// forget must try again.
			w.zoho.Inject(nil)
			if !w.alive("of-eu ann") {
				t.Fatal("the token is revoked")
			}
			w.wants(w.forget("--user", "ann", "--yes"), 0)
			if w.alive("of-eu ann") {
				t.Error("the token is alive")
			}
		})
	}
	w := newForgetWorld(t, fileStoreEnv(t), nil)
	w.adds("ann", "of-eu", eu)
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &zohoaccounts.Fault{Drop: true} })
	r := w.forget("--user", "ann", "--yes", "--delete-unrevoked")
	w.wants(r, 10)
	if !strings.Contains(r.out, "deleted, not revoked") {
		t.Errorf("report: %s", r.out)
	}
}

// TestForgetKnowsWhatIsRevoked checks that forget revokes a token even if the record holds a
// refusal, which prevents refreshes.
func TestForgetKnowsWhatIsRevoked(t *testing.T) {
	t.Parallel()
	e, _ := vaultEnv(t)
	w := newForgetWorld(t, e, nil)
	w.adds("ann", "of-eu", eu)
	s := w.store(t)
	ann, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "of-eu"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.TokenStore.(tokenstore.Refresher).Refresh(t.Context(), ann.ID, ann.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: "token_revoked", Permanent: true}
	})
	if err == nil {
		t.Fatal("no refusal")
	}
	w.wants(w.forget("--user", "ann", "--yes"), 0)
	if w.alive("of-eu ann") {
		t.Error("the token is alive")
	}
}

// store opens the store of w, as another process would.
func (w *forgetWorld) store(t *testing.T) *store {
	t.Helper()
	a := &app{schemes: allSchemes(), env: w.get, lookup: w.lookup, out: bufio.NewWriter(io.Discard), errs: io.Discard, now: time.Now}
	s, err := a.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestForgetWhileAnotherRefreshes checks that no token is valid after forget, even if another
// process is refreshing the record at a server that rotates refresh tokens.
func TestForgetWhileAnotherRefreshes(t *testing.T) {
	t.Parallel()
	const endpoint = "https://id.example.com/oauth/v2/token"
	for _, kind := range storeKinds {
		if kind.name == "mysql" || kind.name == "localstack" {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w := newForgetWorld(t, kind.open(t), &zohoaccounts.Options{Strict: true})
			w.adds("ann", "plain", "")
			asked, answer := make(chan struct{}), make(chan struct{})
			var refreshing, revokedEarly bool
			var mu sync.Mutex
			w.zoho.Expire(w.access["plain ann"])
			s := w.store(t)
			ann, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "plain"})
			if err != nil {
				t.Fatal(err)
			}
			ann.ExpiresAt = time.Now().Add(-time.Hour)
			if _, err := s.SaveToken(t.Context(), ann); err != nil {
				t.Fatal(err)
			}
			w.zoho.Inject(func(q zohoaccounts.Request) *zohoaccounts.Fault {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case q.Kind == zohoaccounts.Refresh && !refreshing:
					refreshing = true
					close(asked)
					return &zohoaccounts.Fault{Wait: answer}
				case q.Kind == zohoaccounts.Revoke && len(w.zoho.Requests()) == 0:
					revokedEarly = true
				case q.Kind == zohoaccounts.Revoke && q.Form.Get("token") == string(ann.RefreshToken):
					return &zohoaccounts.Fault{Status: http.StatusOK} // RFC 7009 requires this answer for a token that is invalid
				}
				return nil
			})
			got := make(chan tokenstore.Token, 1)
			go func() {
				c, err := initializer.New(t.Context(), initializer.Config{
					Issuer:     initializer.NoIssuer,
					OAuth2:     &oauth2.Config{ClientID: "plain", ClientSecret: canary + "plain", Endpoint: oauth2.Endpoint{TokenURL: endpoint, AuthStyle: oauth2.AuthStyleInParams}},
					Token:      tokenstore.Token{UserName: "ann", ClientID: "plain"},
					Store:      s.TokenStore,
					HTTPClient: w.zoho.Client(),
				})
				var token tokenstore.Token
				if err == nil {
					token, _ = c.Token(t.Context())
				}
				got <- token
			}()
			<-asked
			w.onOut = sync.OnceFunc(func() { close(answer) })
			r := w.forget("--user", "ann", "--yes", "--revocation-endpoint", endpoint+"/revoke")
			w.wants(r, 0)
			token := <-got
			if token.AccessToken == "" {
				t.Fatal("the other process got no token: nothing was tried")
			}
			mu.Lock()
			defer mu.Unlock()
			if w.zoho.Alive(string(token.AccessToken)) || revokedEarly {
				t.Errorf("what the other process got is alive (revoked while it was refreshing: %v): %s", revokedEarly, r.out)
			}
		})
	}
}

// TestForgetWhileAnotherSaves checks that forget also revokes tokens that another process saves
// between the revocation and the removal. If another process saves tokens at every attempt, the
// record must remain.
func TestForgetWhileAnotherSaves(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]bool{"once": false, "every time": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := vaultEnv(t)
			w := newForgetWorld(t, e, nil)
			w.adds("ann", "of-eu", eu)
			s := w.store(t)
			var once sync.Once
			save := func() {
				refresh, access := w.zoho.Tokens(zohoaccounts.Consent{ClientID: "of-eu", Email: "ann"})
				w.access["new"] = access
				_, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", ClientID: "of-eu", RefreshToken: tokenstore.Secret(refresh), AccessToken: tokenstore.Secret(access)})
				if err != nil {
					t.Error(err)
				}
			}
			w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
				if every {
					save()
				} else {
					once.Do(save)
				}
				return nil
			})
			r := w.forget("--user", "ann", "--yes")
			if every {
				w.wants(r, 5, "of-eu ann")
				return
			}
			w.wants(r, 0)
			if w.alive("of-eu ann") || w.alive("new") {
				t.Errorf("a token is alive: %s", r.out)
			}
		})
	}
}

func TestSaveOAuth2Token(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t)
	whose := []string{"save", "--user", "ann", "--client", "c", "--json", "--reveal"}
	got := decode[map[string]any](t, e.ok(t, `{"access_token":"a","refresh_token":"r","expiry":"2099-01-01T01:00:00.123+01:00","expires_in":60}`, whose...))
	if got["user_name"] != "ann" || got["client_id"] != "c" || got["access_token"] != "a" || got["refresh_token"] != "r" || got["expiry_time"] != 4070908800123.0 {
		t.Errorf("saved: %v", got)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		text, drop string
		want       time.Time
	}{
		{`{"access_token":"s3cret","expires_in":60}`, "", now.Add(time.Minute)},
		{`{"access_token":"s3cret","expires_in":"60","api_domain":"https://www.zohoapis.eu"}`, "", now.Add(time.Minute)},
		{`{"access_token":"s3cret","expiry":"0001-01-01T00:00:00Z"}`, "", time.Time{}},
		{`{"access_token":"s3cret","expiry":null,"token_type":"","expires_in":0}`, "", time.Time{}},
		{`{"access_token":"s3cret","token_type":"bearer","scope":"a b","id_token":"s3cret","x":{}}`, "scope,id_token,x", time.Time{}},
	} {
		got, err := parseSaved([]byte(test.text), now, strings.Split(test.drop, ","))
		if err != nil || got.AccessToken != "s3cret" || !got.ExpiresAt.Equal(test.want) {
			t.Errorf("%s: %v, %v", test.text, got, err)
		}
	}
	for text, want := range map[string]tokenstore.Token{
		`{"access_token":"a","token_type":"DPoP","scope":"b c","id_token":"d"}`:                    {AccessToken: "a", TokenType: "DPoP", Scope: "b c", IDToken: "d"},
		`{"access_token":"a","token_type":"bearer","team":{"id":1.50},"id":"x","scope":["b","c"]}`: {AccessToken: "a", TokenType: "bearer", Extra: `{"id":"x","scope":["b","c"],"team":{"id":1.50}}`},
		`{"id":"7","user_name":"ann","access_token":"a","token_type":"bearer","extra":"{}"}`:       {ID: "7", UserName: "ann", AccessToken: "a", TokenType: "bearer", Extra: "{}"},
	} {
		if kept, err := parseSaved([]byte(text), now, nil); err != nil || kept != want {
			t.Errorf("%s: kept %q, %v", text, string(kept.Extra), err)
		}
	}
	for _, test := range []struct{ text, drop, class, want string }{
		{`{"access_token":"s3cret","token_type":"DPoP"}`, "token_type", "usage", "token_type"},
		{`{"access_token":"s3cret","token_type":5}`, "", "invalid", `"token_type" is not a string`},
		{`{"access_token":"s3cret","token_type":"bearer","team":{"a":"s3cret","a":1}}`, "", "invalid", "cannot be kept"},
		{`{"user_name":"ann","access_token":"s3cret","token_type":"bearer","team":"s3cret"}`, "", "invalid", `"team" is not known`},
		{`{"access_token":"s3cret","team":"s3cret"}`, "", "invalid", `"team" is not known`},
		{`{"access_token":"s3cret","expiry":"s3cret"}`, "", "invalid", `"expiry" is not a time`},
		{`{"access_token":"s3cret","expires_in":-1}`, "", "invalid", `"expires_in" is not`},
		{`{"access_token":"s3cret","expires_in":"s3cret"}`, "", "invalid", `"expires_in" is not`},
		{`{"access_token":"s3cret","expires_in":60,"expiry_time":5}`, "", "invalid", "stands beside"},
	} {
		_, err := parseSaved([]byte(test.text), now, strings.Split(test.drop, ","))
		if classOf(err).name != test.class || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", test.text, err)
		}
	}
	e.fails(t, 2, `{"user_name":"bob","access_token":"a"}`, whose...)
	e.fails(t, 2, `{"client_id":"d","access_token":"a"}`, whose...)
}
