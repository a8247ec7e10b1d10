package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A late is a driver that answers some reads with an earlier state of the secret, and some
// searches with earlier states of all secrets.
type late struct {
	*memstore.Driver

	mu     sync.Mutex
	random *rand.Rand
	before map[string]*driver.Secret // states before the last write, by name; nil means that the secret did not exist
	then   []driver.Named            // all secrets as they were some writes ago
}

func newLate(seed uint64) *late {
	return &late{Driver: memstore.NewDriver(), random: rand.New(rand.NewPCG(seed, 2)), before: map[string]*driver.Secret{}}
}

func (l *late) Properties() driver.Properties {
	p := l.Driver.Properties()
	p.ReadLag, p.ListLag = time.Second, time.Minute
	return p
}

// lags decides at random whether the next read is out of date.
func (l *late) lags() bool { return l.random.IntN(4) == 0 }

// written records the state of the named secret before a write and, at random, the states of
// all secrets.
func (l *late) written(ctx context.Context, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before[name] = nil
	if s, err := l.Driver.Get(ctx, name); err == nil {
		l.before[name] = &s
	}
	if l.random.IntN(3) == 0 {
		l.then = nil
		for named, err := range l.Driver.List(ctx) {
			if err == nil {
				l.then = append(l.then, named)
			}
		}
	}
}

func (l *late) Get(ctx context.Context, name string) (driver.Secret, error) {
	l.mu.Lock()
	old, known := l.before[name]
	known = known && name != "keys" && l.lags()
	l.mu.Unlock()
	switch {
	case known && old == nil:
		return driver.Secret{}, driver.ErrNotFound
	case known:
		return *old, nil
	}
	return l.Driver.Get(ctx, name)
}

func (l *late) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	l.written(ctx, name)
	return l.Driver.Create(ctx, name, p)
}

func (l *late) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	l.written(ctx, name)
	return l.Driver.Update(ctx, name, base, p)
}

func (l *late) Delete(ctx context.Context, name string, base driver.Secret) error {
	l.written(ctx, name)
	return l.Driver.Delete(ctx, name, base)
}

func (l *late) Lookup(ctx context.Context, labels []driver.Label) iter.Seq2[driver.Named, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lags() {
		return l.Driver.Lookup(ctx, labels)
	}
	then := l.then
	return func(yield func(driver.Named, error) bool) {
		for _, named := range then {
			has := func(label driver.Label) bool {
				return slices.ContainsFunc(labels, func(q driver.Label) bool { return q.Key == label.Key && q.Value == label.Value })
			}
			if slices.ContainsFunc(named.Labels, has) && !yield(named, nil) {
				return
			}
		}
	}
}

// A server is an authorization server, or stands for all records without an issuer and
// resource. All secrets of a server contain the text that String returns.
type server struct{ issuer, resource string }

var allServers = []server{
	{"https://one.example", "https://api.example"}, {"https://two.example", "https://api.example"}, {"https://two.example", "https://other.example"}, {},
}

func (s server) String() string { return fmt.Sprintf("<%s %s>", s.issuer, s.resource) }

// A crowd runs one sequence of operations for users of several servers.
type crowd struct {
	t       *testing.T
	store   *tokenstore.Store
	random  *rand.Rand
	bare    bool     // leave out issuer and resource, so that records are mixed
	issued  int      // number of secrets that were issued so far
	known   []token  // records that operations have returned
	refused int      // number of operations that failed with a documented class
	mixed   []string // descriptions of secrets that belong to another server than their record
}

func (c *crowd) secret(s server) tokenstore.Secret {
	c.issued++
	return tokenstore.Secret(fmt.Sprintf("%v-%d", s, c.issued))
}

// full returns a token with all fields of a token response of the server.
func (c *crowd) full(s server, user, client string) token {
	return c.at(s, token{
		UserName: user, ClientID: client, RefreshToken: c.secret(s), AccessToken: c.secret(s), IDToken: c.secret(s),
		Extra: tokenstore.Secret(fmt.Sprintf(`{"of":%q}`, string(c.secret(s)))), ExpiresAt: time.Now().Add(time.Duration(c.random.IntN(3)-1) * time.Hour),
	})
}

func (c *crowd) at(s server, t token) token {
	if !c.bare {
		t.Issuer, t.Resource = s.issuer, s.resource
	}
	return t
}

// holds adds to c.mixed each secret of t that does not belong to the server with the issuer and
// resource of t. If c.bare is set, t.Extra identifies the server.
func (c *crowd) holds(op string, t token) {
	of := server{t.Issuer, t.Resource}.String()
	if from, to := strings.Index(string(t.Extra), "<"), strings.Index(string(t.Extra), ">"); c.bare && from >= 0 {
		of = string(t.Extra[from : to+1])
	}
	for _, secret := range []tokenstore.Secret{t.RefreshToken, t.AccessToken, t.IDToken, t.Extra} {
		if secret == "" || strings.Contains(string(secret), of) {
			continue
		}
		c.mixed = append(c.mixed, fmt.Sprintf("%s: the record %q of %s has the secret %s", op, t.ID, of, string(secret)))
	}
}

// done checks the result of an operation, and adds t to c.known if the operation succeeded.
func (c *crowd) done(op string, t token, err error) {
	c.t.Helper()
	switch class(err) {
	case nil:
		if err != nil {
			c.t.Fatalf("%s: %v", op, err)
		}
		c.holds(op, t)
		c.known = append(c.known, t)
	case tokenstore.ErrNotFound, tokenstore.ErrAmbiguous, tokenstore.ErrIDMismatch, tokenstore.ErrInvalidToken, tokenstore.ErrConflict, tokenstore.ErrNotPersisted:
		c.refused++
	default:
		c.t.Fatalf("%s: %v", op, err)
	}
}

func (c *crowd) step(ctx context.Context) {
	pick := func(texts ...string) string { return texts[c.random.IntN(len(texts))] }
	s := allServers[c.random.IntN(len(allServers))]
	user, client := pick("ann", "bob"), pick("c1", "c2")
	known := token{}
	if len(c.known) > 0 {
		known = c.known[c.random.IntN(len(c.known))]
	}
	of := server{known.Issuer, known.Resource}
	save := func(op string, t token) {
		got, err := c.store.SaveToken(ctx, t)
		c.done(op, got, err)
	}
	find := func(op string, like token) {
		got, err := c.store.FindToken(ctx, like)
		c.done(op, got, err)
	}
	switch c.random.IntN(11) {
	case 0, 1:
		save("save", c.full(s, user, client))
	case 2:
		t := c.full(s, user, client)
		if s.issuer != "" { // without issuer and resource, the save may find a record of another server by the ID
			t.ID = "7"
		}
		save("save with an ID", t)
	case 3:
		t := c.full(s, "", client)
		t.GrantToken = tokenstore.Secret(pick("code1", "code2"))
		save("save a code", t)
	case 4:
		if known.UserName == "" && known.ID != "" {
			save("promote", token{ID: known.ID, UserName: user})
		}
	case 5:
		if known.RefreshToken != "" && known.ClientID != "" {
			save("save by refresh token", c.at(of, token{ClientID: known.ClientID, RefreshToken: known.RefreshToken, AccessToken: c.secret(of)}))
		}
	case 6:
		find("find by user", c.at(s, token{UserName: user, ClientID: pick(client, "")}))
	case 7: // FindToken returns the fields of its argument, so do not pass a secret of another server
		if c.random.IntN(2) == 0 {
			find("find by code", c.at(s, token{ClientID: client, GrantToken: tokenstore.Secret(pick("code1", "code2"))}))
		} else {
			find("find by refresh token", c.at(of, token{ClientID: client, RefreshToken: known.RefreshToken}))
		}
	case 8:
		find("find by ID", token{ID: pick(known.ID, "7")})
		find("find by access token", token{AccessToken: known.AccessToken})
	case 9:
		got, err := c.store.Refresh(ctx, pick(known.ID, "7"), known.AccessToken, func(_ context.Context, used token) (token, error) {
			c.holds("mint", used)
			return c.full(server{used.Issuer, used.Resource}, "", ""), nil
		})
		c.done("refresh", got, err)
	case 10:
		if err := c.store.DeleteToken(ctx, pick(known.ID, "7")); err != nil && !errors.Is(err, tokenstore.ErrInvalidToken) && !errors.Is(err, tokenstore.ErrAmbiguous) {
			c.t.Fatalf("delete: %v", err)
		}
	}
}

// sequence runs one random sequence of operations, and returns the mixed and refused of its
// crowd.
func sequence(t *testing.T, seed uint64, bare bool) (mixed []string, refused int) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{t: t, store: storeOn(t, newLate(seed), nil), random: rand.New(rand.NewPCG(seed, 1)), bare: bare}
		for range 16 {
			c.step(t.Context())
		}
		all, err := c.store.GetTokens(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			c.holds("list", r)
		}
		mixed, refused = c.mixed, c.refused
	})
	return mixed, refused
}

// TestServers checks that no record mixes secrets of several servers with the same users,
// clients, codes and IDs. The test runs random sequences of saves, searches, refreshes,
// promotions and deletions on a driver whose reads and searches lag. The test runs 10,000
// sequences if TOKENKEEP_FULL is set, and otherwise 300.
func TestServers(t *testing.T) {
	t.Parallel()
	n := 300
	if os.Getenv("TOKENKEEP_FULL") != "" {
		n = 10_000
	}
	mixed, refused := 0, 0
	for seed := range uint64(n) {
		found, no := sequence(t, seed, false)
		refused += no
		if len(found) > 0 {
			if mixed++; mixed <= 3 {
				t.Errorf("sequence %d: %s", seed, found[0])
			}
		}
	}
	t.Logf("%d of %d sequences mixed two servers; %d of %d operations were refused", mixed, n, refused, 16*n)
}

// TestServers_Check checks that TestServers detects mixed records. Without issuer and
// resource in the tokens, the servers share records.
func TestServers_Check(t *testing.T) {
	t.Parallel()
	mixed := 0
	for seed := range uint64(30) {
		found, _ := sequence(t, seed, true)
		mixed += min(len(found), 1)
	}
	if mixed < 15 {
		t.Errorf("%d of 30 sequences without issuers are mixed", mixed)
	}
}
