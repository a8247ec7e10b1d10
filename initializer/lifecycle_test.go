package initializer_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// testdata/lifecycle-trace.txt records every store call and every HTTP request of the class
// OAuthToken in Zoho's Python SDK, flow by flow. TestRecordedFlows checks that the same flows
// make the same calls with this package. The table of flows lists the intended differences,
// each with the heading in docs/zoho-differences.md that explains the difference.
const (
	traceFile       = "testdata/lifecycle-trace.txt"
	differencesFile = "../docs/zoho-differences.md"
)

// A flow is one section of the trace, with a function that performs the same flow with this
// package.
type flow struct {
	section string
	run     func(w *world, c *callStore)

	// store and http hold the expected calls. A nil list stands for the recorded calls, and the
	// list none means that no calls are expected. The field why holds the heading that explains the
	// difference.
	store []string
	http  []string
	why   string
}

var none = []string{"-"}

func flows() []flow {
	const (
		storedFirst = "A one-time code or refresh token is stored before it is used"
		noRead      = "No store call while the token is fresh"
		oneRefresh  = "One refresh for all processes"
		revokes     = "Revoke works"
	)
	known := func(expired bool, like func(tokenstore.Token) tokenstore.Token) func(*world, *callStore) {
		return func(w *world, c *callStore) {
			old := w.saved(expired)
			w.opens(c, like(old))
		}
	}
	byID := func(t tokenstore.Token) tokenstore.Token { return tokenstore.Token{ID: t.ID} }
	refused := func(body string) func(*world, *callStore) {
		return func(w *world, c *callStore) {
			w.answers(ok(body))
			w.fails(c, byID(w.saved(true)))
		}
	}
	return []flow{
		{
			section: "grant flow, first",
			run:     func(w *world, c *callStore) { w.opens(c, byCode(w.zoho.Code(consent()))) },
			store:   []string{"find_token(cid,grant,redir,sec)", "save_token(cid,grant,redir,sec)", "refresh(id)", "save_token(id,user)"},
			why:     storedFirst,
		},
		{
			section: "1 API call later (authenticate)",
			run: func(w *world, c *callStore) {
				client := w.opens(c, byID(w.saved(false)))
				c.reset()
				w.token(client)
			},
			store: none,
			why:   noRead,
		},
		{
			section: "grant flow again in a new process with same code",
			run: func(w *world, c *callStore) {
				code := w.zoho.Code(consent())
				w.open(byCode(code))
				w.forget()
				w.opens(c, byCode(code))
			},
		},
		{
			section: "refresh flow, same refresh token, no client redirect",
			run: known(false, func(t tokenstore.Token) tokenstore.Token {
				return byRefresh(string(t.RefreshToken))
			}),
		},
		{
			section: "refresh flow, unknown refresh token, find_user on (same user!)",
			run: func(w *world, c *callStore) {
				w.saved(false)
				refresh, _ := w.zoho.Tokens(consent())
				w.opens(c, byRefresh(refresh))
			},
			store: []string{"find_token(cid,refresh,sec)", "save_token(cid,refresh,sec)", "refresh(id)", "save_token(id,user)"},
			why:   storedFirst,
		},
		{
			section: "refresh flow, unknown refresh token, find_user=False",
			run: func(w *world, c *callStore) {
				refresh, _ := w.zoho.Tokens(consent())
				conf := w.config(byRefresh(refresh))
				conf.Store, conf.FindUser = c, false
				w.start(conf)
			},
			store: []string{"find_token(cid,refresh,sec)", "save_token(cid,refresh,sec)", "refresh(id)"},
			why:   storedFirst,
		},
		{
			section: "access flow",
			run: func(w *world, c *callStore) {
				w.saved(false)
				_, access := w.zoho.Tokens(consent())
				w.opens(c, tokenstore.Token{AccessToken: tokenstore.Secret(access)})
			},
		},
		{
			section: "access flow again",
			run: known(false, func(t tokenstore.Token) tokenstore.Token {
				return tokenstore.Token{AccessToken: t.AccessToken}
			}),
		},
		{section: "id flow (1)", run: known(false, byID)},
		{section: "id flow (missing 99)", run: func(w *world, c *callStore) { w.fails(c, tokenstore.Token{ID: "99"}) }},
		{
			section: "user signature only",
			run:     known(false, func(tokenstore.Token) tokenstore.Token { return tokenstore.Token{UserName: user} }),
		},
		{section: "user signature unknown only", run: func(w *world, c *callStore) { w.fails(c, tokenstore.Token{UserName: "nobody"}) }},
		{
			section: "expired (within 5s) via id flow",
			run:     known(true, byID),
			store:   []string{"find_token_by_id(id)", "refresh(id)"},
			why:     oneRefresh,
		},
		{
			section: "expired, refresh answers invalid_code",
			run:     refused(`{"error":"invalid_code"}`),
			store:   []string{"find_token_by_id(id)", "refresh(id)"},
			why:     oneRefresh,
		},
		{
			section: "expired, refresh answers Access Denied",
			run:     refused(`{"error":"Access Denied"}`),
			store:   []string{"find_token_by_id(id)", "refresh(id)"},
			why:     oneRefresh,
		},
		{
			section: "grant flow with a store whose save fails",
			run: func(w *world, c *callStore) {
				w.outages.set(false, true)
				like := byCode(w.zoho.Code(consent()))
				like.RedirectURL = ""
				w.fails(c, like)
			},
			store: []string{"find_token(cid,grant,sec)", "save_token(cid,grant,sec)"},
			http:  none,
			why:   storedFirst,
		},
		{
			section: "remove()",
			run: func(w *world, c *callStore) {
				for _, id := range []string{w.saved(false).ID, "77"} {
					if err := c.DeleteToken(w.t.Context(), id); err != nil {
						w.t.Errorf("delete %q: %v", id, err)
					}
				}
			},
		},
		{
			section: "revoke()",
			run: func(w *world, c *callStore) {
				client := w.opens(c, byID(w.saved(false)))
				c.reset()
				if err := client.Revoke(w.t.Context()); err != nil {
					w.t.Error(err)
				}
			},
			store: []string{"find_token_by_id(id)", "delete_token(id)"},
			http:  []string{"POST /oauth/v2/token/revoke token"},
			why:   revokes,
		},
	}
}

func TestRecordedFlows(t *testing.T) {
	t.Parallel()
	recorded := readTrace(t)
	text, err := os.ReadFile(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows() {
		trace, ok := recorded[f.section]
		if !ok {
			t.Errorf("%q was not recorded", f.section)
			continue
		}
		delete(recorded, f.section)
		t.Run(f.section, func(t *testing.T) {
			w := newWorld(t, nil)
			c := &callStore{inner: w.store}
			f.run(w, c)
			same := compare(t, "store calls", trace.store, f.store, c.list())
			same = compare(t, "HTTP requests", trace.http, f.http, w.httpCalls()) && same
			heading := regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(f.why) + `$`)
			switch {
			case same && f.why != "":
				t.Errorf("%q is listed as a difference, and there is none", f.why)
			case !same && f.why == "":
				t.Error("it differs from the recorded flow, without a reason")
			case !same && !heading.Match(text):
				t.Errorf("%s has no section %q", differencesFile, f.why)
			}
		})
	}
	for section := range recorded {
		t.Errorf("the recorded flow %q is not run", section)
	}
}

// compare checks that the calls in got equal the calls in want, or the recorded calls if want is
// nil. It reports whether the expected calls equal the recorded calls.
func compare(t *testing.T, what string, recorded, want, got []string) (same bool) {
	t.Helper()
	if want == nil {
		want = recorded
	}
	if slices.Equal(want, none) {
		want = nil
	}
	if !slices.Equal(got, want) {
		t.Errorf("the %s are\n\t%s\nand should be\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	return slices.Equal(want, recorded)
}

// A section holds the recorded calls of one flow.
type section struct{ store, http []string }

var (
	storeCall = regexp.MustCompile(`^\s*store\.(\w+)\((.*)\)$`)
	httpCall  = regexp.MustCompile(`^\s*HTTP (\w+) (\S+) \{(.*)\} UA=\S+ Auth=(\S+)`)
	title     = regexp.MustCompile(`^(?:== |  -- )(.*?):?$|^(remove\(\)|revoke\(\)):$`)
	formKey   = regexp.MustCompile(`'(\w+)': `)
)

func readTrace(t *testing.T) map[string]section {
	t.Helper()
	text, err := os.ReadFile(traceFile)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]section{}
	name := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		s := all[name]
		if m := title.FindStringSubmatch(line); m != nil {
			name = m[1] + m[2]
			s = all[name]
		} else if m := storeCall.FindStringSubmatch(line); m != nil {
			s.store = append(s.store, m[1]+"("+fieldsOf(m[2])+")")
		} else if m := httpCall.FindStringSubmatch(line); m != nil {
			s.http = append(s.http, request(m[1], m[2], keys(m[3]), m[4]))
		}
		if name != "" {
			all[name] = s
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d flows were read", len(all))
	}
	return all
}

// fieldsOf returns the names of the fields in the argument of a store call: an ID in quotes, or
// a list in braces. A value can contain commas but no equals sign.
func fieldsOf(argument string) string {
	if strings.HasPrefix(argument, "'") {
		return "id"
	}
	var fields []string
	for part := range strings.SplitSeq(strings.Trim(argument, "{}"), ", ") {
		if name, _, ok := strings.Cut(part, "="); ok {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return strings.Join(fields, ",")
}

func keys(form string) string {
	var list []string
	for _, m := range formKey.FindAllStringSubmatch(form, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

func request(method, target, form, auth string) string {
	if auth == "None" {
		auth = ""
	}
	return strings.Join(strings.Fields(fmt.Sprint(method, " ", target, " ", form, " ", auth)), " ")
}

// httpCalls returns the requests since the last call of forget, in the format of the trace.
func (w *world) httpCalls() []string {
	var list []string
	for _, r := range w.zoho.Requests() {
		target := r.Path
		if len(r.Query) > 0 {
			target += "?" + r.Query.Encode()
		}
		var form []string
		for key := range r.Form {
			form = append(form, key)
		}
		slices.Sort(form)
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		list = append(list, request(r.Method, target, strings.Join(form, ","), scheme))
	}
	return list[min(w.forgotten, len(list)):]
}

// opens returns a new Client with the store c.
func (w *world) opens(c *callStore, like tokenstore.Token) *initializer.Client {
	w.t.Helper()
	client, err := initializer.New(w.t.Context(), w.on(c, like))
	if err != nil {
		w.t.Fatal(err)
	}
	return client
}

// fails checks that New fails with the store c.
func (w *world) fails(c *callStore, like tokenstore.Token) {
	w.t.Helper()
	if _, err := initializer.New(w.t.Context(), w.on(c, like)); err == nil {
		w.t.Error("New did not fail")
	}
}

func (w *world) on(c *callStore, like tokenstore.Token) initializer.Config {
	conf := w.config(like)
	conf.Store = c
	return conf
}

// A callStore is a store that records its calls.
type callStore struct {
	inner *tokenstore.Store
	mu    sync.Mutex
	calls []string
}

func (c *callStore) called(method string, t tokenstore.Token) {
	set := map[string]bool{
		"id": t.ID != "", "user": t.UserName != "", "cid": t.ClientID != "", "sec": t.ClientSecret != "",
		"refresh": t.RefreshToken != "", "access": t.AccessToken != "", "grant": t.GrantToken != "",
		"exp": !t.ExpiresAt.IsZero(), "redir": t.RedirectURL != "", "dom": t.APIDomain != "",
	}
	var fields []string
	for name, has := range set {
		if has {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, method+"("+strings.Join(fields, ",")+")")
}

func (c *callStore) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

func (c *callStore) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

func (c *callStore) FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error) {
	c.called("find_token", like)
	return c.inner.FindToken(ctx, like)
}

func (c *callStore) FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error) {
	c.called("find_token_by_id", tokenstore.Token{ID: id})
	return c.inner.FindTokenByID(ctx, id)
}

func (c *callStore) SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	c.called("save_token", t)
	return c.inner.SaveToken(ctx, t)
}

func (c *callStore) DeleteToken(ctx context.Context, id string) error {
	c.called("delete_token", tokenstore.Token{ID: id})
	return c.inner.DeleteToken(ctx, id)
}

func (c *callStore) GetTokens(ctx context.Context) ([]tokenstore.Token, error) {
	c.called("get_tokens", tokenstore.Token{})
	return c.inner.GetTokens(ctx)
}

func (c *callStore) DeleteTokens(ctx context.Context) error {
	c.called("delete_tokens", tokenstore.Token{})
	return c.inner.DeleteTokens(ctx)
}

func (c *callStore) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	c.called("refresh", tokenstore.Token{ID: id})
	return c.inner.Refresh(ctx, id, stale, mint)
}

// TestTokenConcurrentRefresh checks that 20 goroutines that find the same token expired send
// one request. With the SDK, 20 threads send 20 requests, and each API call reads the store.
func TestTokenConcurrentRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := &callStore{inner: w.store}
	client := w.opens(c, tokenstore.Token{ID: w.saved(false).ID})
	w.clock.Advance(2 * time.Hour)
	c.reset()
	if _, err := together(20, func(int) (tokenstore.Token, error) { return client.Token(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	w.asked(0, 1)
	for range 20 {
		w.token(client)
	}
	if calls := c.list(); !slices.Equal(calls, []string{"refresh(id)"}) {
		t.Errorf("the store calls are %v", calls)
	}
}
