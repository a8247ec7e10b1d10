package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/examples/internal/readme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

func TestMain(m *testing.M) { readme.Main(m) }

const api = "https://api.example.com/crm/v8/things"

// A browser receives the program's output. It opens the URL in the output, and sends a
// one-time code to the program.
type browser struct {
	t       *testing.T
	consent func() string // returns a one-time code
	visits  sync.WaitGroup

	mu   sync.Mutex
	text bytes.Buffer
}

func (b *browser) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var page = regexp.MustCompile(`https://id\.example\.com\S+`)

func (b *browser) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := page.Find(p); u != nil {
		b.visits.Go(func() { b.visit(string(u)) })
	}
	return b.text.Write(p)
}

func (b *browser) visit(address string) {
	u, err := url.Parse(address)
	if err != nil || u.Query().Get("code_challenge_method") != "S256" {
		b.t.Errorf("the page is %s: %v", address, err)
		return
	}
	back := u.Query().Get("redirect_uri")
	for _, answer := range []struct {
		state string
		want  int
	}{{"of another user", http.StatusBadRequest}, {u.Query().Get("state"), http.StatusOK}} {
		res, err := http.Get(back + "?" + url.Values{"state": {answer.state}, "code": {b.consent()}}.Encode())
		if err != nil {
			b.t.Error(err)
			return
		}
		_ = res.Body.Close()
		if res.StatusCode != answer.want {
			b.t.Errorf("the program answers the browser with %s", res.Status)
		}
	}
}

// start returns the program, its browser, and a server that rotates refresh tokens. The
// server revokes all tokens if a refresh token is used twice.
func start(t *testing.T, path string) (*app, *browser, *zohoaccounts.Server) {
	t.Helper()
	server := zohoaccounts.New(&zohoaccounts.Options{Strict: true, AccessLife: time.Second})
	server.AddClient(zohoaccounts.Client{ID: "client", Secret: "secret"})
	store, err := filestore.New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, consent: func() string {
		return server.Code(zohoaccounts.Consent{ClientID: "client", Email: "ann@example.com"})
	}}
	return &app{
		out: b, store: store, http: server.Client(),
		oauth: oauth2.Config{ClientID: "client", ClientSecret: "secret", Endpoint: oauth2.Endpoint{
			AuthURL: "https://id.example.com/authorize", TokenURL: "https://id.example.com/oauth/v2/token",
		}},
	}, b, server
}

func TestREADME(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, b, server := start(t, filepath.Join(dir, "unused"))
	program := func(c readme.Call) (string, error) {
		a, err := newApp(c.Getenv, b, server.Client())
		if err != nil {
			return "", err
		}
		// The token endpoint of the fake server has a path other than the one in the README.
		a.oauth.Endpoint.TokenURL = strings.Replace(a.oauth.Endpoint.TokenURL, "/token", "/oauth/v2/token", 1)
		if err := a.run(t.Context(), c.Args); err != nil {
			return "", err
		}
		b.visits.Wait()
		return "", nil
	}
	build := func(c readme.Call) (string, error) {
		if got := strings.Join(c.Args, " "); got != "build -o otherserver ./examples/otherserver" {
			return "", fmt.Errorf("unexpected arguments %q", got)
		}
		return "", nil
	}
	server.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Path == "/v1/me" && r.Header.Get("Authorization") != "" {
			return &zohoaccounts.Fault{Status: 200, Body: `{"me":"ann"}`}
		}
		return nil
	})
	script := readme.Only(readme.Blocks(t, "README.md"), "sh")
	readme.Run(t, dir, script, map[string]readme.Program{"otherserver": program, "go": build}, "HOME="+dir)
	if got := b.String(); !strings.Contains(got, "You are logged in.") || !strings.HasSuffix(got, `{"me":"ann"}`) {
		t.Errorf("the program prints %s", got)
	}
}

func TestLoginRotatingRefreshTokens(t *testing.T) {
	t.Parallel()
	a, b, server := start(t, filepath.Join(t.TempDir(), "tokens.csv"))
	if err := a.login(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.visits.Wait()
	if !strings.Contains(b.String(), "You are logged in.") {
		t.Errorf("the program printed %q", b)
	}
	// Each call of get creates a new Client, like another process. The Client must refresh the
	// expired token, and the server replaces the refresh token each time.
	const runs = 5
	for range runs {
		server.Advance(time.Minute)
		if err := a.expire(t); err != nil {
			t.Fatal(err)
		}
		if err := a.get(t.Context(), api); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Count(zohoaccounts.Refresh); n != runs {
		t.Errorf("%d runs made %d refreshes", runs, n)
	}
	if n := server.Refused("invalid_grant"); n != 0 {
		t.Errorf("%d requests were refused", n)
	}

	// A second login uses the same record.
	if err := a.login(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.visits.Wait()
	if tokens, err := a.store.GetTokens(t.Context()); err != nil || len(tokens) != 1 || tokens[0].UserName != user {
		t.Errorf("the records are %+v: %v", tokens, err)
	}
}

// expire marks the stored access token as expired.
func (a *app) expire(t *testing.T) error {
	t.Helper()
	tokens, err := a.store.GetTokens(t.Context())
	if err != nil {
		return err
	}
	for _, token := range tokens {
		token.ExpiresAt = time.Now().Add(-time.Minute)
		if _, err := a.store.SaveToken(t.Context(), token); err != nil {
			return err
		}
	}
	return nil
}

func TestWithoutALoginThereIsNoToken(t *testing.T) {
	t.Parallel()
	a, _, server := start(t, filepath.Join(t.TempDir(), "tokens.csv"))
	if err := a.get(t.Context(), api); !errors.Is(err, initializer.ErrReauthRequired) {
		t.Errorf("the error is %v", err)
	}
	if n := len(server.Requests()); n != 0 {
		t.Errorf("there were %d requests", n)
	}
}

// A failing is a store that refuses some saves. It has no method Refresh, so the Client saves the
// tokens itself.
type failing struct {
	tokenstore.TokenStore
	fails func() bool
}

func (f failing) SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	if f.fails() {
		return tokenstore.Token{}, tokenstore.NewError("save", "failing", t.ID, tokenstore.ErrDenied)
	}
	return f.TokenStore.SaveToken(ctx, t)
}

// TestStoreFails checks that login and get store new tokens if the store refuses only the first
// save. If the store refuses all saves, login must report the error.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	a, _, server := start(t, filepath.Join(t.TempDir(), "tokens.csv"))
	var refusals, issued int // if there are more requests than issued, the store refuses as many saves as refusals
	refused := func() {}     // is called after each refusal
	requests := func() int { return server.Count(zohoaccounts.Exchange, zohoaccounts.Refresh) }
	refuse := func(n int) { refusals, issued = n, requests() }
	good := a.store
	a.store = failing{good, func() bool {
		if requests() <= issued || refusals == 0 {
			return false
		}
		refusals--
		refused()
		return true
	}}
	code := func() string {
		return server.Code(zohoaccounts.Consent{ClientID: "client", Email: "ann@example.com"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refuse(1 << 30)
	refused = func() {
		if refusals < 1<<30-1 {
			cancel() // the user gives up
		}
	}
	if err := a.begin(ctx, code(), ""); !errors.Is(err, tokenstore.ErrNotPersisted) {
		t.Errorf("login without a working store returns %v", err)
	}
	refuse(1)
	if err := a.begin(t.Context(), code(), ""); err != nil {
		t.Fatalf("login returns %v", err)
	}
	if err := a.expire(t); err != nil {
		t.Fatal(err)
	}
	server.Advance(time.Minute)
	refuse(1)
	if err := a.get(t.Context(), api); err != nil {
		t.Fatalf("get returns %v", err)
	}
	if refusals != 0 {
		t.Error("the store has refused no save of get")
	}
	a.store = good
	if err := a.expire(t); err != nil {
		t.Fatal(err)
	}
	server.Advance(time.Minute)
	if err := a.get(t.Context(), api); err != nil {
		t.Errorf("the next get returns %v", err)
	}
	if n := server.Refused("invalid_grant"); n != 0 {
		t.Errorf("%d requests were refused", n)
	}
}
