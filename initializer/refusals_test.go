package initializer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestWhatIsNoTokenIsNotStored checks that an invalid token response results in an error of the
// expected class, and does not change the stored tokens.
func TestWhatIsNoTokenIsNotStored(t *testing.T) {
	t.Parallel()
	long := `{"access_token":"canary","expires_in":3600,"x":"` + strings.Repeat("a", 5<<20) + `"}`
	for name, c := range map[string]struct {
		answer *zohoaccounts.Fault
		class  error
	}{
		"invalid_code":                     {ok(`{"error":"invalid_code"}`), initializer.ErrReauthRequired},
		"invalid_grant":                    {status(400, `{"error":"invalid_grant"}`), initializer.ErrReauthRequired},
		"an error beside a token":          {ok(`{"error":"invalid_code","access_token":"canary"}`), initializer.ErrReauthRequired},
		"Access Denied":                    {ok(`{"error":"Access Denied","error_description":"canary","status":"failure"}`), initializer.ErrThrottled},
		"access_denied":                    {ok(`{"error":"access_denied"}`), initializer.ErrThrottled},
		"status 429":                       {status(429, `slow down, canary`), initializer.ErrThrottled},
		"invalid_client":                   {ok(`{"error":"invalid_client"}`), initializer.ErrWrongDataCenter},
		"invalid_client is of the client":  {ok(`{"error":"invalid_client"}`), initializer.ErrClient},
		"invalid_client_secret":            {ok(`{"error":"invalid_client_secret"}`), initializer.ErrClient},
		"invalid_redirect_uri":             {ok(`{"error":"invalid_redirect_uri"}`), initializer.ErrClient},
		"an error that is not known":       {ok(`{"error":"general_error"}`), initializer.ErrRefused},
		"an error that is no code":         {ok(`{"error":"1000.canary\n"}`), initializer.ErrRefused},
		"an error that repeats the secret": {ok(`{"error":"canary-client-secret"}`), initializer.ErrRefused},
		"an empty object":                  {ok(`{}`), initializer.ErrServer},
		"an empty access token":            {ok(`{"access_token":"","expires_in":3600}`), initializer.ErrServer},
		"an access token of two lines":     {ok(`{"access_token":"canary\ntwo"}`), initializer.ErrServer},
		"an access token that is a number": {ok(`{"access_token":7}`), initializer.ErrServer},
		"nothing":                          {ok(``), initializer.ErrServer},
		"half an answer":                   {ok(`{"access_token":"canary","expi`), initializer.ErrServer},
		"a list":                           {ok(`[{"access_token":"canary"}]`), initializer.ErrServer},
		"garbage":                          {ok("\x00\xff\x1fcanary"), initializer.ErrServer},
		"HTML":                             {status(200, `<html><body>canary</body></html>`), initializer.ErrServer},
		"HTML with status 502":             {status(502, `<html>canary</html>`), initializer.ErrServer},
		"a token with status 500":          {status(500, `{"access_token":"canary","expires_in":3600}`), initializer.ErrServer},
		"a redirect":                       {&zohoaccounts.Fault{Status: 307, Header: http.Header{"Location": {"https://elsewhere.example.com/"}}}, initializer.ErrServer},
		"five megabytes":                   {ok(long), initializer.ErrServer},
		"no answer":                        {&zohoaccounts.Fault{Drop: true}, initializer.ErrServer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			old := w.saved(true)
			w.answers(c.answer)
			w.openError(w.config(tokenstore.Token{ID: old.ID}), c.class)
			if rec := w.record(); rec != old {
				t.Errorf("the record is\n\t%s\nand was\n\t%s", describe(rec), describe(old))
			}
			w.asked(0, 1)
			if n := w.zoho.Count(zohoaccounts.Other); n != 0 {
				t.Errorf("the redirect was followed")
			}

			// The exchange of a one-time code gets the same response.
			w.openError(w.config(byCode("1000.canary-code")), c.class)
			for _, rec := range w.records() {
				if rec.ID != old.ID && (rec.AccessToken != "" || rec.RefreshToken != "") {
					t.Errorf("the record of the code is %s", describe(rec))
				}
			}
		})
	}
}

func TestRevokedRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	old := w.saved(true)
	w.zoho.RevokeTokens(clientID, "abc.a@zoho.com")
	for range 3 {
		conf := w.config(tokenstore.Token{ID: old.ID})
		conf.Store = w.handle()
		w.openError(conf, initializer.ErrReauthRequired)
	}
	w.asked(0, 1)

	// The record works again after a new consent.
	w.token(w.open(byCode(w.zoho.Code(consent()))))
	if got := w.token(w.open(tokenstore.Token{ID: old.ID})); got.ID != old.ID {
		t.Errorf("the token is %s", describe(got))
	}
}

func TestThrottledAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	refresh, access := w.zoho.Tokens(consent())
	c := w.open(tokenstore.Token{ClientID: clientID, ClientSecret: secret, RefreshToken: tokenstore.Secret(refresh), AccessToken: tokenstore.Secret(access)})
	for range 9 { // with the token of w.zoho.Tokens, nine refreshes reach the limit of ten tokens
		w.clock.Advance(time.Second)
		w.zoho.Expire(access)
		access = w.expireAndAsk(c)
	}
	w.zoho.Expire(access)
	if _, err := w.store.SaveToken(t.Context(), tokenstore.Token{ID: w.record().ID, ExpiresAt: w.clock.Now().Add(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	err := w.openError(w.config(byUser()), initializer.ErrThrottled)
	var refused *tokenstore.RefreshError
	if !errors.As(err, &refused) || refused.RetryAfter != 10*time.Minute || refused.Permanent {
		t.Errorf("the refusal is %+v", refused)
	}
	w.asked(0, 10)
	w.clock.Advance(9 * time.Minute)
	w.openError(w.config(byUser()), initializer.ErrThrottled)
	w.asked(0, 10) // no process sends another request
	w.clock.Advance(2 * time.Minute)
	w.token(w.open(byUser()))
	w.asked(0, 11)
}

// expireAndAsk calls the API with the token of c, which the API rejects. It returns the access
// token with which c replaced the rejected token.
func (w *world) expireAndAsk(c *initializer.Client) string {
	w.t.Helper()
	w.clock.Advance(time.Minute) // a rejected token is replaced at most once a minute
	res, err := c.HTTPClient(w.t.Context()).Get("/crm/v8/Leads")
	if err != nil || res.StatusCode != http.StatusOK {
		w.t.Fatalf("the call: %v", err)
	}
	_ = res.Body.Close()
	return string(w.token(c).AccessToken)
}

func TestThrottledRetryAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	old := w.saved(true)
	f := status(http.StatusTooManyRequests, "")
	f.Header.Set("Retry-After", w.clock.Now().Add(90*time.Second).Format(http.TimeFormat))
	w.answers(f)
	for range 2 {
		err := w.openError(w.config(tokenstore.Token{ID: old.ID}), initializer.ErrThrottled)
		var refused *tokenstore.RefreshError
		if !errors.As(err, &refused) || refused.RetryAfter != 90*time.Second {
			t.Errorf("the refusal is %+v", refused)
		}
	}
	w.asked(0, 1)
}

// TestOutageBackoff checks that most calls of New send no request while the server fails without a
// Retry-After.
func TestOutageBackoff(t *testing.T) {
	t.Parallel()
	for _, code := range []int{429, 500, 503, 404, 400} {
		w := newWorld(t, nil)
		old := w.saved(true)
		w.answers(status(code, "<html>"))
		for range 6 * 60 { // six hours
			if _, err := initializer.New(t.Context(), w.config(tokenstore.Token{ID: old.ID})); err == nil {
				t.Fatal("New did not fail")
			}
			w.clock.Advance(time.Minute)
		}
		if n := w.zoho.Count(zohoaccounts.Refresh); n < 8 || n > 60 {
			t.Errorf("status %d: there were %d requests in six hours", code, n)
		}
		w.zoho.Inject(nil)
		w.clock.Advance(time.Hour)
		w.token(w.open(tokenstore.Token{ID: old.ID}))
	}
}

func TestWrongDataCenter(t *testing.T) {
	t.Parallel()
	for _, home := range initializer.DataCenters() {
		w := newWorld(t, &zohoaccounts.Options{DataCenter: string(home)})
		for _, asked := range initializer.DataCenters() {
			conf := w.config(byCode(w.zoho.Code(consent())))
			conf.Environment = asked.Production()
			if asked != home {
				w.openError(conf, initializer.ErrWrongDataCenter)
				continue
			}
			if got := w.token(w.start(conf)); got.UserName != user || got.APIDomain != conf.Environment.APIURL {
				t.Errorf("%s: the token is %s", home, describe(got))
			}
		}
	}
}

func TestFreshTokenStoreDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.open(tokenstore.Token{ID: w.saved(false).ID})
	w.outages.set(true, true)
	before := w.outages.count()
	for range 10 {
		w.token(c)
		if res, err := c.HTTPClient(t.Context()).Get("/crm/v8/Leads"); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("the call failed: %v", err)
		}
	}
	if n := w.outages.count() - before; n != 0 {
		t.Errorf("there were %d calls of the store", n)
	}
}

func TestEarlyExpiryOutage(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]func(*world){
		"the store is down":           func(w *world) { w.outages.set(true, true) },
		"the store is read only":      func(w *world) { w.outages.set(false, true) },
		"the accounts server is down": func(w *world) { w.answers(status(503, "")) },
		"the refresh token is bad":    func(w *world) { w.answers(ok(`{"error":"invalid_code"}`)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			conf := w.config(tokenstore.Token{ID: w.saved(false).ID})
			conf.EarlyExpiry = 5 * time.Minute
			c := w.start(conf)
			first := w.token(c)
			w.clock.Advance(57 * time.Minute)
			outage(w)
			for range 5 {
				if w.token(c) != first {
					t.Errorf("%s: it is another token", name)
				}
			}
			calls := w.outages.count()
			w.token(c)
			if n := w.outages.count() - calls; n != 0 {
				t.Errorf("%s: %d calls of the store in the pause after a failure", name, n)
			}
			w.outages.set(false, false)
			w.zoho.Inject(nil)
			w.clock.Advance(2 * time.Minute)
			if name == "the refresh token is bad" {
				return // the refusal is kept until there is another refresh token
			}
			if w.token(c) == first {
				t.Errorf("%s: it was not replaced afterwards", name)
			}
		})
	}
}

func TestRefreshStoreDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.open(tokenstore.Token{ID: w.saved(false).ID})
		w.clock.Advance(2 * time.Hour)
		w.outages.set(true, true)
		_, err := c.Token(t.Context())
		w.wants(err, tokenstore.ErrUnavailable)
		w.asked(0, 0)
		w.outages.set(false, false)
		w.token(c)
		w.asked(0, 1)
	})
}

// TestTokenNotPersisted checks that a Client keeps a token in memory, and stores the token later,
// if the store fails before the commit of the token.
func TestTokenNotPersisted(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, &zohoaccounts.Options{Strict: strict})
			old := w.saved(false)
			conf := w.config(tokenstore.Token{ID: old.ID})
			if strict {
				conf = w.standard(tokenstore.Token{ID: old.ID, ClientID: clientID})
			}
			c := w.start(conf)
			w.clock.Advance(2 * time.Hour)
			w.downAfterTheRequest()
			got, err := c.Token(t.Context())
			w.wants(err, tokenstore.ErrNotPersisted)
			if !w.zoho.Alive(string(got.AccessToken)) || w.record() != old {
				t.Fatalf("the token is %s", describe(got))
			}
			// A TokenSource returns the token without an error.
			if tok, err := c.TokenSource(t.Context()).Token(); err != nil || tok.AccessToken != string(got.AccessToken) {
				t.Fatalf("the source: %v", err)
			}
			w.clock.Advance(time.Minute)
			if _, err := c.Token(t.Context()); !errors.Is(err, tokenstore.ErrNotPersisted) {
				t.Fatalf("the second call: %v", err)
			}

			w.outages.set(false, false)
			w.zoho.Inject(nil)
			w.clock.Advance(time.Minute)
			if again := w.token(c); again != got || w.record() != got {
				t.Errorf("the token is\n\t%s\nstored is\n\t%s", describe(again), describe(w.record()))
			}
			w.asked(0, 1)

			// The new refresh token is used for the next refresh.
			w.clock.Advance(2 * time.Hour)
			w.token(c)
			w.asked(0, 2)
		})
	}
}

// downAfterTheRequest makes writes to the store fail as soon as the next request reaches the token
// endpoint.
func (w *world) downAfterTheRequest() {
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange || r.Kind == zohoaccounts.Refresh {
			w.outages.set(false, true)
		}
		return nil
	})
}

func TestNewNotPersisted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.downAfterTheRequest()
		c, err := initializer.New(t.Context(), w.config(byCode(w.zoho.Code(consent()))))
		w.wants(err, tokenstore.ErrNotPersisted)
		if c == nil {
			t.Fatal("New returned no Client, and with it the only copy of the refresh token")
		}
		w.outages.set(false, false)
		w.zoho.Inject(nil)
		got := w.token(c)
		if got.UserName != user || got.RefreshToken == "" || w.record() != got {
			t.Errorf("the token is %s", describe(got))
		}
		w.asked(1, 0)
	})
}

// TestFindUserNotPersisted checks that the next start stores the user if the store fails between
// the commit of the tokens and the commit of the user.
func TestFindUserNotPersisted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			if r.Kind == zohoaccounts.API {
				w.outages.set(false, true)
			}
			return nil
		})
		like := byCode(w.zoho.Code(consent()))
		if got := w.token(w.open(like)); got.UserName != "" || got.RefreshToken == "" {
			t.Errorf("the token is %s", describe(got))
		}
		w.outages.set(false, false)
		w.zoho.Inject(nil)
		if got := w.token(w.open(like)); got.UserName != user || w.record() != got {
			t.Errorf("the token is %s", describe(got))
		}
		w.asked(1, 0)
	})
}

func TestStoreWithoutRefreshNotPersisted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		conf := w.config(tokenstore.Token{ID: w.saved(false).ID})
		conf.Store = simple{w.store}
		c := w.start(conf)
		w.clock.Advance(2 * time.Hour)
		w.downAfterTheRequest()
		got, err := c.Token(t.Context())
		w.wants(err, tokenstore.ErrNotPersisted)
		w.outages.set(false, false)
		w.zoho.Inject(nil)
		if w.token(c) != got || w.record() != got {
			t.Errorf("stored is %s", describe(w.record()))
		}
		w.asked(0, 1)
		w.clock.Advance(2 * time.Hour)
		w.answers(ok(`{"error":"invalid_code"}`))
		_, err = c.Token(t.Context())
		w.wants(err, initializer.ErrReauthRequired)
		if w.record() != got {
			t.Error("the record was changed")
		}
	})
}

func TestExchangeStoreDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		like := byCode(w.zoho.Code(consent()))
		w.outages.set(false, true)
		w.openError(w.config(like), tokenstore.ErrUnavailable)
		w.outages.set(true, true)
		w.openError(w.config(like), tokenstore.ErrUnavailable)
		w.asked(0, 0)
		w.outages.set(false, false)
		w.token(w.open(like))
	})
}

// TestNotPersistedSuperseded checks that a token that could not be stored does not replace tokens
// that another process stored later.
func TestNotPersistedSuperseded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.open(tokenstore.Token{ID: w.saved(false).ID})
		w.clock.Advance(2 * time.Hour)
		w.downAfterTheRequest()
		if _, err := c.Token(t.Context()); !errors.Is(err, tokenstore.ErrNotPersisted) {
			t.Fatal(err)
		}
		w.outages.set(false, false)
		w.zoho.Inject(nil)
		w.clock.Advance(10 * time.Minute)
		other := w.token(w.open(byCode(w.zoho.Code(consent())))) // a new consent
		if got := w.token(c); got != other || w.record() != other {
			t.Errorf("the token is\n\t%s\nand not\n\t%s", describe(got), describe(other))
		}

		// The token is not stored if the record was deleted.
		w.clock.Advance(2 * time.Hour)
		w.downAfterTheRequest()
		if _, err := c.Token(t.Context()); !errors.Is(err, tokenstore.ErrNotPersisted) {
			t.Fatal(err)
		}
		w.outages.set(false, false)
		w.zoho.Inject(nil)
		if err := w.handle().DeleteTokens(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.token(c)
		if len(w.records()) != 0 {
			t.Error("the deleted record is back")
		}
		w.clock.Advance(2 * time.Hour)
		_, err := c.Token(t.Context())
		w.wants(err, initializer.ErrReauthRequired)
	})
}

func TestNewCanceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			if r.Kind != zohoaccounts.Exchange {
				return nil
			}
			cancel() // the caller cancels while the server handles the request
			return &zohoaccounts.Fault{Delay: time.Second}
		})
		like := byCode(w.zoho.Code(consent()))
		begun := time.Now()
		_, err := initializer.New(ctx, w.config(like))
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("it took %v: %v", took, err)
		}
		if rec := w.record(); rec.RefreshToken == "" {
			t.Errorf("the answer was dropped: %s", describe(rec))
		}
		w.zoho.Inject(nil)
		w.token(w.open(like))
		w.asked(1, 0)
	})
}

func TestNewServerHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		old := w.saved(true)
		conf := w.config(tokenstore.Token{ID: old.ID})
		s, err := tokenstore.New(w.driver.Reopen(), nil)
		if err != nil {
			t.Fatal(err)
		}
		conf.Store, conf.Now = s, nil
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: old.ID, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
		w.answers(&zohoaccounts.Fault{Delay: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err = initializer.New(ctx, conf)
		w.wants(err, context.DeadlineExceeded)
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("past its deadline it took %v", took)
		}

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun = time.Now()
		_, err = initializer.New(ctx, conf)
		w.wants(err, context.Canceled)
		if took := time.Since(begun); took > 7*time.Second {
			t.Errorf("after it was canceled it took %v", took)
		}
		w.zoho.Inject(nil)
		if _, err := initializer.New(t.Context(), conf); err != nil {
			t.Error(err)
		}
	})
}

// leaky is a transport whose errors contain the secrets in the request.
type leaky struct{}

func (leaky) RoundTrip(r *http.Request) (*http.Response, error) {
	_ = r.ParseForm()
	return nil, fmt.Errorf("dump of the request: %v", r.Form)
}

func TestNewLeakyTransport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	conf := w.config(byCode("1000.canary-code"))
	conf.HTTPClient = &http.Client{Transport: leaky{}}
	w.openError(conf, initializer.ErrServer)
	conf = w.standard(tokenstore.Token{RefreshToken: "1000.canary-refresh"})
	conf.HTTPClient = &http.Client{Transport: leaky{}}
	w.openError(conf, initializer.ErrServer)
}

func TestTokenThrottledStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.open(tokenstore.Token{ID: w.saved(false).ID})
		old := w.token(c)
		w.clock.Advance(time.Hour - 5*time.Second) // the token expires soon
		w.outages.throttle(true)
		began := time.Now()
		got, err := c.Token(t.Context())
		if err != nil || got.AccessToken != old.AccessToken {
			t.Errorf("Token returned %s, %v", describe(got), err)
		}
		if waited := time.Since(began); waited > 3*time.Second {
			t.Errorf("Token took %v", waited)
		}
		w.outages.throttle(false)
		w.clock.Advance(2 * time.Second)
		if got := w.token(c); got.AccessToken == old.AccessToken {
			t.Error("the token was not replaced when the store took calls again")
		}

		w.clock.Advance(2 * time.Hour)
		w.outages.throttle(true)
		began = time.Now()
		_, err = c.Token(t.Context())
		w.wants(err, tokenstore.ErrThrottled)
		if waited := time.Since(began); waited < leaseTTL || waited > 2*leaseTTL {
			t.Errorf("an expired token was waited for for %v, want about %v", waited, leaseTTL)
		}
	})
}
