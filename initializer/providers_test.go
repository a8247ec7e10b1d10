package initializer_test

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/authservers"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/oauth2keep"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// An authority is an authorization server and its API.
type authority interface {
	http.RoundTripper
	Alive(access string) bool
	Expire(access string)
	Code() string
	count() (exchanges, refreshes int)

	// interrupt calls f before each exchange and refresh. If f returns true, the server
	// executes the request, but the response is lost.
	interrupt(f func() bool)

	configure(c *initializer.Config)
}

// A provider is a policy, and a function that returns a server with that policy.
type provider struct {
	authservers.Policy
	server func(p authservers.Policy, now func() time.Time) authority
}

func providers() []provider {
	list := []provider{
		{authservers.Policy{Name: "zohoaccounts"}, zoho(false)},
		{authservers.Policy{Name: "zohoaccounts, strict", Rotates: true, Revokes: true, RevokesCode: true}, zoho(true)},
	}
	for _, p := range authservers.Policies() {
		list = append(list, provider{p, func(p authservers.Policy, now func() time.Time) authority {
			return simulated{authservers.New(p, clientID, secret, now)}
		}})
	}
	for i := range list {
		if list[i].AccessLife == 0 {
			list[i].AccessLife = time.Hour
		}
	}
	return list
}

type simulated struct{ *authservers.Server }

func (s simulated) count() (exchanges, refreshes int) {
	n := s.CountBy(func(r authservers.Request) string { return string(r.Kind) })
	return n[string(authservers.Exchange)], n[string(authservers.Refresh)]
}

func (s simulated) interrupt(f func() bool) {
	s.Inject(func(r *authservers.Request) *authservers.Fault {
		if (r.Kind == authservers.Exchange || r.Kind == authservers.Refresh) && f() {
			return &authservers.Fault{}
		}
		return nil
	})
}

func (simulated) configure(c *initializer.Config) {
	c.OAuth2 = &oauth2.Config{
		ClientID: clientID, ClientSecret: secret,
		Endpoint: oauth2.Endpoint{TokenURL: authservers.TokenURL, AuthStyle: oauth2.AuthStyleInHeader},
	}
	c.RevokeURL = authservers.RevokeURL
}

type zohoServer struct {
	*zohoaccounts.Server
	strict bool
}

func zoho(strict bool) func(authservers.Policy, func() time.Time) authority {
	return func(_ authservers.Policy, now func() time.Time) authority {
		s := zohoaccounts.New(&zohoaccounts.Options{Now: now, Strict: strict})
		s.AddClient(zohoaccounts.Client{ID: clientID, Secret: secret})
		return zohoServer{s, strict}
	}
}

func (z zohoServer) Code() string { return z.Server.Code(consent()) }

func (z zohoServer) count() (exchanges, refreshes int) {
	return z.Count(zohoaccounts.Exchange), z.Count(zohoaccounts.Refresh)
}

func (z zohoServer) interrupt(f func() bool) {
	z.Inject(func(r zohoaccounts.Request) *zohoaccounts.Fault {
		if (r.Kind == zohoaccounts.Exchange || r.Kind == zohoaccounts.Refresh) && f() {
			return &zohoaccounts.Fault{Drop: true, Applied: true}
		}
		return nil
	})
}

func (z zohoServer) configure(c *initializer.Config) {
	simulated{}.configure(c)
	c.OAuth2.Endpoint.TokenURL = "https://accounts.zoho.com/oauth/v2/token"
	c.RevokeURL = c.OAuth2.Endpoint.TokenURL + "/revoke"
	if !z.strict {
		c.OAuth2, c.RevokeURL, c.Environment = nil, "", initializer.US.Production()
		c.Token.ClientID, c.Token.ClientSecret = clientID, secret
	}
}

// apiURL is the URL of the API at both kinds of servers.
const apiURL = "https://www.zohoapis.com/crm/v8/Leads"

// errRejected means that the caller received status 401 from the API.
var errRejected = errors.New("the API rejects the token")

// A stage is a provider, the records of an application, and a clock for both.
type stage struct {
	t *testing.T
	authservers.Policy
	authority
	keeps    bool // the programs use package oauth2keep
	clock    *clock
	driver   *memstore.Driver
	logs     *logs
	leaseTTL time.Duration
}

func newStage(t *testing.T, p provider) *stage {
	s := &stage{t: t, Policy: p.Policy, clock: &clock{base: time.Now}, driver: memstore.NewDriver(), logs: &logs{}, leaseTTL: 6 * time.Second}
	s.authority = p.server(p.Policy, s.clock.Now)
	t.Cleanup(func() { s.clean(s.logs.String()) })
	return s
}

var issued = regexp.MustCompile(`(access|refresh|code)-[A-Z2-7]{26}|1000\.[a-z2-7]{26}`)

func (s *stage) clean(text string) {
	s.t.Helper()
	if issued.MatchString(text) || strings.Contains(text, secret) {
		s.t.Errorf("a text holds a secret: %s", text)
	}
}

// store returns a new store on the same records, as in another process.
func (s *stage) store(o *outages) *tokenstore.Store {
	s.t.Helper()
	store, err := tokenstore.New(o.on(s.driver.Reopen()), &tokenstore.Options{Now: s.clock.Now, Attempts: 9, LeaseTTL: s.leaseTTL})
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

// A client is an initializer.Client or a keeper.
type client interface {
	HTTPClient(ctx context.Context) *http.Client
	Token(ctx context.Context) (tokenstore.Token, error)
	Revoke(ctx context.Context) error
}

// process returns a new client, as in another process.
func (s *stage) process(o *outages, like tokenstore.Token) (client, error) {
	like.UserName = user
	c := initializer.Config{
		Token: like, Store: s.store(o), Logger: s.logs.logger(), Now: s.clock.Now,
		HTTPClient: &http.Client{Transport: s.authority},
	}
	s.configure(&c)
	if s.keeps {
		return startKeeper(s.t.Context(), c)
	}
	return initializer.New(s.t.Context(), c)
}

// A keeper implements client with package oauth2keep.
type keeper struct {
	*oauth2keep.Keeper
	conf  *oauth2.Config
	store tokenstore.TokenStore
	ts    oauth2.TokenSource
	http  *http.Client
}

// startKeeper returns a keeper with the configuration c. If c has a code, startKeeper exchanges the
// code, and uses the kept token if the code is refused.
func startKeeper(ctx context.Context, c initializer.Config) (client, error) {
	k := &keeper{Keeper: oauth2keep.New(c.Store, oauth2keep.As{User: c.Token.UserName}).With(c), conf: c.OAuth2, store: c.Store}
	var tok *oauth2.Token
	var refused error
	if code := string(c.Token.GrantToken); code != "" {
		tok, refused = k.Exchange(ctx, k.conf, code)
		if refused != nil && !errors.Is(refused, oauth2keep.ErrReauthRequired) {
			return nil, refused
		}
	}
	err := k.open(ctx, tok)
	if err != nil {
		return nil, errors.Join(refused, err)
	}
	return k, nil
}

func (k *keeper) open(ctx context.Context, tok *oauth2.Token) (err error) {
	if k.ts, err = k.TokenSource(ctx, k.conf, tok); err == nil {
		k.http, err = k.Client(ctx, k.conf, tok)
	}
	return err
}

func (k *keeper) HTTPClient(context.Context) *http.Client { return k.http }

// Token returns the record if the record has the access token of k.ts. If the HTTP client replaced
// the access token in the record, Token first replaces k.ts. If the access tokens still differ,
// Token returns a record with only the token of k.ts.
func (k *keeper) Token(ctx context.Context) (tokenstore.Token, error) {
	tok, err := k.ts.Token()
	if err != nil {
		return tokenstore.Token{}, err
	}
	t, err := k.store.FindToken(ctx, tokenstore.Token{UserName: user, ClientID: k.conf.ClientID, Issuer: authservers.TokenURL})
	if err == nil && string(t.AccessToken) != tok.AccessToken {
		if k.ts, err = k.TokenSource(ctx, k.conf, tok); err == nil {
			tok, err = k.ts.Token()
		}
	}
	if err != nil || string(t.AccessToken) != tok.AccessToken {
		return oauth2keep.FromOAuth2(tok)
	}
	return t, nil
}

// Revoke calls Forget. Later calls of Token fail.
func (k *keeper) Revoke(ctx context.Context) error {
	if _, err := k.Forget(ctx, k.conf); err != nil {
		return err
	}
	_, err := k.TokenSource(ctx, k.conf, nil)
	k.ts = refusing{err}
	return nil
}

type refusing struct{ err error }

func (r refusing) Token() (*oauth2.Token, error) { return nil, r.err }

// start is like process, but fails the test if there is an error. If like is empty, the client uses
// the user's record.
func (s *stage) start(like tokenstore.Token) client {
	s.t.Helper()
	c, err := s.process(&outages{}, like)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// consented is like start, with a new one-time code.
func (s *stage) consented() client {
	s.t.Helper()
	return s.start(tokenstore.Token{GrantToken: tokenstore.Secret(s.Code())})
}

// call calls the API, and returns the token of c. It returns an error if the token is not valid.
func (s *stage) call(c client) (tokenstore.Token, error) {
	res, err := c.HTTPClient(s.t.Context()).Get(apiURL)
	if err != nil {
		return tokenstore.Token{}, err
	}
	_ = res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized {
		return tokenstore.Token{}, errRejected
	}
	t, err := c.Token(s.t.Context())
	if err == nil && !s.Alive(string(t.AccessToken)) {
		err = errors.New("the access token is not good")
	}
	return t, err
}

// works checks that c can call the API, and that the store has the token of c.
func (s *stage) works(what string, c client) tokenstore.Token {
	s.t.Helper()
	t, err := s.call(c)
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	if got := s.record(); got != t {
		s.t.Fatalf("%s: the store has %s", what, describe(got))
	}
	return t
}

// fails checks that c cannot call the API, and that the error matches class.
func (s *stage) fails(what string, c client, class error) {
	s.t.Helper()
	_, err := s.call(c)
	if !errors.Is(err, class) {
		s.t.Fatalf("%s: the error is %v, and should be %v", what, err, class)
	}
	s.clean(err.Error())
}

// record returns the user's record, which must be the only record with tokens. It ignores the
// records of refused codes.
func (s *stage) record() tokenstore.Token {
	s.t.Helper()
	all, err := s.store(&outages{}).GetTokens(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(t tokenstore.Token) bool {
		return t.UserName == "" && t.AccessToken == "" && t.RefreshToken == ""
	})
	if len(all) != 1 || all[0].UserName != user {
		s.t.Fatalf("there are %d records with tokens", len(all))
	}
	return all[0]
}

// asked checks the number of exchanges and refreshes at the token endpoint so far.
func (s *stage) asked(what string, exchanges, refreshes int) {
	s.t.Helper()
	if e, r := s.count(); e != exchanges || r != refreshes {
		s.t.Fatalf("%s: there were %d exchanges and %d refreshes, not %d and %d", what, e, r, exchanges, refreshes)
	}
}

// outdate advances the clock until the access tokens have expired.
func (s *stage) outdate() { s.clock.Advance(s.AccessLife) }

// repairs checks that another consent makes the user's record work again, and that the record can
// then be refreshed.
func (s *stage) repairs() {
	s.t.Helper()
	c := s.consented()
	s.works("after another consent", c)
	s.outdate()
	s.works("an access token's life after another consent", c)
}

// elsewhere returns the stage of another application with the same server.
func (s *stage) elsewhere() *stage {
	other := *s
	other.driver = memstore.NewDriver()
	return &other
}

// TestProviders runs the same flows against a server with each policy, and against simulations of
// Zoho's server.
func TestProviders(t *testing.T) {
	t.Parallel()
	flows := map[string]func(*stage){
		"many processes exchange one code once":          manyExchangeOnce,
		"a code is late":                                 codeIsLate,
		"a holder of a code is killed":                   holderOfACodeIsKilled,
		"another application uses a code again":          codeComesTwice,
		"one of many processes refreshes":                oneOfManyRefreshes,
		"a holder is killed before it commits":           holderIsKilled,
		"a holder with the default lease is killed":      holderWithTheDefaultsIsKilled,
		"an answer is lost":                              answerIsLost,
		"another application refreshes within grace":     oldTokenWithinGrace,
		"another application uses an old token late":     oldTokenLate,
		"a refresh token is left alone":                  tokenIsIdle,
		"a good token is asked for often":                tokenIsAskedForOften,
		"the API rejects each token soon":                apiRejectsEach,
		"one process revokes, and others have the token": oneRevokes,
	}
	for _, p := range providers() {
		for name, flow := range flows {
			t.Run(p.Name+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { flow(newStage(t, p)) })
			})
			if p.Source == "" {
				continue // a keeper works only with the servers of package authservers
			}
			t.Run(p.Name+"/"+name+", kept", func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t, p)
					s.keeps = true
					flow(s)
				})
			})
		}
	}
}

const crowd = 8

func manyExchangeOnce(s *stage) {
	like := tokenstore.Token{GrantToken: tokenstore.Secret(s.Code())}
	got, err := together(crowd, func(int) (tokenstore.Token, error) {
		c, err := s.process(&outages{}, like)
		if err != nil {
			return tokenstore.Token{}, err
		}
		return s.call(c)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, t := range got {
		if t.AccessToken != got[0].AccessToken {
			s.t.Fatal("two processes have different tokens")
		}
	}
	s.asked("at the start", 1, 0)
	if t := s.record(); t.UserName != user || t.RefreshToken == "" || t.ExpiresAt.IsZero() != s.Unstated {
		s.t.Errorf("the record is %s", describe(t))
	}
	s.outdate()
	s.works("with the code in the configuration", s.start(like))
	s.asked("with a code that was used", 1, 1)
}

// codeIsLate checks that an expired code is refused once, and that no process sends it again.
func codeIsLate(s *stage) {
	like := tokenstore.Token{GrantToken: tokenstore.Secret(s.Code())}
	s.clock.Advance(10 * time.Minute)
	for range 3 {
		if _, err := s.process(&outages{}, like); !errors.Is(err, initializer.ErrReauthRequired) {
			s.t.Fatalf("a late code: %v", err)
		}
	}
	s.asked("for three processes", 1, 0)
	s.repairs()
}

// holderOfACodeIsKilled checks that the user must consent again if the process that exchanged a
// code is killed before it stores the tokens. No server accepts the code a second time.
func holderOfACodeIsKilled(s *stage) {
	like, dying := tokenstore.Token{GrantToken: tokenstore.Secret(s.Code())}, &outages{}
	asked, dead := s.kills(dying), make(chan struct{})
	go func() {
		defer close(dead)
		_, _ = s.process(dying, like)
	}()
	<-asked
	defer func() { <-dead }()
	if _, err := s.process(&outages{}, like); !errors.Is(err, initializer.ErrServer) {
		s.t.Fatalf("the next process: %v", err)
	}
	s.clock.Advance(time.Minute)
	if _, err := s.process(&outages{}, like); !errors.Is(err, initializer.ErrReauthRequired) {
		s.t.Fatalf("a minute later: %v", err)
	}
	s.repairs()
}

// kills makes the store of a process fail as soon as the next request reaches the token endpoint.
// The returned channel is closed at the same time.
func (s *stage) kills(dying *outages) <-chan struct{} {
	asked := make(chan struct{})
	s.interrupt(func() bool {
		s.interrupt(func() bool { return false })
		dying.set(true, true)
		close(asked)
		return false
	})
	return asked
}

// codeComesTwice checks that another application cannot use an exchanged code. If the attempt makes
// the server revoke the tokens of the first application, the user of that application must also
// consent again.
func codeComesTwice(s *stage) {
	like := tokenstore.Token{GrantToken: tokenstore.Secret(s.Code())}
	c := s.start(like)
	if _, err := s.elsewhere().process(&outages{}, like); !errors.Is(err, initializer.ErrReauthRequired) {
		s.t.Fatalf("the second use: %v", err)
	}
	s.outdate()
	if s.RevokesCode {
		s.fails("after the second use", c, initializer.ErrReauthRequired)
		s.repairs()
		return
	}
	s.works("after the second use", c)
}

func oneOfManyRefreshes(s *stage) {
	first := s.consented()
	clients := []client{first}
	for range crowd - 1 {
		clients = append(clients, s.start(tokenstore.Token{}))
	}
	last := s.works("at the start", first)
	for round := range 5 {
		s.outdate()
		got, err := together(crowd, func(i int) (tokenstore.Token, error) { return s.call(clients[i]) })
		if err != nil {
			s.t.Fatal(err)
		}
		now := s.record()
		for _, t := range got {
			if t != now {
				s.t.Fatalf("round %d: a process has %s", round, describe(t))
			}
		}
		if (now.RefreshToken != last.RefreshToken) != s.Rotates || now.AccessToken == last.AccessToken {
			s.t.Errorf("round %d: the record is %s", round, describe(now))
		}
		last = now
		s.asked("after a round", 1, round+1)
	}
}

// holderIsKilled checks the outcome if the only process that received a new refresh token is
// killed. The next process waits for the lease, and then uses the old refresh token. The old
// refresh token works if the server does not rotate refresh tokens, or if its grace period is
// longer than the wait. Otherwise the user must consent again. The first error is temporary,
// because the holder might only be slow.
func holderIsKilled(s *stage) {
	s.killsHolder(!s.Rotates || s.Grace > 10*time.Second)
}

// holderWithTheDefaultsIsKilled is like holderIsKilled, with the default lease of 30 seconds. When
// the lease ends, a grace period of 30 seconds has also ended.
func holderWithTheDefaultsIsKilled(s *stage) {
	s.leaseTTL = 0
	s.killsHolder(!s.Rotates || s.Grace > 40*time.Second)
}

func (s *stage) killsHolder(survives bool) {
	s.t.Helper()
	dying := &outages{}
	s.consented()
	holder, err := s.process(dying, tokenstore.Token{})
	if err != nil {
		s.t.Fatal(err)
	}
	other, third := s.start(tokenstore.Token{}), s.start(tokenstore.Token{})
	s.outdate()
	asked, dead := s.kills(dying), make(chan struct{})
	go func() {
		defer close(dead)
		_, _ = s.call(holder)
	}()
	<-asked
	defer func() { <-dead }()
	if survives {
		s.works("the next process", other)
		s.works("the third process", third)
		s.asked("after the take-over", 1, 2)
		s.outdate()
		s.works("the next time", third)
		return
	}
	s.fails("the next process", other, initializer.ErrServer)
	s.fails("the third process", third, initializer.ErrServer)
	s.asked("after the take-over", 1, 2)
	s.clock.Advance(time.Minute)
	s.fails("a minute later", other, initializer.ErrReauthRequired)
	s.fails("the third process", third, initializer.ErrReauthRequired)
	s.asked("a minute later", 1, 3)
	s.repairs()
}

// answerIsLost checks that a process uses the old refresh token again if the response to a
// refresh is lost. The server accepts the old refresh token if the server does not rotate
// refresh tokens, or has a grace period.
func answerIsLost(s *stage) {
	c := s.consented()
	s.outdate()
	s.interrupt(func() bool { return true })
	s.fails("the first call", c, initializer.ErrServer)
	s.interrupt(func() bool { return false })
	s.asked("without an answer", 1, 1)
	if !s.Rotates || s.Grace > 0 {
		s.works("the second call", c)
		s.asked("with an answer", 1, 2)
		s.outdate()
		s.works("the next time", c)
		return
	}
	s.fails("the second call", c, initializer.ErrReauthRequired)
	s.fails("the third call", c, initializer.ErrReauthRequired)
	s.asked("with a refusal", 1, 2)
	s.repairs()
}

// copied restores a backup of the user's record in another application, after this application
// refreshed the record.
func copied(s *stage) (here client, other *stage) {
	s.t.Helper()
	here = s.consented()
	backup := s.record()
	s.outdate()
	s.works("before the other", here)
	other = s.elsewhere()
	backup.ID = ""
	if _, err := other.store(&outages{}).SaveToken(s.t.Context(), backup); err != nil {
		s.t.Fatal(err)
	}
	return here, other
}

func oldTokenWithinGrace(s *stage) {
	here, other := copied(s)
	if s.Rotates && s.Grace == 0 {
		return // the server has no grace period
	}
	s.clock.Advance(s.Grace / 2)
	other.works("the other", other.start(tokenstore.Token{}))
	s.works("the first after the other", here)
}

// oldTokenLate checks that a server with rotation refuses a replaced refresh token after the grace
// period. If the server considers the refresh token stolen, it also revokes the valid tokens of the
// first application.
func oldTokenLate(s *stage) {
	here, other := copied(s)
	s.clock.Advance(s.Grace + time.Minute)
	there, err := other.process(&outages{}, tokenstore.Token{})
	if !s.Rotates {
		if err != nil {
			s.t.Fatal(err)
		}
		other.works("the other", there)
		s.works("the first after the other", here)
		return
	}
	if !errors.Is(err, initializer.ErrReauthRequired) {
		s.t.Fatalf("the other: %v", err)
	}
	if s.Revokes {
		s.fails("the first, by the API", here, initializer.ErrReauthRequired)
		s.outdate()
		s.fails("the first, by the server", here, initializer.ErrReauthRequired)
		s.repairs()
		return
	}
	s.works("the first after the other", here)
	s.outdate()
	s.works("the first, the next time", here)
}

func tokenIsIdle(s *stage) {
	c := s.consented()
	if s.Idle == 0 {
		s.clock.Advance(400 * 24 * time.Hour)
		s.works("after a year", c)
		return
	}
	for range 3 {
		s.clock.Advance(s.Idle - time.Hour)
		s.works("in use", c)
	}
	other := s.start(tokenstore.Token{})
	s.clock.Advance(s.Idle)
	s.fails("idle", c, initializer.ErrReauthRequired)
	for range 10 {
		s.fails("idle, again", c, initializer.ErrReauthRequired)
		s.fails("idle, another process", other, initializer.ErrReauthRequired)
		s.clock.Advance(time.Hour)
	}
	s.asked("one question for all", 1, 4)
	s.repairs()
	s.works("the Client that was refused", c)
}

// tokenIsAskedForOften checks that a valid token is not refreshed, even if a program uses it often.
// A token without a lifetime counts as valid until the API rejects it.
func tokenIsAskedForOften(s *stage) {
	clients := []client{s.consented(), s.start(tokenstore.Token{}), s.start(tokenstore.Token{})}
	step := s.AccessLife / 2000
	if s.Unstated {
		step = time.Hour
	}
	for range 1000 {
		s.clock.Advance(step)
		for _, c := range clients {
			if _, err := c.Token(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	s.asked("while the token is good", 1, 0)
	s.Expire(string(s.record().AccessToken))
	if _, err := together(10*len(clients), func(i int) (tokenstore.Token, error) { return s.call(clients[i%len(clients)]) }); err != nil {
		s.t.Fatal(err)
	}
	s.asked("after the API has rejected it", 1, 1)
}

// apiRejectsEach checks that an API that rejects every token causes only one refresh a minute.
func apiRejectsEach(s *stage) {
	c := s.consented()
	for minute := range 3 {
		for range 20 {
			s.Expire(string(s.record().AccessToken))
			_, _ = s.call(c)
		}
		s.asked("within a minute", 1, minute+1)
		s.clock.Advance(time.Minute)
	}
}

func oneRevokes(s *stage) {
	c, other := s.consented(), s.start(tokenstore.Token{})
	if err := c.Revoke(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.Token(s.t.Context()); !errors.Is(err, initializer.ErrReauthRequired) {
		s.t.Errorf("the process that revoked: %v", err)
	}
	if all, err := s.store(&outages{}).GetTokens(s.t.Context()); err != nil || len(all) != 0 {
		s.t.Errorf("there are %d records: %v", len(all), err)
	}
	s.fails("another process, by the API", other, initializer.ErrReauthRequired)
	s.outdate()
	s.fails("another process", other, initializer.ErrReauthRequired)
	s.asked("no process uses what was revoked", 1, 0)
	s.repairs()
}
