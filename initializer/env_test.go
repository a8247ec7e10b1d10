package initializer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// leaseTTL is the LeaseTTL of the stores that world.handle returns.
const leaseTTL = 6 * time.Second

const (
	clientID = "1000.CID"
	secret   = "canary-client-secret"
	redirect = "https://app/cb"
	user     = "abc.a@zoho.com:60012345"
)

func consent() zohoaccounts.Consent {
	return zohoaccounts.Consent{ClientID: clientID, Email: "abc.a@zoho.com", ZGID: "60012345"}
}

// A clock is shared by all parts of a test. Its time changes only in Advance, unless base returns
// the time of a synctest bubble.
type clock struct {
	mu     sync.Mutex
	base   func() time.Time
	offset time.Duration
}

func newClock() *clock {
	return &clock{base: func() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base().Add(c.offset)
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// A world is an accounts server, a store, and a clock for both.
type world struct {
	t       *testing.T
	clock   *clock
	zoho    *zohoaccounts.Server
	driver  *memstore.Driver
	store   *tokenstore.Store
	logs    *logs
	outages *outages

	forgotten int // number of earlier requests that httpCalls omits
}

func newWorld(t *testing.T, opts *zohoaccounts.Options) *world {
	t.Helper()
	w := &world{t: t, clock: newClock(), driver: memstore.NewDriver(), logs: &logs{}, outages: &outages{}}
	var o zohoaccounts.Options
	if opts != nil {
		o = *opts
	}
	o.Now = w.clock.Now
	w.zoho = zohoaccounts.New(&o)
	w.zoho.AddClient(zohoaccounts.Client{ID: clientID, Secret: secret})
	w.store = w.handle()
	t.Cleanup(w.checkSecrecy)
	return w
}

// handle returns a new store on the same records, as in another process.
func (w *world) handle() *tokenstore.Store {
	w.t.Helper()
	s, err := tokenstore.New(w.outages.on(w.driver.Reopen()), &tokenstore.Options{Now: w.clock.Now, Attempts: 9, LeaseTTL: leaseTTL})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) config(t tokenstore.Token) initializer.Config {
	return initializer.Config{
		Environment: initializer.US.Production(),
		Token:       t,
		Store:       w.store,
		HTTPClient:  w.zoho.Client(),
		FindUser:    true,
		Logger:      w.logs.logger(),
		Now:         w.clock.Now,
	}
}

func (w *world) open(t tokenstore.Token) *initializer.Client {
	w.t.Helper()
	return w.start(w.config(t))
}

func (w *world) start(c initializer.Config) *initializer.Client {
	w.t.Helper()
	client, err := initializer.New(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return client
}

// openError checks that New fails with an error of the given class, and returns the error.
func (w *world) openError(c initializer.Config, class error) error {
	w.t.Helper()
	client, err := initializer.New(w.t.Context(), c)
	if client != nil {
		w.t.Errorf("New returned a Client and the error %v", err)
	}
	w.wants(err, class)
	return err
}

func (w *world) wants(err, class error) {
	w.t.Helper()
	if !errors.Is(err, class) {
		w.t.Fatalf("the error is\n\t%v\nand should match\n\t%v", err, class)
	}
	w.clean("an error", err.Error())
}

// token returns the token of the client, and fails the test if the token is not valid.
func (w *world) token(c *initializer.Client) tokenstore.Token {
	w.t.Helper()
	t, err := c.Token(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if !w.zoho.Alive(string(t.AccessToken)) {
		w.t.Fatal("the access token is not good")
	}
	return t
}

func (w *world) records() []tokenstore.Token {
	w.t.Helper()
	tokens, err := w.handle().GetTokens(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return tokens
}

// forget makes httpCalls omit the requests so far.
func (w *world) forget() { w.forgotten = len(w.zoho.Requests()) }

// record returns the only stored record, and fails the test unless there is exactly one record.
func (w *world) record() tokenstore.Token {
	w.t.Helper()
	all := w.records()
	if len(all) != 1 {
		w.t.Fatalf("there are %d records: %+v", len(all), all)
	}
	return all[0]
}

// asked checks the number of all exchanges and refreshes so far.
func (w *world) asked(exchanges, refreshes int) {
	w.t.Helper()
	if e, r := w.zoho.Count(zohoaccounts.Exchange), w.zoho.Count(zohoaccounts.Refresh); e != exchanges || r != refreshes {
		w.t.Errorf("there were %d exchanges and %d refreshes, not %d and %d", e, r, exchanges, refreshes)
	}
}

// saved stores a record with a valid refresh token and an access token. If expired is set, the
// access token has expired.
func (w *world) saved(expired bool) tokenstore.Token {
	w.t.Helper()
	refresh, access := w.zoho.Tokens(consent())
	t := tokenstore.Token{
		UserName: user, ClientID: clientID, ClientSecret: secret,
		RefreshToken: tokenstore.Secret(refresh), AccessToken: tokenstore.Secret(access),
		ExpiresAt: w.clock.Now().Add(time.Hour),
	}
	if expired {
		t.ExpiresAt = w.clock.Now().Add(-time.Second)
		w.zoho.Expire(access)
	}
	stored, err := w.handle().SaveToken(context.Background(), t)
	if err != nil {
		w.t.Fatal(err)
	}
	return stored
}

// clean checks that text contains no secret of the requests so far, no client secret, and no other
// secret with the text "canary".
func (w *world) clean(what, text string) {
	w.t.Helper()
	for _, c := range w.secrets() {
		if strings.Contains(text, c) {
			w.t.Errorf("%s holds a secret: %s", what, text)
			return
		}
	}
}

func (w *world) secrets() []string {
	all := []string{secret, "canary"}
	for _, r := range w.zoho.Requests() {
		for _, key := range []string{"code", "refresh_token", "token"} {
			if v := r.Form.Get(key); v != "" {
				all = append(all, v)
			}
		}
		if _, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
			all = append(all, token)
		}
	}
	return all
}

func (w *world) checkSecrecy() {
	w.clean("a log record", w.logs.String())
	if text := w.logs.String(); strings.Contains(text, "abc.a@zoho.com") {
		w.t.Errorf("a log record holds a user name: %s", text)
	}
}

func byUser() tokenstore.Token { return tokenstore.Token{UserName: user, ClientID: clientID} }

func byCode(code string) tokenstore.Token {
	return tokenstore.Token{ClientID: clientID, ClientSecret: secret, GrantToken: tokenstore.Secret(code), RedirectURL: redirect}
}

func byRefresh(token string) tokenstore.Token {
	return tokenstore.Token{ClientID: clientID, ClientSecret: secret, RefreshToken: tokenstore.Secret(token)}
}

// answers makes the token endpoint respond with f.
func (w *world) answers(f *zohoaccounts.Fault) {
	w.zoho.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if r.Kind == zohoaccounts.Exchange || r.Kind == zohoaccounts.Refresh {
			return f
		}
		return nil
	})
}

func ok(body string) *zohoaccounts.Fault {
	return &zohoaccounts.Fault{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

func status(code int, body string) *zohoaccounts.Fault {
	return &zohoaccounts.Fault{Status: code, Header: http.Header{"Content-Type": {"text/html"}}, Body: body}
}

func describe(t tokenstore.Token) string {
	return fmt.Sprintf("user %q, client %q, access %q, refresh %q, grant %q, expires %v, domain %q",
		t.UserName, t.ClientID, string(t.AccessToken), string(t.RefreshToken), string(t.GrantToken), t.ExpiresAt, t.APIDomain)
}
