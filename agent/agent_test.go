package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

const (
	clientID     = "1000.CLIENT"
	clientSecret = "client-secret-that-is-long"
	email        = "abc.a@zoho.com"
	userName     = email + ":6001"
	agentToken   = "agent-token-of-26-characters"
)

// A clock shows a time that only Advance changes.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A world is an agent with a store in memory, and a fake of Zoho's accounts server.
type world struct {
	t       *testing.T
	doc     schema
	clock   *clock
	zoho    *zohoaccounts.Server
	secrets *failing
	store   *tokenstore.Store
	conf    agent.Config
	h       *agent.Handler
	url     string
	http    *http.Client
	logged  *logs
}

// logs collects log output. logs is safe for concurrent use.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// failing is a driver whose Get, Fresh, Create and Update return the errors that fail set.
type failing struct {
	driver.Secrets

	mu            sync.Mutex
	reads, writes error
	n             int // number of calls of these four methods
}

func (f *failing) fail(reads, writes error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads, f.writes = reads, writes
}

func (f *failing) read() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return f.reads
}

func (f *failing) write() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return f.writes
}

func (f *failing) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *failing) Get(ctx context.Context, name string) (driver.Secret, error) {
	if err := f.read(); err != nil {
		return driver.Secret{}, err
	}
	return f.Secrets.Get(ctx, name)
}

func (f *failing) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if err := f.read(); err != nil {
		return driver.Secret{}, err
	}
	return f.Secrets.Fresh(ctx, name, than)
}

func (f *failing) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := f.write(); err != nil {
		return "", err
	}
	return f.Secrets.Create(ctx, name, p)
}

func (f *failing) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if err := f.write(); err != nil {
		return "", err
	}
	return f.Secrets.Update(ctx, name, base, p)
}

// newWorld returns a world whose agent listens on the loopback interface. If the function change is
// not nil, newWorld first calls change with the configuration.
func newWorld(t *testing.T, change func(*agent.Config)) *world {
	t.Helper()
	w := &world{t: t, doc: openAPI(t), clock: &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, logged: &logs{}}
	w.zoho = zohoaccounts.New(&zohoaccounts.Options{Now: w.clock.Now})
	w.zoho.AddClient(zohoaccounts.Client{ID: clientID, Secret: clientSecret})
	w.secrets = &failing{Secrets: memstore.NewDriver()}
	var err error
	if w.store, err = tokenstore.New(w.secrets, &tokenstore.Options{Now: w.clock.Now}); err != nil {
		t.Fatal(err)
	}
	w.conf = agent.Config{
		Store:  w.store,
		Token:  agentToken,
		Logger: slog.New(slog.NewJSONHandler(w.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Initializer: initializer.Config{
			Environment: initializer.US.Production(),
			HTTPClient:  w.zoho.Client(),
			Now:         w.clock.Now,
		},
	}
	if change != nil {
		change(&w.conf)
	}
	w.start("127.0.0.1:0")
	return w
}

// start serves a new agent at an address until the test ends. The configuration is w.conf.
func (w *world) start(address string) {
	w.t.Helper()
	var err error
	if w.h, err = agent.New(w.conf); err != nil {
		w.t.Fatal(err)
	}
	l, err := agent.Listen(w.t.Context(), address, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.url = "http://" + l.Addr().String()
	transport := &http.Transport{}
	if l.Addr().Network() == "unix" {
		w.url = "http://localhost"
		path := strings.TrimPrefix(address, "unix:")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	w.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	h := w.h
	go func() { done <- agent.Serve(ctx, l, h, nil) }()
	w.t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-done; err != nil && !errors.Is(err, tokenstore.ErrNotPersisted) {
			w.t.Errorf("Serve: %v", err)
		}
	})
}

// do sends a request, checks the response against the OpenAPI document, and returns the status and
// the body of the response.
func (w *world) do(method, path, body string, header map[string]string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(agent.TokenHeader, agentToken)
	for name, value := range header {
		req.Header.Del(name)
		if name == "Host" {
			req.Host = value
		} else if value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
	}
	w.doc.check(w.t, method, path, res, answer)
	return res.StatusCode, string(answer)
}

// An object is a JSON object in a request or response.
type object map[string]any

// post calls an operation, and returns the status and the body of the response.
func (w *world) post(op string, request object) (int, object) {
	w.t.Helper()
	text, err := json.Marshal(request)
	if err != nil {
		w.t.Fatal(err)
	}
	status, body := w.do(http.MethodPost, "/v1/"+op, string(text), nil)
	var o object
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		w.t.Errorf("%s: %v", op, err)
	}
	return status, o
}

// ok calls an operation that must succeed, and returns the record in its response.
func (w *world) ok(op string, request object) object {
	w.t.Helper()
	status, o := w.post(op, request)
	if status != http.StatusOK {
		w.t.Fatalf("%s: status %d: %v", op, status, o)
	}
	record, _ := o["token"].(map[string]any)
	return record
}

// fails calls an operation that must fail with the given status and class, and returns the
// response.
func (w *world) fails(op string, request object, status int, class string) object {
	w.t.Helper()
	got, o := w.post(op, request)
	if got != status || o["class"] != class {
		w.t.Errorf("%s: status %d and class %v, not %d and %s: %v", op, got, o["class"], status, class, o["error"])
	}
	return o
}

// consented returns a refresh token from a new consent of the user.
func (w *world) consented() string {
	refresh, _ := w.zoho.Tokens(w.consent())
	return refresh
}

func (w *world) consent() zohoaccounts.Consent {
	return zohoaccounts.Consent{ClientID: clientID, Email: email, ZGID: "6001"}
}

// saved stores a record of the user with an expired access token, and returns the record.
func (w *world) saved() tokenstore.Token {
	w.t.Helper()
	t, err := w.store.SaveToken(w.t.Context(), tokenstore.Token{
		UserName: userName, ClientID: clientID, ClientSecret: clientSecret,
		RefreshToken: tokenstore.Secret(w.consented()), AccessToken: "1000.expired", ExpiresAt: w.clock.Now().Add(-time.Minute),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// asked checks how many exchanges and refreshes the authorization server received.
func (w *world) asked(exchanges, refreshes int) {
	w.t.Helper()
	if e, r := w.zoho.Count(zohoaccounts.Exchange), w.zoho.Count(zohoaccounts.Refresh); e != exchanges || r != refreshes {
		w.t.Errorf("%d exchanges and %d refreshes, not %d and %d", e, r, exchanges, refreshes)
	}
}

func TestFindKeepsFresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	by := map[string]object{
		"find":       {"user_name": userName, "client_id": clientID},
		"find_by_id": {"id": have.ID},
	}
	for range 3 {
		for op, like := range by {
			got := w.ok(op, like)
			if got["access_token"] == "1000.expired" || !w.zoho.Alive(fmt.Sprint(got["access_token"])) || got["refresh_token"] != string(have.RefreshToken) {
				t.Errorf("%s: the record has another token", op)
			}
		}
	}
	w.asked(0, 1)
	calls := w.secrets.calls()
	w.ok("find", by["find"])
	if n := w.secrets.calls() - calls; n != 0 {
		t.Errorf("a record in memory costs %d calls", n)
	}
	w.clock.Advance(time.Hour - 19*time.Second)
	w.ok("find", by["find"])
	w.asked(0, 2)
}

func TestFindBegins(t *testing.T) {
	t.Parallel()
	for _, with := range []string{"grant_token", "refresh_token"} {
		w := newWorld(t, func(c *agent.Config) { c.Initializer.FindUser = true })
		secret := w.consented()
		if with == "grant_token" {
			secret = w.zoho.Code(w.consent())
		}
		like := object{"client_id": clientID, "client_secret": clientSecret, with: secret}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got := w.ok("find", like); !w.zoho.Alive(fmt.Sprint(got["access_token"])) || got["user_name"] != userName {
					t.Errorf("%s: the record is not the user's, or has no good token", with)
				}
			})
		}
		wg.Wait()
		if w.zoho.Count(zohoaccounts.Exchange, zohoaccounts.Refresh) != 1 {
			t.Errorf("%s: more than one request", with)
		}
		if records, err := w.store.GetTokens(t.Context()); err != nil || len(records) != 1 {
			t.Errorf("%s: %d records: %v", with, len(records), err)
		}
	}
}

func TestFindByIDInMemory(t *testing.T) {
	t.Parallel()
	for _, clients := range [][]string{nil, {clientID}, {clientID, "another"}} {
		w := newWorld(t, func(c *agent.Config) { c.Clients = clients })
		id := w.saved().ID
		w.ok("find", object{"user_name": userName, "client_id": clientID})
		calls := w.secrets.calls()
		w.ok("find_by_id", object{"id": id})
		if n := w.secrets.calls() - calls; n != 0 {
			t.Errorf("for the clients %q it costs %d calls", clients, n)
		}
	}
}

func TestFindAfterConsent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.Initializer.FindUser = true })
	like := func() object {
		return object{"client_id": clientID, "client_secret": clientSecret, "grant_token": w.zoho.Code(w.consent())}
	}
	first := w.ok("find", like())
	by := []object{{"user_name": userName, "client_id": clientID}, {"id": first["id"]}}
	for _, each := range by {
		w.ok("find", each)
	}
	w.zoho.RevokeTokens(clientID, email)
	w.clock.Advance(time.Minute)
	second := w.ok("find", like())
	for _, each := range append(by, second) {
		got := w.ok("find", each)
		if !w.zoho.Alive(fmt.Sprint(got["access_token"])) || got["refresh_token"] != second["refresh_token"] || got["id"] != first["id"] {
			t.Error("the answer is what the user has revoked, and not what the user consented to since")
		}
	}
	w.asked(2, 0)
}

func TestFindByAccessToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.fails("find", object{"access_token": "1000.raw"}, http.StatusNotFound, "not_found")
	saved := w.ok("save", object{"access_token": "1000.raw", "api_domain": "https://www.zohoapis.com"})
	if got := w.ok("find", object{"access_token": "1000.raw"}); !maps.Equal(got, saved) {
		t.Errorf("%v and %v", got, saved)
	}
	w.asked(0, 0)
}

func TestFindByIDExpiring(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	w.ok("find_by_id", object{"id": have.ID})
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault { return &zohoaccounts.Fault{Status: 500} })
	w.clock.Advance(time.Hour - 15*time.Second)
	w.ok("find_by_id", object{"id": have.ID})
	w.clock.Advance(11 * time.Second)
	if o := w.fails("find_by_id", object{"id": have.ID}, http.StatusServiceUnavailable, "unavailable"); o["retry_after"] == nil {
		t.Error("it is not said when to try again")
	}
	w.ok("token", object{"id": have.ID})
}

func TestRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	old := w.ok("find_by_id", object{"id": have.ID})
	w.zoho.Expire(fmt.Sprint(old["access_token"]))
	report := object{"id": have.ID, "access_token": old["access_token"]}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if got := w.ok("rejected", report); !w.zoho.Alive(fmt.Sprint(got["access_token"])) {
				t.Error("the token is no good one")
			}
		})
	}
	wg.Wait()
	w.asked(0, 2)
	now := w.ok("find_by_id", object{"id": have.ID})
	w.fails("rejected", object{"id": have.ID, "access_token": now["access_token"]}, http.StatusServiceUnavailable, "throttled")
	w.fails("rejected", object{"id": have.ID}, http.StatusBadRequest, "invalid")
	w.asked(0, 2)
	w.clock.Advance(2 * time.Minute)
	w.ok("rejected", object{"id": have.ID, "access_token": now["access_token"]})
	w.asked(0, 3)
}

func TestToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	status, got := w.post("token", object{"user_name": userName, "client_id": clientID})
	if status != http.StatusOK || !w.zoho.Alive(fmt.Sprint(got["access_token"])) || got["token_type"] != "Zoho-oauthtoken" || got["id"] != have.ID {
		t.Errorf("status %d", status)
	}
	for _, name := range []string{"refresh_token", "client_secret", "grant_token"} {
		if _, ok := got[name]; ok {
			t.Errorf("the answer has %s", name)
		}
	}
}

// TestAnotherServer checks that an agent works with an OAuth 2.0 server other than Zoho's. Each
// record must have the configured issuer, and /v1/token must return the token type that the
// server states.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	kind := "Bearer"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":"token-of-the-server","token_type":%q,"expires_in":3600,"refresh_token":"refresh-token-two"}`, kind)
	}))
	t.Cleanup(server.Close)
	w := newWorld(t, func(c *agent.Config) {
		c.Initializer.Environment, c.Initializer.HTTPClient = initializer.Environment{}, nil
		c.Initializer.OAuth2 = &oauth2.Config{ClientID: clientID, ClientSecret: clientSecret, Endpoint: oauth2.Endpoint{TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}}
		c.Initializer.Issuer = "https://id.example"
	})
	for user, want := range map[string]string{"ann": "Bearer", "bob": "DPoP"} {
		kind = want
		got := w.ok("find", object{"user_name": user, "client_id": clientID, "refresh_token": "refresh-token-of-" + user})
		if got["issuer"] != "https://id.example" || got["access_token"] != "token-of-the-server" {
			t.Errorf("%s: the issuer is %v", user, got["issuer"])
		}
		if _, fresh := w.post("token", object{"user_name": user, "client_id": clientID}); fresh["token_type"] != want {
			t.Errorf("%s: the type is %v, not %s: %v", user, fresh["token_type"], want, fresh["error"])
		}
	}
}

func TestSaveListDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.ok("save", object{"user_name": "a", "client_id": "c", "refresh_token": "r", "expiry_time": 1767225600000})
	if a["expiry_time"] != "1767225600000" {
		t.Errorf("the time is %v", a["expiry_time"])
	}
	b := w.ok("save", object{"user_name": "b", "client_id": "c", "refresh_token": "q", "access_token": nil})
	status, list := w.post("list", object{})
	if tokens, _ := list["tokens"].([]any); status != http.StatusOK || len(tokens) != 2 {
		t.Errorf("status %d and %d tokens", status, len(tokens))
	}
	for range 2 {
		w.ok("delete", object{"id": a["id"]})
	}
	w.fails("find_by_id", object{"id": a["id"]}, http.StatusNotFound, "not_found")
	w.ok("delete_all", object{})
	w.fails("find_by_id", object{"id": b["id"]}, http.StatusNotFound, "not_found")
	w.fails("find", object{"user_name": "nobody", "client_id": "c"}, http.StatusNotFound, "not_found")
}

func TestRequestsThatAreNotTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for path, bodies := range map[string][]string{
		"/v1/find":       {"", "{", "[]", `{"id":"a","id":"b"}`, `{"id":7}`, `{"name":"a"}`, `{"expiry_time":"soon"}`, "{\"id\":\"\xff\"}", `{"id":"\ud800"}`, `{} {}`, `{}`},
		"/v1/find_by_id": {`{}`, `{"id":"a","user_name":"b"}`},
		"/v1/delete":     {`{}`, `{"user_name":"b"}`},
		"/v1/list":       {`{"id":"a"}`},
		"/v1/delete_all": {`{"id":"a"}`},
		"/v1/token":      {`{"client_id":"a"}`},
	} {
		for _, body := range bodies {
			if status, answer := w.do(http.MethodPost, path, body, nil); status != http.StatusBadRequest || !strings.Contains(answer, `"invalid"`) {
				t.Errorf("%s %s: status %d: %s", path, body, status, answer)
			}
		}
	}
}

func TestWhatIsSavedOrDeletedIsReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	w.ok("find_by_id", object{"id": have.ID})
	w.ok("save", object{"id": have.ID, "access_token": "1000.other", "expiry_time": fmt.Sprint(w.clock.Now().Add(time.Hour).UnixMilli())})
	if got := w.ok("find_by_id", object{"id": have.ID}); got["access_token"] != "1000.other" {
		t.Error("the record in memory is found")
	}
	w.ok("delete", object{"id": have.ID})
	w.fails("find_by_id", object{"id": have.ID}, http.StatusNotFound, "not_found")
}

func TestWhatOthersDeletedIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	w.ok("find_by_id", object{"id": have.ID})
	if err := w.store.DeleteToken(t.Context(), have.ID); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(6 * time.Minute)
	w.fails("find_by_id", object{"id": have.ID}, http.StatusNotFound, "not_found")
}

func TestStoreDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	w.ok("find_by_id", object{"id": have.ID})
	w.secrets.fail(driver.ErrUnavailable, driver.ErrUnavailable)
	w.clock.Advance(6 * time.Minute)
	w.ok("find_by_id", object{"id": have.ID})
	w.fails("find", object{"user_name": "b", "client_id": clientID}, http.StatusServiceUnavailable, "unavailable")
	if status, _ := w.do(http.MethodGet, "/readyz", "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("it is ready: %d", status)
	}
	w.clock.Advance(time.Hour)
	w.fails("find_by_id", object{"id": have.ID}, http.StatusServiceUnavailable, "unavailable")
	w.asked(0, 1)
	w.secrets.fail(nil, nil)
	w.ok("find_by_id", object{"id": have.ID})
	if status, _ := w.do(http.MethodGet, "/readyz", "", nil); status != http.StatusOK {
		t.Errorf("it is not ready: %d", status)
	}
}

func TestFindRefusedClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	like := object{"client_id": clientID, "client_secret": "another", "refresh_token": w.consented()}
	for range 5 {
		w.fails("find", like, http.StatusBadGateway, "client")
	}
	w.asked(0, 1)
	w.clock.Advance(1100 * time.Millisecond)
	for range 5 {
		w.fails("find", like, http.StatusBadGateway, "client")
	}
	w.asked(0, 2)
	like["client_secret"] = clientSecret
	w.ok("find", like)
	w.asked(0, 3)
}

func TestFindByIDRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	w.zoho.RevokeTokens(clientID, email)
	for range 3 {
		if o := w.fails("find_by_id", object{"id": have.ID}, http.StatusConflict, "reauth_required"); o["code"] != "invalid_code" {
			t.Errorf("the code is %v", o["code"])
		}
	}
	w.asked(0, 1)
}

func TestFindByIDNotPersisted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.MaxClients = 2 })
	id, token := w.notPersisted()
	// Requests for other records do not evict an unsaved token.
	for i := range 5 {
		w.fails("find_by_id", object{"id": fmt.Sprint("nobody", i)}, http.StatusNotFound, "not_found")
	}
	w.endFailure()
	if err := w.h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	w.stores(id, token)
	w.asked(0, 1)
}

// notPersisted finds a record whose new access token the store refuses to store. It returns the
// ID of the record and the token.
func (w *world) notPersisted() (id, token string) {
	w.t.Helper()
	have := w.saved()
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Refresh {
			w.secrets.fail(nil, driver.ErrDenied)
		}
		return nil
	})
	_, got := w.post("find_by_id", object{"id": have.ID})
	record, _ := got["token"].(map[string]any)
	token = fmt.Sprint(record["access_token"])
	if got["not_persisted"] != true || !w.zoho.Alive(token) {
		w.t.Fatalf("the token is not there, or not marked: %v", got["error"])
	}
	return have.ID, token
}

// endFailure ends the failure of the store, and advances the clock so that a Client tries again to
// store its token.
func (w *world) endFailure() {
	w.zoho.Inject(nil)
	w.secrets.fail(nil, nil)
	w.clock.Advance(2 * time.Second)
}

// stores checks that the record with the ID has the access token.
func (w *world) stores(id, token string) {
	w.t.Helper()
	now, err := w.store.FindTokenByID(w.t.Context(), id)
	if err != nil || string(now.AccessToken) != token {
		w.t.Errorf("the token is not stored: %v", err)
	}
}

// A brokenListener is a listener whose Accept fails.
type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, errors.New("the listener fails") }

// TestServeStoresTokensAfterFailure checks that Serve stores an unsaved token after the listener
// fails.
func TestServeStoresTokensAfterFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id, token := w.notPersisted()
	w.endFailure()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Serve(t.Context(), brokenListener{l}, w.h, nil); err == nil || !strings.Contains(err.Error(), "the listener fails") {
		t.Errorf("Serve: %v", err)
	}
	w.stores(id, token)
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.MaxClients = 3 })
	var ids []string
	for i := range 5 {
		saved := w.ok("save", object{"user_name": fmt.Sprint("u", i), "client_id": "c", "access_token": fmt.Sprint("a", i)})
		ids = append(ids, fmt.Sprint(saved["id"]))
		w.ok("find_by_id", object{"id": saved["id"]})
		w.ok("find", object{"user_name": fmt.Sprint("u", i), "client_id": "c"})
	}
	for _, i := range []int{4, 3, 2, 1, 0} {
		calls := w.secrets.calls()
		w.ok("find_by_id", object{"id": ids[i]})
		if read := w.secrets.calls() > calls; read != (i < 2) {
			t.Errorf("record %d was read from the store: %t", i, read)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*agent.Config)
		no     []string
	}{
		"read-only":    {func(c *agent.Config) { c.ReadOnly = true }, []string{"save", "delete", "delete_all"}},
		"no list":      {func(c *agent.Config) { c.NoList = true }, []string{"list"}},
		"no delete":    {func(c *agent.Config) { c.NoDelete = true }, []string{"delete", "delete_all"}},
		"pass through": {func(c *agent.Config) { c.PassThrough = true }, []string{"rejected"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.change)
			for op, request := range map[string]object{
				"save": {"user_name": "a", "client_id": "c", "access_token": "x"}, "delete": {"id": "a"},
				"delete_all": {}, "list": {}, "rejected": {"user_name": "a", "client_id": "c", "access_token": "x"},
			} {
				status, o := w.post(op, request)
				if got := status == http.StatusForbidden && o["class"] == "forbidden"; got != slices.Contains(c.no, op) {
					t.Errorf("%s: status %d and class %v", op, status, o["class"])
				}
			}
		})
	}
}

func TestReadOnlyKeepsFreshAndBeginsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.ReadOnly = true })
	have := w.saved()
	w.ok("find_by_id", object{"id": have.ID})
	w.asked(0, 1)
	w.fails("find", object{"client_id": clientID, "client_secret": clientSecret, "refresh_token": w.consented()}, http.StatusNotFound, "not_found")
	w.asked(0, 1)
}

func TestPassThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.PassThrough, c.Initializer = true, initializer.Config{Now: c.Initializer.Now} })
	have := w.saved()
	if got := w.ok("find_by_id", object{"id": have.ID}); got["access_token"] != "1000.expired" {
		t.Error("the token is another")
	}
	w.fails("token", object{"id": have.ID}, http.StatusConflict, "refused")
	w.asked(0, 0)
}

func TestOnlyTheClientsThatAreServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.Clients = []string{clientID} })
	mine := w.saved()
	other, err := w.store.SaveToken(t.Context(), tokenstore.Token{UserName: userName, ClientID: "other", AccessToken: "1000.other", RefreshToken: "r"})
	if err != nil {
		t.Fatal(err)
	}
	w.ok("find_by_id", object{"id": mine.ID})
	w.ok("find", object{"user_name": userName})
	w.ok("save", object{"id": mine.ID, "api_domain": "https://www.zohoapis.com"})
	w.ok("delete", object{"id": other.ID})
	w.fails("find_by_id", object{"id": other.ID}, http.StatusNotFound, "not_found")
	w.fails("find", object{"access_token": "1000.other"}, http.StatusNotFound, "not_found")
	w.fails("find", object{"user_name": userName, "client_id": "other"}, http.StatusForbidden, "forbidden")
	w.fails("token", object{"user_name": userName, "client_id": "other"}, http.StatusForbidden, "forbidden")
	w.fails("save", object{"id": other.ID, "access_token": "x"}, http.StatusNotFound, "not_found")
	w.fails("save", object{"user_name": "b", "access_token": "x"}, http.StatusForbidden, "forbidden")
	_, list := w.post("list", object{})
	if tokens, _ := list["tokens"].([]any); len(tokens) != 1 {
		t.Errorf("%d records are listed", len(tokens))
	}
	w.ok("delete_all", object{})
	if left, err := w.store.GetTokens(t.Context()); err != nil || len(left) != 1 || left[0].ID != other.ID {
		t.Errorf("%d records are left: %v", len(left), err)
	}
}

func TestConfigThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	store := memstore.New(nil)
	zoho := initializer.Config{Environment: initializer.US.Production()}
	for name, c := range map[string]agent.Config{
		"no store":     {Initializer: zoho},
		"no server":    {Store: store},
		"short token":  {Store: store, Initializer: zoho, Token: "123456789012345678901"},
		"empty client": {Store: store, Initializer: zoho, Clients: []string{""}},
		"negative":     {Store: store, Initializer: zoho, MaxClients: -1},
	} {
		if _, err := agent.New(c); err == nil {
			t.Errorf("%s: there is an agent", name)
		}
	}
	h, err := agent.New(agent.Config{Store: store, Initializer: zoho})
	if err != nil {
		t.Fatal(err)
	}
	l, err := agent.Listen(t.Context(), "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Serve(t.Context(), l, h, nil); err == nil {
		t.Error("a TCP socket is served without a token")
	}
	for _, address := range []string{"", "127.0.0.1", "0.0.0.0:0", "192.0.2.1:0", ":0", "unix:", "unix:" + filepath.Join(t.TempDir(), "no", "s")} {
		if _, err := agent.Listen(t.Context(), address, nil); err == nil {
			t.Errorf("%q is listened on", address)
		}
	}
}
