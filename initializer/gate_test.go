package initializer_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

const accessToken = "canary-access-token"

// A witness is a transport that answers for every host, and records the hosts to which secrets are
// sent.
type witness struct {
	mu    sync.Mutex
	asked []string
	told  []string // the hosts of asked to which a secret was sent
	reply func(*http.Request) *http.Response
}

func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	to := r.URL.Scheme + "://" + r.URL.Host
	w.asked = append(w.asked, to)
	if text := fmt.Sprint(r.URL, r.Header, string(body)); strings.Contains(text, "canary") {
		w.told = append(w.told, to)
	}
	if w.reply != nil {
		if res := w.reply(r); res != nil {
			res.Request = r
			return res, nil
		}
	}
	return answered(r, http.StatusOK, `{}`), nil
}

func answered(r *http.Request, code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

func redirected(code int, location string) *http.Response {
	res := answered(nil, code, "")
	res.Header.Set("Location", location)
	return res
}

// kept returns a store with one valid record, which has the given API domain.
func kept(t *testing.T, domain string) (tokenstore.TokenStore, tokenstore.Token) {
	t.Helper()
	s := memstore.New(nil)
	rec, err := s.SaveToken(t.Context(), tokenstore.Token{
		ClientID: "c", ClientSecret: "canary-client-secret", RefreshToken: "canary-refresh",
		AccessToken: accessToken, ExpiresAt: time.Now().Add(time.Hour), APIDomain: domain,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, rec
}

var badHosts = []string{
	"http://www.zohoapis.eu", "http://api.attacker.example", "https://api.attacker.example", "http://169.254.169.254", "https://169.254.169.254",
	"https://www.zohoapis.eu.attacker.example", "https://attackerzohoapis.eu", "https://www-zohoapis.eu", "https://zohoapis.eu.com",
	"https://www.zohoapis.eu:8443", "https://www.zohoapis.eu@attacker.example", "https://user:pw@www.zohoapis.eu", "https://www.zohoapis.eu.",
	"https://www.zohoapi\u0455.eu", "https://xn--www-zohoapis-abc.eu", "https://www.zohoapis.eu\\@attacker.example", "https://[2001:db8::1]", "ftp://www.zohoapis.eu",
	"https:www.zohoapis.eu", "https://", "https://www.zohoapis.xx", "javascript:alert(1)", "file:///etc/passwd",
	"https://www.zohoapis.eu?x=", "https://www.zohoapis.eu#x", "https://attacker.example/www.zohoapis.eu", "attacker.example",
	"https://%77ww.attacker.example", "https://0x7f000001", "https://127.0.0.1.attacker.example", "http://localhost.attacker.example",
}

// TestGateOfRecords checks that no token is sent to the API domain of a record if the domain does
// not belong to Zoho.
func TestGateOfRecords(t *testing.T) {
	t.Parallel()
	for _, domain := range badHosts {
		store, rec := kept(t, domain)
		seen := &witness{}
		c, err := initializer.New(t.Context(), initializer.Config{
			Environment: initializer.EU.Production(), Store: store, FindUser: true,
			Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen},
		})
		if err != nil {
			t.Fatalf("%s: %v", domain, err)
		}
		if _, err := c.HTTPClient(t.Context()).Get("/crm/v8/Leads"); !errors.Is(err, initializer.ErrUntrustedURL) {
			t.Errorf("%s: %v", domain, err)
		}
		if got := c.APIDomain(); got != "" {
			t.Errorf("%s: the API domain is %q", domain, got)
		}
		if tok, err := c.TokenSource(t.Context()).Token(); err != nil || tok.Extra("api_domain") != "" {
			t.Errorf("%s: the source has the API domain %v: %v", domain, tok.Extra("api_domain"), err)
		}
		if len(seen.asked) > 0 {
			t.Errorf("%s: asked was %v", domain, seen.asked)
		}
	}
}

// TestGateOfRefresh checks that refreshes are sent only to Zoho's accounts servers, even if a
// record has another API domain.
func TestGateOfRefresh(t *testing.T) {
	t.Parallel()
	for _, domain := range append(badHosts, "https://www.zohoapis.in", "HTTPS://Sandbox.ZohoAPIs.com.au/", "developer.zohoapis.ca", "https://www.zohoapis.uk", "https://www.zohoapis.jp:443/") {
		store, rec := kept(t, domain)
		if _, err := store.SaveToken(t.Context(), tokenstore.Token{ID: rec.ID, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
		seen := &witness{reply: func(r *http.Request) *http.Response {
			return answered(r, http.StatusOK, `{"access_token":"canary-2","api_domain":"https://api.attacker.example"}`)
		}}
		c, err := initializer.New(t.Context(), initializer.Config{
			Environment: initializer.EU.Production(), Store: store, FindUser: true,
			Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen},
		})
		if err != nil {
			t.Fatalf("%s: %v", domain, err)
		}
		_ = c.Revoke(t.Context())
		for _, to := range seen.asked {
			if !strings.HasPrefix(to, "https://accounts.zoho") && !strings.Contains(to, "zohoapis") || strings.Contains(to, "attacker") {
				t.Errorf("%s: asked was %v", domain, seen.asked)
			}
		}
	}
}

func TestGateOfURLs(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	for _, c := range []struct {
		url          string
		zoho, others bool // whether the token may be sent to url
		only         bool // whether the token may be sent to url if Hosts is set
	}{
		{"https://www.zohoapis.eu/crm/v8/Leads", true, true, false},
		{"https://content.zohoapis.com/crm/v8/upload", true, true, false},
		{"https://files.zoho.sa/x", true, true, false},
		{"https://upload.zohocloud.ca/x", true, true, false},
		{"https://WWW.ZOHOAPIS.COM:443/x", true, true, false},
		{"https://crm.example.com/x", false, true, true},
		{"https://crm.example.com:8443/x", false, true, false},
		{"https://CRM.example.com:443/x", false, true, true},
		{"https://other.example.com/x", false, true, false},
		{"https://x.crm.example.com/x", false, true, false},
		{server.URL + "/x", true, true, true},
		{"http://localhost:8080/x", true, true, true},
		{"http://[::1]:8080/x", true, true, true},
		{"http://crm.example.com/x", false, false, false},
		{"http://www.zohoapis.eu/x", false, false, false},
		{"https://user:pw@www.zohoapis.eu/x", false, false, false},
		{"ws://www.zohoapis.eu/x", false, false, false},
	} {
		for kind, may := range map[string]bool{"zoho": c.zoho, "zoho with hosts": c.zoho || c.only, "other": c.others, "other with hosts": c.only} {
			store, rec := kept(t, "")
			seen := &witness{}
			conf := initializer.Config{Environment: initializer.EU.Production(), Store: store, Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen}}
			if strings.HasPrefix(kind, "other") {
				conf.Environment = initializer.Environment{}
				conf.OAuth2, conf.Issuer = &oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}, initializer.NoIssuer
			}
			if strings.HasSuffix(kind, "hosts") {
				conf.Hosts = []string{"crm.example.com"}
			}
			client, err := initializer.New(t.Context(), conf)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.HTTPClient(t.Context()).Get(c.url)
			switch {
			case err == nil:
				_ = res.Body.Close()
			case !errors.Is(err, initializer.ErrUntrustedURL):
				t.Errorf("%s, %s: %v", kind, c.url, err)
			case strings.Contains(err.Error(), accessToken):
				t.Errorf("%s, %s: the error has the token", kind, c.url)
			}
			if got := len(seen.told) > 0; got != may || got != (err == nil) {
				t.Errorf("%s, %s: the token was sent: %t (%v)", kind, c.url, got, err)
			}
		}
	}
}

// TestGateOfRedirects checks that a redirect does not carry the token to another host, or from
// https to http.
func TestGateOfRedirects(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]bool{
		"/b":                         true,
		"b":                          true,
		"https://www.zohoapis.eu/b":  true,
		"//www.zohoapis.eu/b":        true,
		"//attacker.example/b":       false,
		"https://attacker.example/b": false,
		"http://www.zohoapis.eu/b":   false,
		"https://www.zohoapis.com/b": false, // Zoho's, but not the host of the first request
		"//www.zohoapis.eu:8443/b":   false,
		"http://127.0.0.1:1/b":       false,
	} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			for _, begin := range []string{"/a", "https://www.zohoapis.eu/a"} {
				store, rec := kept(t, "")
				detour := false
				seen := &witness{reply: func(r *http.Request) *http.Response {
					switch {
					case r.URL.Path == "/a":
						return redirected(code, location)
					case !want && !detour: // the other host redirects back
						detour = true
						return redirected(code, "https://www.zohoapis.eu/c")
					}
					return nil
				}}
				c, err := initializer.New(t.Context(), initializer.Config{Environment: initializer.EU.Production(), Store: store, Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen}})
				if err != nil {
					t.Fatal(err)
				}
				res, err := c.HTTPClient(t.Context()).Post(begin, "text/plain", strings.NewReader("a lead"))
				if err != nil {
					t.Errorf("%s to %s: %v", begin, location, err)
					continue
				}
				_ = res.Body.Close()
				told := 1
				if want {
					told = 2
				}
				if len(seen.told) != told || len(seen.asked) < 2 {
					t.Errorf("%d from %s to %s: asked was %v, and told %v", code, begin, location, seen.asked, seen.told)
				}
			}
		}
	}
}

// TestGateOfTokenEndpoint checks that a refresh does not follow redirects.
func TestGateOfTokenEndpoint(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, kind := range []string{"zoho", "other"} {
			store, rec := kept(t, "")
			if _, err := store.SaveToken(t.Context(), tokenstore.Token{ID: rec.ID, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
				t.Fatal(err)
			}
			seen := &witness{reply: func(*http.Request) *http.Response { return redirected(code, "https://attacker.example/token") }}
			conf := initializer.Config{Environment: initializer.EU.Production(), Store: store, Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen}}
			if kind == "other" {
				conf.Environment = initializer.Environment{}
				conf.OAuth2, conf.Issuer = &oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}}, initializer.NoIssuer
			}
			if _, err := initializer.New(t.Context(), conf); !errors.Is(err, initializer.ErrServer) {
				t.Errorf("%v", err)
			}
			if len(seen.asked) != 1 {
				t.Errorf("%s: asked was %v", kind, seen.asked)
			}
		}
	}
}

func TestGateOfConfig(t *testing.T) {
	t.Parallel()
	for _, domain := range badHosts {
		store, _ := kept(t, "")
		conf := initializer.Config{Environment: initializer.EU.Production(), Store: store, Token: tokenstore.Token{ClientID: "c", ClientSecret: "s", GrantToken: "g", APIDomain: domain}}
		if _, err := initializer.New(t.Context(), conf); err == nil {
			t.Errorf("New took the API domain %q", domain)
		}
	}
}

// TestGateOfProxy checks that tokens are sent only to Zoho and the proxy if one server of the
// Environment is a proxy.
func TestGateOfProxy(t *testing.T) {
	t.Parallel()
	for _, env := range []initializer.Environment{
		{AccountsURL: "https://accounts.zoho.eu", APIURL: "https://proxy.example.com/zoho"},
		{AccountsURL: "https://proxy.example.com", APIURL: "https://www.zohoapis.eu"},
	} {
		for domain, may := range map[string]bool{"https://attacker.example": false, "https://proxy.example.com": true, "https://www.zohoapis.in": true, "": true} {
			store, rec := kept(t, domain)
			seen := &witness{}
			c, err := initializer.New(t.Context(), initializer.Config{Environment: env, Store: store, Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.HTTPClient(t.Context()).Get("/crm/v8/Leads")
			if len(seen.told) > 0 != may || (err == nil) != may {
				t.Errorf("%v, %q: told was %v: %v", env, domain, seen.told, err)
			}
		}
	}
}

func TestGateOfHosts(t *testing.T) {
	t.Parallel()
	for host, good := range map[string]bool{
		"crm.example.com": true, "crm.example.com:8443": true, "https://crm.example.com/": true,
		"": false, "crm.example.com/api": false, "http://crm.example.com": false, "*.example.com:x": false, "a b": false,
	} {
		conf := initializer.Config{Environment: initializer.EU.Production(), Store: memstore.New(nil), Token: tokenstore.Token{AccessToken: "x"}, Hosts: []string{host}}
		if _, err := initializer.New(t.Context(), conf); (err == nil) != good {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	eu := initializer.EU.Production()
	for name, c := range map[string]struct {
		env  initializer.Environment
		api  string // API domain of the record
		want string // the accounts server; "" if New fails
	}{
		"as it is":                {eu, "", "accounts.zoho.eu"},
		"a slash at the end":      {initializer.Environment{AccountsURL: "https://accounts.zoho.eu/", APIURL: "https://www.zohoapis.eu//"}, "", "accounts.zoho.eu"},
		"the token URL":           {initializer.Environment{AccountsURL: "https://accounts.zoho.eu/oauth/v2/token", APIURL: "https://www.zohoapis.eu"}, "", "accounts.zoho.eu"},
		"the auth URL":            {initializer.Environment{AccountsURL: "https://accounts.zoho.eu/oauth/v2/auth/", APIURL: "https://www.zohoapis.eu"}, "", "accounts.zoho.eu"},
		"no scheme":               {initializer.Environment{AccountsURL: "accounts.zoho.eu", APIURL: "www.zohoapis.eu"}, "", "accounts.zoho.eu"},
		"upper case":              {initializer.Environment{AccountsURL: "HTTPS://Accounts.Zoho.EU", APIURL: "www.zohoapis.eu"}, "", "accounts.zoho.eu"},
		"spaces":                  {initializer.Environment{AccountsURL: " https://accounts.zoho.eu\n", APIURL: "www.zohoapis.eu:443"}, "", "accounts.zoho.eu"},
		"a name in upper case":    {initializer.DataCenter("EU").Sandbox(), "", "accounts.zoho.eu"},
		"the United Kingdom":      {initializer.UK.Production(), "", "accounts.zoho.uk"},
		"the Emirates":            {initializer.DataCenter("ae").Production(), "", "accounts.zoho.ae"},
		"another record":          {eu, "https://www.zohoapis.com.cn", "accounts.zoho.com.cn"},
		"with a slash":            {eu, "https://sandbox.zohoapis.ca/", "accounts.zohocloud.ca"},
		"without a scheme":        {eu, "www.zohoapis.uk", "accounts.zoho.uk"},
		"another path":            {initializer.Environment{AccountsURL: "https://accounts.zoho.eu/signin", APIURL: "https://www.zohoapis.eu"}, "", ""},
		"a path of the API":       {initializer.Environment{AccountsURL: "https://accounts.zoho.eu", APIURL: "https://www.zohoapis.eu/crm/v8"}, "", ""},
		"a query":                 {initializer.Environment{AccountsURL: "https://accounts.zoho.eu?x=1", APIURL: "https://www.zohoapis.eu"}, "", ""},
		"an unknown centre":       {initializer.DataCenter("xx").Production(), "", ""},
		"half of it":              {initializer.Environment{AccountsURL: "https://accounts.zoho.eu"}, "", ""},
		"plain http":              {initializer.Environment{AccountsURL: "http://accounts.zoho.eu", APIURL: "https://www.zohoapis.eu"}, "", ""},
		"a server of one's own":   {initializer.Environment{AccountsURL: "https://id.example.com/zoho/", APIURL: "https://api.example.com"}, "https://www.zohoapis.in", "id.example.com"},
		"one that is not listed":  {initializer.Environment{AccountsURL: "https://accounts.zoho.sg", APIURL: "https://www.zohoapis.sg"}, "", "accounts.zoho.sg"},
		"a test server":           {initializer.Environment{AccountsURL: "http://127.0.0.1:9", APIURL: "http://localhost:9"}, "", "127.0.0.1:9"},
		"a test server, unlisted": {initializer.Environment{AccountsURL: "http://10.0.0.1:9", APIURL: "http://localhost:9"}, "", ""},
	} {
		store, rec := kept(t, c.api)
		if _, err := store.SaveToken(t.Context(), tokenstore.Token{ID: rec.ID, ExpiresAt: time.Now().Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
		var asked string
		seen := &witness{reply: func(r *http.Request) *http.Response {
			asked = r.URL.Host
			if !strings.HasSuffix(r.URL.Path, "/oauth/v2/token") || strings.Count(r.URL.Path, "oauth") > 1 {
				return answered(r, http.StatusNotFound, "<html>")
			}
			return answered(r, http.StatusOK, `{"access_token":"canary-2"}`)
		}}
		_, err := initializer.New(t.Context(), initializer.Config{Environment: c.env, Store: store, Token: tokenstore.Token{ID: rec.ID}, HTTPClient: &http.Client{Transport: seen}})
		if asked != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: asked was %q: %v", name, asked, err)
		}
	}
	conf := initializer.Config{Environment: initializer.Environment{AccountsURL: "https://accounts.zoho.eu/signin", APIURL: "https://www.zohoapis.eu"}, Store: memstore.New(nil), Token: tokenstore.Token{ID: "1"}}
	if _, err := initializer.New(t.Context(), conf); err == nil || !strings.Contains(err.Error(), `"https://accounts.zoho.eu" alone`) {
		t.Errorf("the error does not say what to write: %v", err)
	}
}

// TestNothingPrintsASecret checks that no value of this package prints a secret, by itself or
// inside another value.
func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	store, rec := kept(t, "")
	conf := initializer.Config{
		Issuer:          initializer.NoIssuer,
		OAuth2:          &oauth2.Config{ClientID: "c", ClientSecret: "canary-client-secret", Endpoint: oauth2.Endpoint{TokenURL: "https://id.example.com/token"}},
		ExchangeOptions: []oauth2.AuthCodeOption{oauth2.VerifierOption("canary-verifier"), oauth2.SetAuthURLParam("x", "canary-parameter")},
		Token:           tokenstore.Token{ID: rec.ID, ClientID: "c", ClientSecret: "canary-client-secret", GrantToken: "canary-grant"},
		Store:           store,
	}
	c, err := initializer.New(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Name   string
		Conf   initializer.Config
		Client *initializer.Client
		Source oauth2.TokenSource
		HTTP   *http.Client
		client *initializer.Client
		source oauth2.TokenSource
		http   *http.Client
	}
	source, client := c.TokenSource(t.Context()), c.HTTPClient(t.Context())
	for name, v := range map[string]any{
		"Config": conf, "*Config": &conf, "Client": c, "TokenSource": source, "HTTPClient": client, "transport": client.Transport,
		"Environment": initializer.EU.Production(), "a struct": holder{"x", conf, c, source, client, c, source, client}, "a map": map[string]any{"x": conf, "y": c},
		"a list": []any{conf, &conf, c, source}, "a channel's": struct{ c *initializer.Client }{c},
	} {
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "v", v)
		text := logged.String() + expvar.Func(func() any { return v }).String()
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			text += fmt.Sprintf(verb, v) // without %p, for which package fmt calls no methods of struct fields
		}
		if b, err := json.Marshal(v); err == nil {
			text += string(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			text += string(b)
		}
		for _, canary := range []string{"canary", fmt.Sprintf("%x", "canary"), fmt.Sprintf("%X", "canary")} {
			if at := strings.Index(text, canary); at >= 0 {
				t.Errorf("%s prints a secret: …%s", name, text[max(0, at-80):min(len(text), at+30)])
			}
		}
	}
}
