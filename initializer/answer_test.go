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

// kinds returns two configurations for the record old: one for Zoho, and one for another
// server. The same decoder reads the responses of both servers.
func (w *world) kinds(old tokenstore.Token) map[string]initializer.Config {
	zoho := w.config(tokenstore.Token{ID: old.ID})
	zoho.FindUser = false
	return map[string]initializer.Config{"zoho": zoho, "other": w.standard(tokenstore.Token{ID: old.ID, ClientID: clientID})}
}

// eachKind runs f as a subtest for each kind of server. Each subtest has a new world, and a
// record old whose access token has expired.
func eachKind(t *testing.T, f func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config)) {
	t.Helper()
	for _, kind := range []string{"zoho", "other"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			old := w.saved(true)
			f(t, w, old, w.kinds(old)[kind])
		})
	}
}

func typed(kind, body string) *zohoaccounts.Fault {
	f := &zohoaccounts.Fault{Status: http.StatusOK, Header: http.Header{"Content-Type": {kind}}, Body: body}
	if kind == "" {
		f.Header = nil
	}
	return f
}

// keeps checks that New stores both tokens of the response f, and returns the record.
func (w *world) keeps(conf initializer.Config, f *zohoaccounts.Fault) tokenstore.Token {
	w.t.Helper()
	w.answers(f)
	if _, err := initializer.New(w.t.Context(), conf); err != nil {
		w.t.Fatalf("%s: %v", f.Body, err)
	}
	rec := w.record()
	if rec.RefreshToken != "canary-2" || rec.AccessToken != "canary-new" {
		w.t.Fatalf("%s: stored is %s", f.Body, describe(rec))
	}
	return rec
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"float": "3599.5", "whole float": "3600.0", "exponent": "3.6e3", "text": `"3600"`, "float as text": `"3600.0"`,
		"empty text": `""`, "words": `"never"`, "true": "true", "false": "false", "null": "null", "zero": "0", "minus one": "-1",
		"object": `{"seconds":3600}`, "empty object": "{}", "list": `["a","b"]`, "empty list": "[]",
		"past int64": "99999999999999999999", "past float64": "1e999", "negative text": `"-3600"`,
	}
	names := []string{"expires_in", "expires_in_sec", "error_description", "error_uri", "token_type", "scope", "api_domain", "id_token", "refresh_token_expires_in", "ok_", "x"}
	eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
		again := func() {
			w.clock.Advance(time.Second)
			if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, AccessToken: "old", RefreshToken: old.RefreshToken, ExpiresAt: w.clock.Now().Add(-time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range names {
			for _, value := range values {
				w.keeps(conf, ok(`{"`+name+`":`+value+`,"access_token":"canary-new","refresh_token":"canary-2"}`))
				again()
				w.keeps(conf, ok(`{"access_token":"canary-new","refresh_token":"canary-2","`+name+`":`+value+`}`))
				again()
			}
		}
		for _, value := range []string{"false", "0", "[]", "{}", "null", `""`, `" "`, "true", "1", `["a"]`, `{"code":0}`, `"nothing"`} {
			w.keeps(conf, ok(`{"error":`+value+`,"access_token":"canary-new","refresh_token":"canary-2"}`))
			again()
		}
	})
}

func TestAnswerForm(t *testing.T) {
	t.Parallel()
	const (
		object = `{"access_token":"canary-new","refresh_token":"canary-2","expires_in":3600}`
		form   = `access_token=canary-new&refresh_token=canary-2&expires_in=3600`
	)
	eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
		for _, kind := range []string{"", "application/json", "text/plain", "text/plain; charset=utf-8", "text/html", "application/x-www-form-urlencoded", "application/octet-stream", "no/such;;type"} {
			for _, body := range []string{
				object, form, "\ufeff" + object, " \r\n" + object + "\r\n", object + "<!-- served by a -->", object + "\x00", object + object,
				form + "\n", form + "&x=%zz",
				`{"access_token":"old","access_token":"canary-new","refresh_token":"canary-2","refresh_token":null,"expires_in":3600,"expires_in":""}`,
				`{"Access_Token":"canary-new","REFRESH_TOKEN":"canary-2","Expires_In":3600}`,
				`{"access_token":" canary-new\n","refresh_token":"canary-2\r\n","expires_in":3600}`,
			} {
				rec := w.keeps(conf, typed(kind, body))
				if rec.ExpiresAt != w.clock.Now().Add(time.Hour) {
					t.Errorf("%s: %q: it expires at %v", kind, body, rec.ExpiresAt)
				}
				if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, AccessToken: "old", RefreshToken: old.RefreshToken, ExpiresAt: w.clock.Now().Add(-time.Hour)}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestAnswerLifetime(t *testing.T) {
	t.Parallel()
	const unknown = time.Duration(0)
	for value, want := range map[string]time.Duration{
		"3600": time.Hour, "3599.5": time.Hour - 500*time.Millisecond, "3600.0": time.Hour, "3.6e3": time.Hour,
		`"3600"`: time.Hour, `"3600.0"`: time.Hour, `" 3600 "`: time.Hour, `"+3600"`: time.Hour,
		"null": unknown, `""`: unknown, `"never"`: unknown, `"PT1H"`: unknown, `"0x10"`: unknown, `"Infinity"`: unknown, `"NaN"`: unknown,
		"0": unknown, "-1": unknown, `"-1"`: unknown, "-1e999": unknown, "0.5": unknown, "1e-400": unknown,
		"true": unknown, "{}": unknown, "[3600]": unknown,
		"9223372036854775807": 10 * 365 * 24 * time.Hour, "99999999999999999999": 10 * 365 * 24 * time.Hour, "1e999": 10 * 365 * 24 * time.Hour,
	} {
		eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
			rec := w.keeps(conf, ok(`{"access_token":"canary-new","refresh_token":"canary-2","expires_in":`+value+`}`))
			want := want
			if conf.OAuth2 == nil && want == unknown {
				want = time.Hour // the lifetime of Zoho's tokens
			}
			switch {
			case want == unknown && !rec.ExpiresAt.IsZero():
				t.Errorf("%s: it expires in %v", value, rec.ExpiresAt.Sub(w.clock.Now()))
			case want != unknown && rec.ExpiresAt.Sub(w.clock.Now()) != want:
				t.Errorf("%s: it expires in %v, not %v", value, rec.ExpiresAt.Sub(w.clock.Now()), want)
			}
		})
	}
}

// TestAnswerNoLifetime checks that a token with an invalid lifetime is not refreshed at each use.
func TestAnswerNoLifetime(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"0", "-1", `"-3600"`, "-0.5", "0.001", "-1e999"} {
		eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
			w.answers(ok(`{"access_token":"canary-new","refresh_token":"canary-2","expires_in":` + value + `}`))
			c := w.start(conf)
			for range 10 * 60 {
				w.clock.Advance(time.Second)
				if _, err := c.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			w.asked(0, 1)
		})
	}
}

func TestAnswerWithoutUse(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"refresh_token":"canary-2"}`,
		`{"access_token":7,"refresh_token":"canary-2"}`,
		`{"access_token":"canary\u0000new"}`,
		`{"access_token":"canary-new","refresh_token":"canary-2"`,
		`{"refresh_token":"canary-2","access_token":"canary-n`,
		`{"refresh_token":"canary-2","access_token":"canary-new","x":"` + strings.Repeat("a", 1<<20) + `"}`,
		`{"access_token":"canary-new","refresh_tok`,
		`<form>access_token=canary-new</form>`,
		`<a href="/callback?x=1&access_token=canary-new&refresh_token=canary-3&y=2">`,
		`see /callback?x=1&access_token=canary-new&refresh_token=canary-3&y=2`,
		`[]`, `"access_token"`, `null`, `{}`,
	} {
		eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
			w.answers(ok(body))
			w.openError(conf, initializer.ErrServer)
			rec := w.record()
			if kept := rec.RefreshToken == "canary-2"; rec.AccessToken != old.AccessToken || kept != strings.Contains(body, "canary-2") {
				t.Errorf("%s: stored is %s", body, describe(rec))
			}
		})
	}
}

// TestAnswerRefreshTokenAlone checks that a new refresh token without a usable access token is used
// immediately.
func TestAnswerRefreshTokenAlone(t *testing.T) {
	t.Parallel()
	for _, alone := range []string{`{"refresh_token":"canary-2"}`, `{"access_token":"a\u0000b","refresh_token":"canary-2"}`} {
		for _, kind := range []string{"zoho", "other"} {
			w := newWorld(t, nil)
			conf := w.kinds(tokenstore.Token{})[kind]
			conf.Token = byCode("canary-code")
			w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
				switch {
				case r.Kind == zohoaccounts.Exchange:
					return ok(alone)
				case r.Form.Get("refresh_token") == "canary-2":
					return ok(`{"access_token":"canary-new","refresh_token":"canary-3"}`)
				}
				return nil
			})
			w.start(conf)
			if rec := w.record(); rec.AccessToken != "canary-new" || rec.RefreshToken != "canary-3" {
				t.Errorf("%s: stored is %s", kind, describe(rec))
			}
			w.asked(1, 1)
		}
	}
}

// TestAnswerBadRefreshToken checks that the access token of a response is stored even if the
// refresh token cannot be stored.
func TestAnswerBadRefreshToken(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"7", "{}", `"a\u0000b"`, `"[redacted]"`, `"` + strings.Repeat("a", 60<<10) + `"`} {
		eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
			w.answers(ok(`{"access_token":"canary-new","refresh_token":` + value + `,"expires_in":3600}`))
			w.start(conf)
			if rec := w.record(); rec.AccessToken != "canary-new" || rec.RefreshToken != old.RefreshToken {
				t.Errorf("stored is %s", describe(rec))
			}
		})
	}
}

func TestAuthStyle(t *testing.T) {
	t.Parallel()
	inBody := func(r zohoaccounts.Request) bool { return r.Form.Get("client_secret") != "" }
	for name, refused := range map[string]*zohoaccounts.Fault{
		"RFC 6749":           status(401, `{"error":"invalid_client"}`),
		"LinkedIn":           status(400, `{"error":"invalid_request","error_description":"A required parameter \"client_id\" is missing"}`),
		"HubSpot":            status(400, `{"status":"BAD_CLIENT_ID","message":"missing or unknown client id"}`),
		"Slack":              status(200, `{"ok":false,"error":"invalid_client_id"}`),
		"Strava":             status(400, `{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}`),
		"Facebook":           status(400, `{"error":{"message":"Missing client_id parameter.","type":"OAuthException","code":101}}`),
		"a code of its own":  status(400, `{"error":"e_1234"}`),
		"an object":          status(403, `{"message":"no"}`),
		"a page":             status(403, `<html>no</html>`),
		"nothing":            status(401, ``),
		"a form":             status(400, `error=no_client`),
		"a code in a 200":    status(200, `{"error":"e_1234"}`),
		"without the client": status(200, `{"success":false}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, &zohoaccounts.Options{Strict: true})
			old := w.saved(true)
			w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
				if inBody(r) {
					return nil
				}
				return refused
			})
			conf := w.standard(tokenstore.Token{ID: old.ID, ClientID: clientID})
			conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
			c := w.start(conf)
			w.asked(0, 2)
			w.clock.Advance(2 * time.Hour)
			w.token(c)
			w.asked(0, 3) // the Client uses the accepted style
			if err := c.Revoke(t.Context()); err != nil {
				t.Error(err)
			}
			if n := w.zoho.Count(zohoaccounts.Revoke); n != 1 {
				t.Errorf("there were %d revocations", n)
			}
		})
	}
}

// TestAuthStyleNotRepeated checks that a request is not repeated if the server may have granted the
// request, refused the request temporarily, or refused the token.
func TestAuthStyleNotRepeated(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*zohoaccounts.Fault{
		"lost":           {Drop: true},
		"cut":            ok(`{"access_token":"canary`),
		"status 500":     status(500, `{"error":"e_1234"}`),
		"status 503":     status(503, `<html>`),
		"status 429":     status(429, ``),
		"status 408":     status(408, ``),
		"a redirect":     status(302, ``),
		"slow_down":      status(400, `{"error":"slow_down"}`),
		"a page":         status(200, `<html>`),
		"invalid_grant":  status(400, `{"error":"invalid_grant"}`),
		"token_revoked":  ok(`{"ok":false,"error":"token_revoked"}`),
		"an empty value": ok(`{}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, &zohoaccounts.Options{Strict: true})
			old := w.saved(true)
			w.answers(f)
			conf := w.standard(tokenstore.Token{ID: old.ID, ClientID: clientID})
			conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
			if _, err := initializer.New(t.Context(), conf); err == nil {
				t.Fatal("New did not fail")
			}
			w.asked(0, 1)
		})
	}
}

// TestAuthStyleCode checks that a one-time code is sent again only to a server that refused the
// client.
func TestAuthStyleCode(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]int{
		`{"error":"invalid_client"}`:      2,
		`{"error":"bad_client_secret"}`:   2,
		`{"error":"e_1234"}`:              1,
		`{"message":"no"}`:                1,
		`{"error":"invalid_grant"}`:       1,
		`{"error":"code_already_used"}`:   1,
		`{"error":"temporarily_unavail"}`: 1,
	} {
		w := newWorld(t, nil)
		w.answers(status(400, body))
		conf := w.standard(tokenstore.Token{GrantToken: "canary-code"})
		conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
		if _, err := initializer.New(t.Context(), conf); err == nil {
			t.Fatal("New did not fail")
		}
		if n := w.zoho.Count(zohoaccounts.Exchange); n != want {
			t.Errorf("%s: the code was sent %d times, not %d", body, n, want)
		}
	}
}

// burning makes the server consume a code even if the server refuses the request, and returns a
// configuration with a new code. accepts reports whether the client is authenticated correctly.
func (w *world) burning(accepts func(zohoaccounts.Request) bool) initializer.Config {
	used := map[string]bool{}
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		code := r.Form.Get("code")
		burnt := used[code]
		used[code] = code != ""
		switch {
		case burnt:
			return status(400, `{"error":"invalid_grant"}`)
		case !accepts(r):
			return status(401, `{"error":"invalid_client"}`)
		}
		return nil
	})
	conf := w.standard(tokenstore.Token{UserName: user, ClientID: clientID, GrantToken: tokenstore.Secret(w.zoho.Code(consent()))})
	conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
	return conf
}

func TestAuthStyleBurntCode(t *testing.T) {
	t.Parallel()
	inBody := func(r zohoaccounts.Request) bool { return r.Form.Get("client_secret") != "" }
	t.Run("body", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, &zohoaccounts.Options{Strict: true})
		w.token(w.start(w.burning(inBody)))
		w.asked(1, 0)
	})
	// If the server requires the header, the code is lost. The Client then refreshes the token
	// of the user's record, with the header.
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, &zohoaccounts.Options{Strict: true})
		old := w.saved(true)
		conf := w.burning(func(r zohoaccounts.Request) bool { return !inBody(r) })
		if got := w.token(w.start(conf)); got.ID != old.ID { // from the user's record, after one refresh
			t.Errorf("the token is %s", describe(got))
		}
		w.asked(2, 1)
		if !strings.Contains(w.logs.String(), "AuthStyle") {
			t.Error("the log does not say what to do")
		}
	})
}

// TestAuthStyleSwitchUser checks that Clients of other users share the detected style.
func TestAuthStyleSwitchUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, &zohoaccounts.Options{Strict: true})
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange && r.Form.Get("client_secret") != "" {
			return status(401, `{"error":"invalid_client"}`)
		}
		return nil
	})
	conf := w.standard(tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))})
	conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
	c := w.start(conf)
	w.asked(2, 0)
	if _, err := c.SwitchUser(t.Context(), tokenstore.Token{GrantToken: tokenstore.Secret(w.zoho.Code(consent()))}); err != nil {
		t.Fatal(err)
	}
	w.asked(3, 0)
}

// TestAuthStylePublicClient checks that the exchange of a client without a secret has the client ID
// in the body.
func TestAuthStylePublicClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.answers(ok(`{"access_token":"canary-new"}`))
	conf := w.standard(tokenstore.Token{GrantToken: "canary-code"})
	conf.OAuth2.ClientSecret = ""
	conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
	w.start(conf)
	w.asked(1, 0)
	r := w.zoho.Requests()[0]
	if r.Form.Get("client_id") != clientID || r.Form.Has("client_secret") || r.Header.Get("Authorization") != "" {
		t.Errorf("the request was %v", r.Form)
	}
}

func TestRevokeAuthStyle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer *zohoaccounts.Fault // the response to a request with the header
		want   int
		fails  bool
	}{
		"the client":    {status(401, `{"error":"invalid_client"}`), 2, false},
		"a parameter":   {status(400, `{"error":"invalid_request"}`), 2, false},
		"a page":        {status(403, `<html>`), 2, false},
		"invalid_token": {status(400, `{"error":"invalid_token"}`), 1, false},
		"204":           {status(204, ``), 1, false},
		"a page of 200": {status(200, `<html>`), 1, false},
		"ok is false":   {status(200, `{"ok":false,"error":"fatal_error"}`), 1, true},
		"503":           {status(503, ``), 1, true},
		"lost":          {&zohoaccounts.Fault{Drop: true}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, &zohoaccounts.Options{Strict: true})
			old := w.saved(false)
			w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
				if r.Form.Get("client_secret") != "" {
					return nil
				}
				return c.answer
			})
			conf := w.standard(tokenstore.Token{ID: old.ID, ClientID: clientID})
			conf.OAuth2.Endpoint.AuthStyle = oauth2.AuthStyleAutoDetect
			err := w.start(conf).Revoke(t.Context())
			if (err != nil) != c.fails || len(w.records()) != 0 != c.fails {
				t.Errorf("Revoke: %v; there are %d records", err, len(w.records()))
			}
			if n := w.zoho.Count(zohoaccounts.Revoke); n != c.want {
				t.Errorf("there were %d requests", n)
			}
		})
	}
}
