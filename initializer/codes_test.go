package initializer_test

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestRefusal checks that the error of New matches exactly one error class, which the table
// lists for each response. Most of the responses are those of real servers.
func TestRefusal(t *testing.T) {
	t.Parallel()
	var (
		consent = initializer.ErrReauthRequired
		client  = initializer.ErrClient
		wait    = initializer.ErrThrottled
		server  = initializer.ErrServer
		refused = initializer.ErrRefused
	)
	for _, c := range []struct {
		status int
		body   string
		class  error
	}{
		{400, `{"error":"invalid_grant"}`, consent},
		{400, `{"error":"INVALID_GRANT"}`, consent},
		{400, `error=invalid_grant&error_description=no`, consent},
		{400, `invalid_grant`, consent},
		{500, `{"error":"invalid_grant"}`, consent},
		{200, `{"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired."}`, consent},
		{200, `error=bad_verification_code`, consent},
		{200, `{"ok":false,"error":"invalid_refresh_token"}`, consent},
		{200, `{"ok":false,"error":"token_revoked"}`, consent},
		{200, `{"ok":false,"error":"token_expired"}`, consent},
		{400, `{"error":"interaction_required","error_codes":[50076],"suberror":"basic_action"}`, consent},
		{400, `{"error":"login_required"}`, consent},
		{400, `{"error":"consent_required"}`, consent},
		{400, `{"error":"invalid_request","error_description":"The refresh_token is invalid."}`, consent},
		{403, `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`, consent},
		{400, `{"status":400,"message":"Invalid refresh token"}`, consent},
		{400, `{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}`, consent},
		{401, `{"error":{"message":"Try signing in again.","type":"invalid_request_error","code":"token_expired"}}`, consent},
		{400, `{"error":{"message":"It has been used","type":"invalid_request_error","code":"refresh_token_reused"}}`, consent},
		{401, `{"error":"refresh_token_expired"}`, consent},
		{400, `{"error":{"message":"Error validating access token","type":"OAuthException","code":190,"error_subcode":463}}`, consent},
		{400, `{"error":{"message":"This authorization code has been used.","type":"OAuthException","code":100}}`, consent},
		{400, `{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid"}],"success":false}`, consent},
		{400, `{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}`, consent},
		{400, `{"fault":{"faultstring":"no","detail":{"errorcode":"keymanagement.service.invalid_refresh_token"}}}`, consent},
		{400, `{"ErrorCode":"invalid_request","Error":"Refresh Token expired"}`, consent},
		{400, `{"__type":"NotAuthorizedException","message":"Refresh Token has been revoked"}`, consent},
		{400, `{"errorCode":"E0000021","errorSummary":"The refresh token is invalid or expired."}`, consent},

		{401, `{"error":"invalid_client"}`, client},
		{400, `{"error":"redirect_uri_mismatch"}`, client},
		{200, `{"error":"incorrect_client_credentials"}`, client},
		{200, `{"ok":false,"error":"bad_client_secret"}`, client},
		{200, `{"ok":false,"error":"bad_redirect_uri"}`, client},
		{400, `{"error":"invalid_scope"}`, client},
		{400, `{"error":"unsupported_grant_type"}`, client},
		{400, `{"error":"unauthorized_client"}`, client},
		{400, `{"error":"invalid_request"}`, client},
		{400, `{"error":"invalid_request","error_description":"A required parameter refresh_token is missing or invalid"}`, client},
		{400, `{"error":"invalid_client","error_description":"the refresh token is of another client, its secret is invalid"}`, client},
		{400, `{"error":"use_dpop_nonce"}`, client},
		{400, `{"error":{"type":"OAuthException","code":101,"message":"no"}}`, client},
		{400, `{"errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}`, client},
		{401, ``, client},
		{401, `<html>canary</html>`, client},
		{401, `{"message":"canary"}`, client},

		{400, `{"error":"slow_down"}`, wait},
		{429, `{"error":"invalid_grant"}`, wait},
		{429, `{"error":{"code":"rate_limit_exceeded"}}`, wait},
		{403, `{"error":{"type":"OAuthException","code":4}}`, wait},
		{200, `{"ok":false,"error":"ratelimited"}`, wait},

		{503, `{"error":"temporarily_unavailable"}`, server},
		{400, `{"error":"server_error"}`, server},
		{500, `{"error":"e_1234"}`, server},
		{502, `<html>`, server},
		{408, ``, server},
		{425, `{"error":"e_1234"}`, server},
		{200, `<html>`, server},
		{304, ``, server},

		{400, `{"error":"e_1234"}`, refused},
		{400, `{"error":1234}`, refused},
		{400, `{"error":{"code":1234}}`, refused},
		{400, `{"error":true}`, refused},
		{200, `{"error":true}`, refused},
		{200, `{"success":false}`, refused},
		{200, `{"status":"error"}`, refused},
		{403, `<html>`, refused},
		{404, ``, refused},
		{400, `{"error":{"error":{"error":{"error":{"error":{"error":{"error":"invalid_grant"}}}}}}}`, refused},
		{400, `{"error":"` + strings.Repeat("x", 5000) + `"}`, refused},
		{401, `{"error":{"code":"e_1234"}}`, refused},
	} {
		eachKind(t, func(t *testing.T, w *world, _ tokenstore.Token, conf initializer.Config) {
			w.answers(status(c.status, c.body))
			err := w.openError(conf, c.class)
			for _, other := range []error{consent, client, wait, server, refused} {
				if other != c.class && errors.Is(err, other) {
					t.Errorf("%d %s matches two classes: %v", c.status, c.body, err)
				}
			}
			if got, want := errors.Is(err, initializer.ErrWrongDataCenter), conf.OAuth2 == nil && strings.Contains(c.body, "invalid_client"); got != want {
				t.Errorf("%d %s is of the data center: %t", c.status, c.body, got)
			}

			// A later start gets an error of the same class. The later start sends a request
			// only if the client was refused.
			w.clock.Advance(time.Millisecond)
			w.openError(conf, c.class)
			want := 1
			if errors.Is(err, client) {
				want = 2
			}
			w.asked(0, want)
		})
	}
}

// TestRefusalOfADay checks that a program that starts many times sends a revoked token only once.
func TestRefusalOfADay(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, w *world, _ tokenstore.Token, conf initializer.Config) {
		w.answers(status(200, `{"ok":false,"error":"token_revoked"}`))
		for range 24 {
			w.openError(conf, initializer.ErrReauthRequired)
			w.clock.Advance(time.Hour)
		}
		w.asked(0, 1)
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, w *world, _ tokenstore.Token, conf initializer.Config) {
		conf.Refusals = map[string]error{"E-1234": initializer.ErrReauthRequired}
		w.answers(status(400, `{"error":"e_1234"}`))
		for range 2 {
			err := w.openError(conf, initializer.ErrReauthRequired)
			if refused, ok := errors.AsType[*tokenstore.RefreshError](err); !ok || !refused.Permanent || refused.Code != "E-1234" {
				t.Errorf("the refusal is %+v", refused)
			}
		}
		w.asked(0, 1)
	})
	eachKind(t, func(_ *testing.T, w *world, _ tokenstore.Token, conf initializer.Config) {
		conf.Refusals = map[string]error{"invalid_scope": initializer.ErrServer}
		w.answers(status(400, `{"error":"invalid_scope"}`))
		w.openError(conf, initializer.ErrServer)
	})
	w := newWorld(t, nil)
	for code, class := range map[string]error{"": initializer.ErrClient, "é": initializer.ErrClient, "x": nil, "y": errors.New("other"), "z": initializer.ErrWrongDataCenter} {
		conf := w.config(byCode("1000.canary"))
		conf.Refusals = map[string]error{code: class}
		if _, err := initializer.New(t.Context(), conf); err == nil {
			t.Errorf("New took %q: %v", code, class)
		}
	}
}

func TestRefusalRetryAfter(t *testing.T) {
	t.Parallel()
	now := newClock().Now()
	for _, c := range []struct {
		header []string
		want   time.Duration
	}{
		{nil, 0},
		{[]string{"60"}, time.Minute},
		{[]string{" 7200 "}, 2 * time.Hour},
		{[]string{"1000000"}, 1000000 * time.Second},
		{[]string{"99999999999999999999"}, 10 * 365 * 24 * time.Hour},
		{[]string{"0"}, 0},
		{[]string{"-5"}, 0},
		{[]string{"soon"}, 0},
		{[]string{"60", "90"}, 90 * time.Second},
		{[]string{now.Add(3 * time.Hour).Format(http.TimeFormat)}, 3 * time.Hour},
		{[]string{now.Add(time.Minute).Format("Monday, 02-Jan-06 15:04:05 GMT")}, time.Minute},
		{[]string{now.Add(time.Minute).Format(time.ANSIC)}, time.Minute},
		{[]string{now.Add(-time.Minute).Format(http.TimeFormat)}, 0},
	} {
		for _, code := range []int{429, 503, 400} {
			eachKind(t, func(t *testing.T, w *world, _ tokenstore.Token, conf initializer.Config) {
				f := status(code, `{"error":"e_1234"}`)
				f.Header["Retry-After"] = c.header
				w.answers(f)
				_, err := initializer.New(t.Context(), conf)
				refused, ok := errors.AsType[*tokenstore.RefreshError](err)
				if !ok || refused.RetryAfter != c.want {
					t.Errorf("%v with status %d: the refusal is %+v", c.header, code, refused)
				}
			})
		}
	}
}

// TestRefusalShortSecret checks that an error code is recognized even though a short secret in the
// request occurs in the code.
func TestRefusalShortSecret(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code  string
		like  tokenstore.Token
		class error
	}{
		{"invalid_code", tokenstore.Token{ClientSecret: "s", GrantToken: "code"}, initializer.ErrReauthRequired},
		{"invalid_code", tokenstore.Token{ClientSecret: "s", GrantToken: "invalid_code"}, initializer.ErrReauthRequired},
		{"invalid_client_secret", tokenstore.Token{ClientSecret: "secret", RefreshToken: "1000.r"}, initializer.ErrClient},
		{"invalid_client", tokenstore.Token{ClientSecret: "client", RefreshToken: "1000.r"}, initializer.ErrWrongDataCenter},
		{"invalid_grant", tokenstore.Token{ClientSecret: "s", RefreshToken: "r"}, initializer.ErrReauthRequired},
		{"general_error", tokenstore.Token{ClientSecret: "s", RefreshToken: "r"}, initializer.ErrRefused},
	} {
		w := newWorld(t, nil)
		w.answers(ok(`{"error":"` + c.code + `"}`))
		c.like.ClientID = clientID
		_, err := initializer.New(t.Context(), w.config(c.like))
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), strconv.Quote(c.code)) {
			t.Errorf("%s, %s: %v", c.code, describe(c.like), err)
		}
	}
}

// TestRefusalText checks that errors contain no message of the response, no error code of unusual
// form, and no secret of the request.
func TestRefusalText(t *testing.T) {
	t.Parallel()
	for _, code := range []string{secret, "x-" + secret, "x " + secret + " y", "a sentence (canary)", "canary\n", "canary\x1b[31m", "canary/1", ""} {
		eachKind(t, func(_ *testing.T, w *world, _ tokenstore.Token, conf initializer.Config) {
			w.answers(status(400, `{"error":`+strconv.QuoteToASCII(code)+`,"error_description":"canary","error_uri":"canary","errors":[{"message":"canary"}]}`))
			_, err := initializer.New(w.t.Context(), conf)
			w.clean("an error", err.Error())
		})
	}
}

// TestRefusalOfTheClient checks that a Client does not send a request at each use after the server
// refused the client.
func TestRefusalOfTheClient(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
		if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, ExpiresAt: w.clock.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		c := w.start(conf)
		w.clock.Advance(time.Hour)
		w.answers(status(400, `{"error":"redirect_uri_mismatch"}`))
		for range 600 { // for a minute
			_, err := c.Token(t.Context())
			w.wants(err, initializer.ErrClient)
			w.clock.Advance(100 * time.Millisecond)
		}
		w.asked(0, 6)
		w.zoho.Inject(nil)
		w.clock.Advance(time.Minute)
		w.token(c)
		w.asked(0, 7)
	})
}

// TestRefusalWithoutRefresher checks that the Client keeps refusals in memory if the store
// keeps none.
func TestRefusalWithoutRefresher(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer string
		status int
		most   int // maximum number of requests in six hours
		class  error
	}{
		{`{"error":"invalid_grant"}`, 400, 1, initializer.ErrReauthRequired},
		{``, 503, 22, initializer.ErrServer},
		{`{"error":"e_1234"}`, 400, 22, initializer.ErrRefused},
	} {
		eachKind(t, func(t *testing.T, w *world, old tokenstore.Token, conf initializer.Config) {
			if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, ExpiresAt: w.clock.Now().Add(time.Minute)}); err != nil {
				t.Fatal(err)
			}
			conf.Store = simple{w.store}
			client := w.start(conf)
			w.clock.Advance(time.Hour)
			w.answers(status(c.status, c.answer))
			for range 6 * 60 * 6 {
				if _, err := client.Token(t.Context()); !errors.Is(err, c.class) {
					t.Fatal(err)
				}
				w.clock.Advance(10 * time.Second)
			}
			if n := w.zoho.Count(zohoaccounts.Refresh); n == 0 || n > c.most {
				t.Errorf("%s: there were %d requests", c.answer, n)
			}

			// Another process has stored a new refresh token.
			w.zoho.Inject(nil)
			refresh, _ := w.zoho.Tokens(consent())
			if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, RefreshToken: tokenstore.Secret(refresh)}); err != nil {
				t.Fatal(err)
			}
			w.token(client)
		})
	}
}
