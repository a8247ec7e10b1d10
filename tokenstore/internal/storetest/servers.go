package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Store is a store that can refresh its records.
type Store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
}

// A server is an authorization server, or stands for all records without an issuer and
// resource. All secrets of a server contain the text that String returns.
type server struct{ issuer, resource string }

var servers = []server{
	{"https://one.example", "https://api.example"}, {"https://two.example", "https://api.example"}, {"https://two.example", "https://other.example"}, {},
}

func (s server) String() string { return fmt.Sprintf("<%s %s>", s.issuer, s.resource) }

// A Crowd runs random operations for several servers that have equal users, clients, codes and
// IDs.
type Crowd struct {
	Store  Store
	Random *rand.Rand
	Bare   bool // leave out issuer and resource, so that records are mixed

	Refused int      // number of operations that failed with a documented class
	Mixed   []string // descriptions of secrets that belong to a server other than that of their record

	t      *testing.T
	issued int                // number of secrets that were issued so far
	known  []tokenstore.Token // records that operations have returned
}

// Servers runs one random sequence of operations on s, and fails t for each secret that belongs
// to a server other than that of its record.
func Servers(t *testing.T, seed uint64, steps int, s Store) {
	t.Helper()
	c := &Crowd{Store: s, Random: rand.New(rand.NewPCG(seed, 3))}
	c.Run(t, steps)
	for _, text := range c.Mixed {
		t.Errorf("seed %d: %s", seed, text)
	}
}

// Run runs the given number of operations and lists the records. Run adds to c.Mixed each wrong
// secret, and each record with the same user, client, issuer and resource as an earlier record.
func (c *Crowd) Run(t *testing.T, steps int) {
	t.Helper()
	c.t = t
	for range steps {
		c.step(t.Context())
	}
	all, err := c.Store.GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[4]string]bool{}
	for _, r := range all {
		c.holds("list", r)
		key := [4]string{r.UserName, r.ClientID, r.Issuer, r.Resource}
		if r.UserName != "" && seen[key] {
			c.Mixed = append(c.Mixed, fmt.Sprintf("there are two records of %q", key))
		}
		seen[key] = true
	}
}

func (c *Crowd) secret(s server) tokenstore.Secret {
	c.issued++
	return tokenstore.Secret(fmt.Sprintf("%v-%d", s, c.issued))
}

// full returns a token with all fields of a token response of the server.
func (c *Crowd) full(s server, user, client string) tokenstore.Token {
	return c.at(s, tokenstore.Token{
		UserName: user, ClientID: client, RefreshToken: c.secret(s), AccessToken: c.secret(s), IDToken: c.secret(s),
		Extra: tokenstore.Secret(fmt.Sprintf(`{"of":%q}`, string(c.secret(s)))), ExpiresAt: time.Now().Add(time.Duration(c.Random.IntN(3)-1) * time.Hour),
	})
}

func (c *Crowd) at(s server, t tokenstore.Token) tokenstore.Token {
	if !c.Bare {
		t.Issuer, t.Resource = s.issuer, s.resource
	}
	return t
}

// holds adds to c.Mixed each secret of t that does not belong to the server with the issuer and
// resource of t. If c.Bare is set, t.Extra identifies the server.
func (c *Crowd) holds(op string, t tokenstore.Token) {
	of := server{t.Issuer, t.Resource}.String()
	if from, to := strings.Index(string(t.Extra), "<"), strings.Index(string(t.Extra), ">"); c.Bare && from >= 0 {
		of = string(t.Extra[from : to+1])
	}
	for _, secret := range []tokenstore.Secret{t.RefreshToken, t.AccessToken, t.IDToken, t.Extra} {
		if secret == "" || strings.Contains(string(secret), of) {
			continue
		}
		c.Mixed = append(c.Mixed, fmt.Sprintf("%s: the record %q of %s has the secret %s", op, t.ID, of, string(secret)))
	}
}

// refusals are the classes of errors with which a store may refuse an operation of a Crowd.
var refusals = []error{
	tokenstore.ErrNotFound, tokenstore.ErrAmbiguous, tokenstore.ErrIDMismatch, tokenstore.ErrInvalidToken, tokenstore.ErrConflict, tokenstore.ErrNotPersisted,
}

// done checks the result of an operation, and adds t to c.known if the operation succeeded.
func (c *Crowd) done(op string, t tokenstore.Token, err error) {
	c.t.Helper()
	switch {
	case err == nil:
		c.holds(op, t)
		c.known = append(c.known, t)
	case slices.ContainsFunc(refusals, func(class error) bool { return errors.Is(err, class) }):
		c.Refused++
	default:
		c.t.Fatalf("%s: %v", op, err)
	}
}

func (c *Crowd) step(ctx context.Context) {
	pick := func(texts ...string) string { return texts[c.Random.IntN(len(texts))] }
	s := servers[c.Random.IntN(len(servers))]
	user, client := pick("ann", "bob"), pick("c1", "c2")
	known := tokenstore.Token{}
	if len(c.known) > 0 {
		known = c.known[c.Random.IntN(len(c.known))]
	}
	of := server{known.Issuer, known.Resource}
	save := func(op string, t tokenstore.Token) {
		got, err := c.Store.SaveToken(ctx, t)
		c.done(op, got, err)
	}
	find := func(op string, like tokenstore.Token) {
		got, err := c.Store.FindToken(ctx, like)
		c.done(op, got, err)
	}
	switch c.Random.IntN(11) {
	case 0, 1:
		save("save", c.full(s, user, client))
	case 2:
		t := c.full(s, user, client)
		if s.issuer != "" { // without an issuer and resource, the save may find a record of another server by the ID
			t.ID = "7"
		}
		save("save with an ID", t)
	case 3:
		t := c.full(s, "", client)
		t.GrantToken = tokenstore.Secret(pick("code1", "code2"))
		save("save a code", t)
	case 4:
		if known.UserName == "" && known.ID != "" {
			save("promote", tokenstore.Token{ID: known.ID, UserName: user})
		}
	case 5:
		if known.RefreshToken != "" && known.ClientID != "" {
			save("save by refresh token", c.at(of, tokenstore.Token{ClientID: known.ClientID, RefreshToken: known.RefreshToken, AccessToken: c.secret(of)}))
		}
	case 6:
		find("find by user", c.at(s, tokenstore.Token{UserName: user, ClientID: pick(client, "")}))
	case 7: // FindToken returns the fields of its argument, so do not pass a secret of another server
		if c.Random.IntN(2) == 0 {
			find("find by code", c.at(s, tokenstore.Token{ClientID: client, GrantToken: tokenstore.Secret(pick("code1", "code2"))}))
		} else {
			find("find by refresh token", c.at(of, tokenstore.Token{ClientID: client, RefreshToken: known.RefreshToken}))
		}
	case 8:
		find("find by ID", tokenstore.Token{ID: pick(known.ID, "7")})
		find("find by access token", tokenstore.Token{AccessToken: known.AccessToken})
	case 9:
		got, err := c.Store.Refresh(ctx, pick(known.ID, "7"), known.AccessToken, func(_ context.Context, used tokenstore.Token) (tokenstore.Token, error) {
			c.holds("mint", used)
			return c.full(server{used.Issuer, used.Resource}, "", ""), nil
		})
		c.done("refresh", got, err)
	case 10:
		if err := c.Store.DeleteToken(ctx, pick(known.ID, "7")); err != nil && !errors.Is(err, tokenstore.ErrInvalidToken) && !errors.Is(err, tokenstore.ErrAmbiguous) {
			c.t.Fatalf("delete: %v", err)
		}
	}
}
