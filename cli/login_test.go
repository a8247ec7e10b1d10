package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/cli/internal/files"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// A browser simulates the reaction of a user to a consent URL. It returns the address to which
// the authorization server redirects the browser, or "" if the user does not react.
type browser func(consentURL string) string

// A screen replaces standard error. It sends each consent URL in the written text on the
// channel show.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	show chan string
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.text.Write(p)
	for line := range strings.Lines(string(p)) {
		var object map[string]string
		if json.Unmarshal([]byte(line), &object) == nil && object["consent_url"] != "" {
			s.show <- object["consent_url"]
		} else if address := strings.TrimSpace(line); strings.HasPrefix(address, "https://") {
			s.show <- address
		}
	}
	return n, err
}

// logsIn runs login with a browser. The browser answers at the redirect URL. With --paste or an
// https redirect URL, logsIn writes the answer to standard input.
func (e env) logsIn(t *testing.T, server http.RoundTripper, user browser, args ...string) result {
	t.Helper()
	in, typed := io.Pipe()
	var out bytes.Buffer
	errs := &screen{show: make(chan string, 9)}
	a := &app{schemes: allSchemes(), env: e.get, lookup: e.lookup, in: in, out: bufio.NewWriter(&out), errs: errs, now: time.Now, http: &http.Client{Transport: server}}
	ctx, cancel := context.WithCancel(t.Context())
	var acting sync.WaitGroup
	acting.Go(func() {
		defer func() { _ = typed.Close() }()
		select {
		case <-ctx.Done():
			return
		case consentURL := <-errs.show:
			to := user(consentURL)
			switch u, _ := url.Parse(to); {
			case to == "":
				<-ctx.Done()
			case strings.Contains(strings.Join(args, " "), "--paste") || u.Scheme == "https":
				_, _ = io.WriteString(typed, to+"\n")
			default:
				visit(t, to)
			}
		}
	})
	code := a.run(ctx, append([]string{"login"}, args...))
	cancel()
	_ = in.Close()
	acting.Wait()
	return result{code, out.String(), errs.text.String()}
}

func visit(t *testing.T, address string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Error(err)
		return 0
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Error(err)
	}
	return res.StatusCode
}

// A loginWorld is a store and an authorization server with the user ann.
type loginWorld struct {
	env
	t *testing.T
	*authservers.Server
	asked url.Values // the parameters of the last consent URL
}

func newLoginWorld(t *testing.T, policy authservers.Policy) *loginWorld {
	t.Helper()
	return &loginWorld{env: fileStoreEnv(t).with(envClientSecret, canary+"secret"), t: t, Server: authservers.New(policy, "app", canary+"secret", time.Now)}
}

// consents implements browser for a user who gives consent.
func (w *loginWorld) consents(consentURL string) string {
	to, err := w.Authorize(consentURL)
	if err != nil {
		w.t.Error(err)
		return ""
	}
	u, _ := url.Parse(consentURL)
	w.asked = u.Query()
	return to
}

// answers returns a browser for a user who gives consent. The function change modifies the
// parameters of the answer.
func (w *loginWorld) answers(change func(url.Values)) browser {
	return func(consentURL string) string {
		u, err := url.Parse(w.consents(consentURL))
		if err != nil {
			w.t.Error(err)
			return ""
		}
		q := u.Query()
		change(q)
		u.RawQuery = q.Encode()
		return u.String()
	}
}

// login runs the command login for the client of the server, and checks that the output contains
// no secrets.
func (w *loginWorld) login(user browser, args ...string) result {
	w.t.Helper()
	r := w.logsIn(w.t, w.Server, user, append([]string{"--client", "app"}, args...)...)
	for _, q := range w.Requests() {
		for _, secret := range []string{"code", "code_verifier", "refresh_token"} {
			if text := q.Form.Get(secret); text != "" && strings.Contains(r.out+r.err, text) {
				w.t.Errorf("login %v shows the %s: %+v", args, secret, r)
			}
		}
	}
	if strings.Contains(r.out+r.err, "refresh-") || strings.Contains(r.out+r.err, "access-") || shown(r.out+r.err) != "" {
		w.t.Errorf("login %v shows a secret: %+v", args, r)
	}
	return r
}

var (
	byIssuer    = []string{"--user", "ann", "--issuer", authservers.Issuer}
	byEndpoints = []string{"--user", "ann", "--auth-url", authservers.AuthURL, "--token-url", authservers.TokenURL}
)

// kept returns the record of ann, including its secrets.
func (w *loginWorld) kept(issuer string) recordJSON {
	w.t.Helper()
	return decode[recordJSON](w.t, w.ok(w.t, "", "get", "--user", "ann", "--client", "app", "--issuer", issuer, "--reveal", "--json"))
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]struct {
		args   []string
		issuer string
	}{
		"metadata":  {byIssuer, authservers.Issuer},
		"endpoints": {byEndpoints, authservers.TokenURL},
	} {
		for receiver, more := range map[string][]string{
			"listens":              {"--json"},
			"at a path":            {"--redirect-url", "http://localhost:0/callback?from=login"},
			"pasted":               {"--paste"},
			"pasted from a server": {"--redirect-url", "https://app.example.com/callback"},
		} {
			t.Run(name+"/"+receiver, func(t *testing.T) {
				t.Parallel()
				w := newLoginWorld(t, authservers.Policy{Rotates: true, Revokes: true})
				var before recordJSON
				for range 2 { // in the second round the record already exists
					r := w.login(w.consents, append(append([]string{"--scope", "read", "--scope", "write"}, server.args...), more...)...)
					if r.code != 0 {
						t.Fatalf("exit code %d\n%s", r.code, r.err)
					}
					got := w.kept(server.issuer)
					if !w.Alive(got.AccessToken) || got.RefreshToken == "" || got.GrantToken != "" || got.ClientSecret != "" || got.Scope != "read write" {
						t.Errorf("the record is %+v", got)
					}
					if before.ID != "" && (got.ID != before.ID || got.RefreshToken == before.RefreshToken || got.AccessToken == before.AccessToken) {
						t.Errorf("the tokens of the second login are not kept: %v after %v", got, before)
					}
					before = got
					if w.asked.Get("code_challenge") == "" || len(w.asked.Get("state")) < 26 || w.asked.Get("scope") != "read write" {
						t.Errorf("asked was %v", w.asked)
					}
				}
				// The refresh token in the record can be used.
				w.ok(t, "", "ls")
				var out bytes.Buffer
				a := &app{schemes: allSchemes(), env: w.get, lookup: w.lookup, in: strings.NewReader(""), out: bufio.NewWriter(&out), errs: io.Discard, now: time.Now, http: &http.Client{Transport: w.Server}}
				code := a.run(t.Context(), []string{"token", "--user", "ann", "--client", "app", "--issuer", server.issuer, "--token-url", authservers.TokenURL, "--lasts", "2h"})
				if token := strings.TrimSpace(out.String()); code != 0 || !w.Alive(token) || token == before.AccessToken {
					t.Errorf("token: exit code %d", code)
				}
			})
		}
	}
}

func TestLoginFails(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	says := func(code string) func(url.Values) {
		return func(q url.Values) {
			q.Del("code")
			q.Set("error", code)
			q.Set("error_description", canary)
		}
	}
	for name, c := range map[string]struct {
		change func(url.Values)
		code   int
		want   string
	}{
		"another state":           {set("state", "x"), 6, "a state that differs"},
		"no state":                {set("state", ""), 6, "a state that differs"},
		"two states":              {func(q url.Values) { q.Add("state", "x") }, 6, `"state" twice`},
		"another server":          {set("iss", "https://other.example"), 6, "another authorization server"},
		"no server":               {func(q url.Values) { q.Del("iss") }, 6, "another authorization server"},
		"no code":                 {func(q url.Values) { q.Del("code") }, 6, "no code"},
		"denied":                  {says("access_denied"), 16, `"access_denied"`},
		"an unknown error":        {says("invalid_scope"), 14, `"invalid_scope"`},
		"an error that is a text": {says("a " + canary), 14, "no consent"},
		"the server is down":      {says("temporarily_unavailable"), 8, `"temporarily_unavailable"`},
		"a code that is unknown":  {set("code", canary), 16, "invalid_grant"},
	} {
		for _, way := range []string{"--wait=1m", "--paste"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				w := newLoginWorld(t, authservers.Policy{})
				r := w.login(w.answers(c.change), append(byIssuer, way)...)
				if r.code != c.code || !strings.Contains(r.err, c.want) || r.out != "" {
					t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, c.code, c.want, r.out, r.err)
				}
				w.savedNothing()
			})
		}
	}
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		w := newLoginWorld(t, authservers.Policy{})
		for _, args := range [][]string{{"--wait", "20ms"}, {"--wait", "20ms", "--paste"}, {"--wait", "20ms", "--timeout", "1h"}, {"--timeout", "20ms"}} {
			r := w.login(func(string) string { return "" }, append(byEndpoints, args...)...)
			if r.code != 8 || !strings.Contains(r.err, args[0]) || args[0] != "--timeout" && strings.Contains(r.err, "--timeout") {
				t.Errorf("%v: exit code %d: %s", args, r.code, r.err)
			}
		}
		w.savedNothing()
	})
	t.Run("the exchange is interrupted", func(t *testing.T) {
		t.Parallel()
		w := newLoginWorld(t, authservers.Policy{})
		w.Inject(func(*authservers.Request) *authservers.Fault { return &authservers.Fault{} })
		if r := w.login(w.consents, byEndpoints...); r.code != 8 {
			t.Errorf("exit code %d: %s", r.code, r.err)
		}
		w.savedNothing()
	})
	t.Run("the client's secret is wrong", func(t *testing.T) {
		t.Parallel()
		w := newLoginWorld(t, authservers.Policy{})
		w.env = w.with(envClientSecret, canary+"other")
		if r := w.login(w.consents, byEndpoints...); r.code != 14 {
			t.Errorf("exit code %d: %s", r.code, r.err)
		}
		w.savedNothing()
	})
	t.Run("pasted is something else", func(t *testing.T) {
		t.Parallel()
		w := newLoginWorld(t, authservers.Policy{})
		for _, text := range []string{canary, "https://other.example/?code=" + canary, "http://127.0.0.1/?%zz" + canary, " "} {
			if r := w.login(func(string) string { return text }, append(byEndpoints, "--paste")...); r.code != 6 {
				t.Errorf("exit code %d: %s", r.code, r.err)
			}
		}
		w.savedNothing()
	})
	t.Run("the store denies", func(t *testing.T) {
		t.Parallel()
		w := newLoginWorld(t, authservers.Policy{})
		vault, _ := vaultEnv(t)
		w.env = vault.with("VAULT_TOKEN", "hvs."+canary)
		if r := w.login(w.consents, byEndpoints...); r.code != 7 || w.asked != nil {
			t.Errorf("exit code %d, and asked was %v: %s", r.code, w.asked, r.err)
		}
	})
	t.Run("the store fails", func(t *testing.T) {
		t.Parallel()
		w := newLoginWorld(t, authservers.Policy{})
		vault, server := vaultEnv(t)
		server.Inject(func(q *fakevault.Request) *fakevault.Fault {
			if q.Operation == "write" {
				return &fakevault.Fault{Status: http.StatusBadRequest, Errors: []string{"refused"}}
			}
			return nil
		})
		w.env = vault
		w.env = w.with(envClientSecret, canary+"secret")
		if r := w.login(w.consents, byEndpoints...); r.code == 0 || !strings.Contains(r.err, "log in again") {
			t.Errorf("exit code %d: %s", r.code, r.err)
		}
	})
}

// savedNothing checks that the file of the store does not exist.
func (w *loginWorld) savedNothing() {
	w.t.Helper()
	if name := strings.TrimPrefix(w.get(envStore), "file:"); files.Exists(name) {
		w.t.Errorf("there is a store: %s", readFile(w.t, name))
	}
}

// TestLoginListens checks that the listener of login rejects requests that are not the answer,
// and then accepts the answer.
func TestLoginListens(t *testing.T) {
	t.Parallel()
	w := newLoginWorld(t, authservers.Policy{})
	r := w.login(func(consentURL string) string {
		to := w.consents(consentURL)
		u, _ := url.Parse(to)
		for path, want := range map[string]int{"/favicon.ico": http.StatusNotFound, "/": http.StatusNotFound, "/?state=x&%zz": http.StatusBadRequest} {
			if got := visit(t, "http://"+u.Host+path); got != want {
				t.Errorf("%s: status %d, want %d", path, got, want)
			}
		}
		if got := visit(t, "http://localhost:"+u.Port()+"/?state=x&code=x"); got != http.StatusBadRequest {
			t.Errorf("another host: status %d", got)
		}
		return to
	}, byEndpoints...)
	if r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

// TestLoginAtZoho checks that the code is exchanged at the data center of the user's account.
func TestLoginAtZoho(t *testing.T) {
	t.Parallel()
	const back = "http://127.0.0.1:9/callback" // the registered redirect URL; nothing listens there
	for name, c := range map[string]struct {
		answer     string // parameters in addition to code and state
		center     string // the data center of the user
		code       int
		api, asked string
	}{
		"the same":           {"", "us", 0, "https://sandbox.zohoapis.com", "accounts.zoho.com"},
		"another":            {"&location=eu&accounts-server=https%3A%2F%2Faccounts.zoho.eu", "eu", 0, "https://sandbox.zohoapis.eu", "accounts.zoho.eu"},
		"another, by name":   {"&location=in", "in", 0, "https://sandbox.zohoapis.in", "accounts.zoho.in"},
		"one that is a trap": {"&location=us&accounts-server=https%3A%2F%2Faccounts.zoho.com.example", "us", 6, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zoho := zohoaccounts.New(nil)
			zoho.AddClient(zohoaccounts.Client{ID: "1000.C", Secret: canary + "secret", DataCenter: c.center, RedirectURL: back})
			e := fileStoreEnv(t).with(envClientSecret, canary+"secret")
			var asked *url.URL
			r := e.logsIn(t, zoho, func(consentURL string) string {
				asked, _ = url.Parse(consentURL)
				code := zoho.Code(zohoaccounts.Consent{ClientID: "1000.C", Email: "ann@example.com", ZGID: "6001", Environment: "sandbox"})
				return back + "?code=" + code + "&state=" + asked.Query().Get("state") + c.answer
			}, "--client", "1000.C", "--data-center", "us", "--environment", "sandbox", "--find-user", "--scope", "ZohoCRM.modules.ALL", "--scope", "ZohoCRM.users.READ",
				"--redirect-url", back, "--paste", "--json")
			if r.code != c.code || shown(r.out+r.err) != "" {
				t.Fatalf("exit code %d: %s%s", r.code, r.out, r.err)
			}
			q := asked.Query()
			if asked.Host != "accounts.zoho.com" || asked.Path != "/oauth/v2/auth" || q.Get("scope") != "ZohoCRM.modules.ALL,ZohoCRM.users.READ" ||
				q.Get("access_type") != "offline" || q.Get("prompt") != "consent" || q.Get("redirect_uri") != back {
				t.Errorf("asked was %v", asked)
			}
			for _, made := range zoho.Requests() {
				if made.Kind == zohoaccounts.Exchange && made.Host != c.asked {
					t.Errorf("the code was sent to %s", made.Host)
				}
			}
			if c.code != 0 {
				if n := len(zoho.Requests()); n > 0 {
					t.Errorf("%d requests were made", n)
				}
				return
			}
			got := decode[recordJSON](t, e.ok(t, "", "get", "--user", "ann@example.com:6001", "--client", "1000.C", "--reveal", "--json"))
			if got.APIDomain != c.api || got.ClientSecret != canary+"secret" || got.RefreshToken == "" || !zoho.Alive(got.AccessToken) || got.Issuer != "" {
				t.Errorf("the record is %+v", got)
			}
		})
	}
}

// wellKnownAt is a server with metadata at one address.
type wellKnownAt struct {
	at, text string
	status   int
}

func (w wellKnownAt) RoundTrip(r *http.Request) (*http.Response, error) {
	status, text := http.StatusNotFound, ""
	if r.URL.String() == w.at {
		status, text = cmp.Or(w.status, http.StatusOK), w.text
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func TestLoginMetadata(t *testing.T) {
	t.Parallel()
	const issuer = "https://id.example/tenant"
	good := `{"issuer":"` + issuer + `","authorization_endpoint":"https://id.example/a","token_endpoint":"https://id.example/t"`
	for name, c := range map[string]struct {
		server wellKnownAt
		code   int
		want   string
	}{
		"RFC 8414":             {wellKnownAt{"https://id.example/.well-known/oauth-authorization-server/tenant", good + "}", 0}, 8, "https://id.example/a?"},
		"OpenID Connect":       {wellKnownAt{issuer + "/.well-known/openid-configuration", good + "}", 0}, 8, "code_challenge="},
		"without PKCE":         {wellKnownAt{issuer + "/.well-known/openid-configuration", good + `,"code_challenge_methods_supported":["plain"]}`, 0}, 8, "https://id.example/a?"},
		"none":                 {wellKnownAt{"https://id.example/", good + "}", 0}, 14, "no metadata"},
		"another issuer":       {wellKnownAt{issuer + "/.well-known/openid-configuration", strings.Replace(good, "tenant", "other", 1) + "}", 0}, 14, "letter for letter"},
		"not JSON":             {wellKnownAt{issuer + "/.well-known/openid-configuration", "<html>", 0}, 8, "not a JSON object"},
		"http":                 {wellKnownAt{issuer + "/.well-known/openid-configuration", strings.Replace(good, "https://id.example/t\"", "http://id.example/t\"", 1) + "}", 0}, 14, "token endpoint"},
		"a server that fails":  {wellKnownAt{issuer + "/.well-known/openid-configuration", "", 503}, 8, "503"},
		"a server that waits":  {wellKnownAt{issuer + "/.well-known/openid-configuration", "", 429}, 8, "429"},
		"a server that points": {wellKnownAt{issuer + "/.well-known/openid-configuration", "", 302}, 14, "no metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fileStoreEnv(t).logsIn(t, c.server, func(string) string { return "" }, "--user", "ann", "--client", "app", "--issuer", issuer, "--wait", "10ms")
			if r.code != c.code || !strings.Contains(r.err, c.want) || name == "without PKCE" && strings.Contains(r.err, "challenge") {
				t.Errorf("exit code %d, want %d and %q:\n%s", r.code, c.code, c.want, r.err)
			}
		})
	}
}

func TestLoginUsage(t *testing.T) {
	t.Parallel()
	zoho := []string{"--user", "u", "--client", "c", "--data-center", "eu", "--redirect-url", "http://localhost:8085/"}
	for _, args := range [][]string{
		{}, {"--user", "u"}, {"--client", "c"}, {"--user", "u", "--client", "c"}, {"--user", "u", "--client", "c", "--auth-url", "https://h/a"},
		{"--user", "u", "--client", "c", "--auth-url", "http://h/a", "--token-url", "https://h/t"},
		{"--user", "u", "--client", "c", "--issuer", "http://h"}, {"--user", "u", "--client", "c", "--issuer", "https://h", "--environment", "sandbox"},
		append(byEndpoints, "--client", "c", "--find-user"), append(byEndpoints, "--client", "c", "--wait", "0s"),
		append(byEndpoints, "--client", "c", "--param", "state=x"), append(byEndpoints, "--client", "c", "--param", "x"),
		append(byEndpoints, "--client", "c", "--redirect-url", "http://h/"), append(byEndpoints, "--client", "c", "--redirect-url", "/x"),
		append(byEndpoints, "--client", "c", "--redirect-url", "https://u:p@h/"),
		zoho, append(zoho, "--scope", "s", "--issuer", "https://h"), append(zoho, "--scope", "s", "--accounts-url", "https://h"),
		append(zoho[:6:6], "--scope", "s"), append(zoho[:4:4], "--data-center", "xx", "--scope", "s", "--redirect-url", "http://localhost:8085/"),
	} {
		e := fileStoreEnv(t).with(envClientSecret, "s")
		e.fails(t, 2, "", append([]string{"login"}, args...)...)
	}
	if text := fileStoreEnv(t).fails(t, 2, "", append([]string{"login", "--scope", "s"}, zoho...)...); !strings.Contains(text, envClientSecret) {
		t.Errorf("without a secret: %s", text)
	}
}

// TestLoginOpensABrowser checks that login passes the consent URL to the program that opens a
// browser.
func TestLoginOpensABrowser(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the name of the program is another")
	}
	dir := t.TempDir()
	opened := filepath.Join(dir, "opened")
	script := "#!/bin/sh\nprintf %s \"$1\" > '" + opened + ".part' && mv '" + opened + ".part' '" + opened + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	e := fileStoreEnv(t).with("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")).with(envClientSecret, canary)
	cmd := process(t, e, append([]string{"login", "--open", "--client", "app"}, byEndpoints...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(time.Minute); !files.Exists(opened); <-look.C {
		if time.Now().After(deadline) {
			t.Fatal("no browser is opened")
		}
	}
	u, err := url.Parse(readFile(t, opened))
	if err != nil || !strings.HasPrefix(u.String(), authservers.AuthURL+"?") || shown(u.String()) != "" {
		t.Fatalf("opened is %v: %v", u, err)
	}
	// With a refusal as the answer, the process ends without a request to the server.
	visit(t, u.Query().Get("redirect_uri")+"?error=access_denied&state="+u.Query().Get("state"))
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 16 {
		t.Errorf("it ends with %v", err)
	}
}
