package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
}

// servers lists pairs of an authorization server and a resource. The last pair stands for
// records without an issuer and a resource.
var servers = []struct{ issuer, resource string }{
	{"https://one.example", ""}, {"https://two.example", ""}, {"https://two.example", "https://api.example"}, {"", ""},
}

// Servers runs random steps: saves, searches, refreshes and deletions for users with the same
// client at several authorization servers. steps is the number of steps, and seed determines the
// random choices. Each secret names its server. Servers checks that no returned record, and no
// record passed to mint, contains a secret of another server. It also checks that no two records
// have the same user, issuer and resource.
func Servers(t *testing.T, seed uint64, steps int, s store) {
	t.Helper()
	c := &crowd{T: t, store: s, random: rand.New(rand.NewPCG(seed, 3))}
	for range steps {
		c.step(t.Context())
	}
	all, err := c.store.GetTokens(t.Context())
	if err != nil {
		t.Error(err)
	}
	seen := map[[3]string]bool{}
	for _, r := range all {
		c.check("list", r)
		if key := [3]string{r.UserName, r.Issuer, r.Resource}; r.UserName != "" && seen[key] {
			t.Errorf("there are two records of %v", key)
		} else {
			seen[key] = true
		}
	}
}

type crowd struct {
	*testing.T
	store  store
	random *rand.Rand
	issued int
}

// secret returns a new secret that names the server.
func (c *crowd) secret(server int) tokenstore.Secret {
	c.issued++
	return tokenstore.Secret(fmt.Sprintf("s%d-%d", server, c.issued))
}

// check reports a record that holds a secret of another server, or that belongs to no element of
// servers.
func (c *crowd) check(where string, r tokenstore.Token) {
	c.Helper()
	for i, s := range servers {
		if s.issuer != r.Issuer || s.resource != r.Resource {
			continue
		}
		for _, secret := range []tokenstore.Secret{r.AccessToken, r.RefreshToken, r.IDToken} {
			if secret != "" && !strings.HasPrefix(string(secret), fmt.Sprintf("s%d-", i)) {
				c.Errorf("%s: the record %s of %v holds the secret %s", where, r.ID, s, string(secret))
			}
		}
		if r.Extra != "" && !strings.Contains(string(r.Extra), fmt.Sprintf(`"s%d-`, i)) {
			c.Errorf("%s: the record %s of %v holds %s", where, r.ID, s, string(r.Extra))
		}
		return
	}
	c.Errorf("%s: a record is of no server: %q, %q", where, r.Issuer, r.Resource)
}

func (c *crowd) step(ctx context.Context) {
	server := c.random.IntN(len(servers))
	like := tokenstore.Token{
		UserName: []string{"ann", "bob"}[c.random.IntN(2)], ClientID: "c", Issuer: servers[server].issuer, Resource: servers[server].resource,
	}
	answer := tokenstore.Token{
		AccessToken: c.secret(server), ExpiresAt: time.Now().Add(time.Hour), TokenType: "Bearer", IDToken: c.secret(server),
		Extra: tokenstore.Secret(fmt.Sprintf(`{"of":%q}`, string(c.secret(server)))),
	}
	r, err := c.store.FindToken(ctx, like)
	found := err == nil
	if found {
		c.check("find", r)
	} else if !errors.Is(err, tokenstore.ErrNotFound) {
		c.Errorf("find: %v", err)
	}
	switch what := c.random.IntN(6); {
	case what == 0 && found:
		err = c.store.DeleteToken(ctx, r.ID)
	case what <= 2 && found:
		r, err = c.store.Refresh(ctx, r.ID, r.AccessToken, func(_ context.Context, used tokenstore.Token) (tokenstore.Token, error) {
			c.check("mint", used)
			return answer, nil
		})
	case what == 3:
		answer.RefreshToken = c.secret(server)
		fallthrough
	default:
		t := answer
		t.UserName, t.ClientID, t.Issuer, t.Resource = like.UserName, like.ClientID, like.Issuer, like.Resource
		r, err = c.store.SaveToken(ctx, t)
	}
	if err != nil {
		c.Errorf("step: %v", err)
	} else if r.ID != "" {
		c.check("step", r)
	}
}
