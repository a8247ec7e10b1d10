package initializer_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// client returns a Client whose token has not expired, and the record of the Client.
func (w *world) client() (*initializer.Client, tokenstore.Token) {
	w.t.Helper()
	t := w.saved(false)
	return w.open(tokenstore.Token{ID: t.ID}), t
}

// call sends a request to the API, and returns the status and the body of the response.
func (w *world) call(c *initializer.Client, body io.Reader) (int, string) {
	w.t.Helper()
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, "https://www.zohoapis.com/crm/v8/Leads", body)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := c.HTTPClient(w.t.Context()).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(req.Header) != 0 || res.Request.Header.Get("Authorization") != "" {
		w.t.Error("the token is in a request that the caller sees")
	}
	return res.StatusCode, string(got)
}

func TestTransportRejectedToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, old := w.client()
	w.zoho.Expire(string(old.AccessToken))
	if code, body := w.call(c, strings.NewReader("a lead")); code != http.StatusOK || !strings.Contains(body, `"received":6`) {
		t.Errorf("the answer is %d %s", code, body)
	}
	w.asked(0, 1)
	if w.record().AccessToken == old.AccessToken {
		t.Error("the new token is not stored")
	}
}

func TestTransportTokenFromStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, old := w.client()
	other := w.open(tokenstore.Token{ID: old.ID})
	w.zoho.Expire(string(old.AccessToken))
	w.call(other, nil)
	w.asked(0, 1)
	if code, _ := w.call(c, nil); code != http.StatusOK {
		t.Errorf("the answer is %d", code)
	}
	w.asked(0, 1)
}

func TestTransportBodyNotRewindable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, old := w.client()
	w.zoho.Expire(string(old.AccessToken))
	code, body := w.call(c, io.MultiReader(strings.NewReader("a lead")))
	if code != http.StatusUnauthorized || !strings.Contains(body, "INVALID_TOKEN") {
		t.Errorf("the answer is %d %s", code, body)
	}
	if code, _ := w.call(c, io.MultiReader(strings.NewReader("a lead"))); code != http.StatusOK {
		t.Errorf("the second answer is %d", code)
	}
	w.asked(0, 1)
}

func TestTransportAlwaysRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, _ := w.client()
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.API {
			return &zohoaccounts.Fault{Status: http.StatusUnauthorized, Body: `{"code":"INVALID_TOKEN"}`}
		}
		return nil
	})
	for range 5 {
		if code, body := w.call(c, nil); code != http.StatusUnauthorized || body != `{"code":"INVALID_TOKEN"}` {
			t.Errorf("the answer is %d %s", code, body)
		}
	}
	w.asked(0, 1)
	w.clock.Advance(2 * time.Minute)
	w.call(c, nil)
	w.asked(0, 2)
}

func TestOtherAnswersAreNoReasonToRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, _ := w.client()
	for _, f := range []zohoaccounts.Fault{
		{Status: 401, Body: `{"code":"OAUTH_SCOPE_MISMATCH"}`},
		{Status: 401, Body: strings.Repeat("x", 200<<10)},
		{Status: 403, Body: `{"code":"INVALID_TOKEN"}`},
		{Status: 200, Body: `{"code":"INVALID_TOKEN"}`},
		{Status: 500},
	} {
		w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &f })
		if code, body := w.call(c, nil); code != f.Status || body != f.Body {
			t.Errorf("the answer is %d with %d bytes", code, len(body))
		}
	}
	w.asked(0, 0)
}

func TestTransportRejectionCodes(t *testing.T) {
	t.Parallel()
	for _, f := range []zohoaccounts.Fault{
		{Status: 401, Body: `{"code":"INVALID_TOKEN","message":"invalid oauth token"}`},
		{Status: 401, Body: `{"code":"INVALID_OAUTHTOKEN"}`},
		{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer realm="x", error="invalid_token"`}}},
	} {
		w := newWorld(t, nil)
		c, old := w.client()
		w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
			if strings.HasSuffix(r.Header.Get("Authorization"), string(old.AccessToken)) {
				return &f
			}
			return nil
		})
		if code, _ := w.call(c, nil); code != http.StatusOK {
			t.Errorf("%s: the answer is %d", f.Body, code)
		}
		w.asked(0, 1)
	}
}

// TestTransportTokenCannotBeReplaced checks that the error says why a rejected token cannot be
// replaced.
func TestTransportTokenCannotBeReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, old := w.client()
	w.zoho.RevokeTokens(clientID, "abc.a@zoho.com")
	for range 2 {
		_, err := c.HTTPClient(t.Context()).Post(apiURL, "text/plain", strings.NewReader("a lead"))
		w.wants(err, initializer.ErrReauthRequired)
	}
	w.asked(0, 1)
	if w.record() != old {
		t.Error("the record was changed")
	}
}

func TestTransportURLWithoutHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, _ := w.client()
	res, err := c.HTTPClient(t.Context()).Get("/crm/v8/Leads?fields=Last_Name")
	if err != nil || res.Request.URL.String() != "https://www.zohoapis.com/crm/v8/Leads?fields=Last_Name" {
		t.Fatalf("%v: %v", res.Request.URL, err)
	}
	last := w.zoho.Requests()[0]
	if last.Host != "www.zohoapis.com" || last.Query.Get("fields") != "Last_Name" {
		t.Errorf("asked was %s for %v", last.Host, last.Query)
	}
}

func TestTransportRedirect(t *testing.T) {
	t.Parallel()
	for location, sent := range map[string]bool{
		"/crm/v8/Contacts":                         true,
		"https://www.zohoapis.com/crm/v8/Contacts": true,
		"https://evil.example.com/crm/v8/Contacts": false,
		"http://www.zohoapis.com/crm/v8/Contacts":  false,
	} {
		for _, asked := range []string{"/crm/v8/Leads", "https://www.zohoapis.com/crm/v8/Leads"} {
			w := newWorld(t, nil)
			c, _ := w.client()
			w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
				if strings.HasSuffix(r.Path, "/Leads") {
					return &zohoaccounts.Fault{Status: http.StatusFound, Header: http.Header{"Location": {location}}}
				}
				return nil
			})
			res, err := c.HTTPClient(t.Context()).Get(asked)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			requests := w.zoho.Requests()
			if got := requests[1].Header.Get("Authorization") != ""; got != sent || len(requests) > 2 {
				t.Errorf("%s to %s: the token was sent: %t (%d requests)", asked, location, got, len(requests))
			}
		}
	}
}

func TestTransportClosesBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, _ := w.client()
	h := c.HTTPClient(t.Context())
	_ = c.Close()
	body := &closer{Reader: bytes.NewReader(nil)}
	if _, err := h.Post("/crm/v8/Leads", "application/json", body); err == nil {
		t.Error("the request was sent")
	}
	if !body.closed {
		t.Error("the body was not closed")
	}
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error {
	c.closed = true
	return nil
}
