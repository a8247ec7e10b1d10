package tokenkeep_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// rounds runs f as if all calls of the service took the same time. rounds returns the groups of
// concurrent calls, in order. The number of groups is the length of the longest sequence of
// calls in which each call waits for the previous call.
func (g *gate) rounds(f func()) (rounds [][]string) {
	ended := make(chan struct{})
	g.mu.Lock()
	g.arrived = make(chan struct{}, 1)
	g.mu.Unlock()
	go func() { defer close(ended); f() }()
	for {
		synctest.Wait()
		g.mu.Lock()
		round := g.waiting
		g.waiting = nil
		g.mu.Unlock()
		if len(round) > 0 {
			var texts []string
			for _, w := range round {
				texts = append(texts, w.text)
			}
			// The response from the authorization server stops the destruction of old versions.
			// Calls of the service that began earlier therefore end before the response.
			for _, server := range []bool{false, true} {
				for _, w := range round {
					if (w.text == asksServer) == server {
						close(w.open)
					}
				}
				synctest.Wait()
			}
			slices.Sort(texts)
			rounds = append(rounds, texts)
			continue
		}
		select {
		case <-ended:
			return rounds
		case <-g.arrived: // f has paused, and has sent another request
		}
	}
}

const asksServer = "the authorization server"

// mint returns a mint function that takes as long as a call, and whose access token contains n.
func (b *bench) mint(n int) func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
	return func(ctx context.Context, _ tokenstore.Token) (tokenstore.Token, error) {
		err := b.pass(ctx, asksServer, func() error { return nil })
		return tokenstore.Token{AccessToken: tokenstore.Secret(fmt.Sprint("minted", n)), ExpiresAt: time.Now().Add(time.Hour)}, err
	}
}

// refreshed refreshes the record id with a new store, as another process does, and returns the
// new access token.
func (b *bench) refreshed(id string, stale tokenstore.Secret, n int) tokenstore.Secret {
	t, err := b.store().Refresh(b.Context(), id, stale, b.mint(n))
	if err != nil {
		b.Error(err)
	}
	return t.AccessToken
}

// RoundTrip answers a refresh at the authorization server, which takes as long as a call.
func (b *bench) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := `{"access_token":"minted","token_type":"Bearer","expires_in":3600}`
	err := b.pass(r.Context(), asksServer, func() error { return nil })
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(answer)), Request: r,
	}, err
}

// started creates a Client, as a new process does. The Client finds the record and refreshes
// the token.
func (b *bench) started(string, tokenstore.Secret) {
	c, err := initializer.New(b.Context(), initializer.Config{
		Store: b.store(), HTTPClient: &http.Client{Transport: b}, Issuer: initializer.NoIssuer,
		OAuth2: &oauth2.Config{ClientID: crm, Endpoint: oauth2.Endpoint{TokenURL: "https://as.example/token", AuthStyle: oauth2.AuthStyleInParams}},
		Token:  tokenstore.Token{UserName: ann, ClientID: crm},
	})
	if err != nil {
		b.Error(err)
		return
	}
	if t, err := c.Token(b.Context()); err != nil || t.AccessToken != "minted" {
		b.Errorf("Token: %v", err)
	}
}

// A chain describes the calls of an operation. depth is the length of the longest sequence of
// calls in which each call waits for the previous call. after is the part of depth that follows
// the authorization server's response, or depth if the server is not called.
type chain struct{ calls, depth, after int }

func chainOf(rounds [][]string) chain {
	var c chain
	for _, round := range rounds {
		c.calls += len(round)
		if slices.Contains(round, asksServer) {
			c.after = 0
			c.calls--
			continue
		}
		c.depth++
		c.after++
	}
	return c
}

// TestDepth checks the number and the depth of the calls of each operation: see chain. Each
// operation uses a new store, and a record that was refreshed four times. On Google Cloud, a
// save of that record also destroys an old version.
func TestDepth(t *testing.T) {
	t.Parallel()
	services := map[string]func(*testing.T) *cloud{"awssm": onAWS, "gcpsm": onGCP, "vaultstore": onVault, "k8sstore": onK8s}
	for _, op := range []struct {
		name string
		do   func(b *bench, id string, stale tokenstore.Secret)
		opts *tokenstore.Options
		want map[string]chain
	}{
		{"refresh", func(b *bench, id string, stale tokenstore.Secret) { b.refreshed(id, stale, 9) }, nil,
			map[string]chain{"awssm": {4, 4, 2}, "gcpsm": {6, 5, 2}, "vaultstore": {5, 4, 2}, "k8sstore": {3, 3, 1}}},
		{"refresh without the label of the access token", func(b *bench, id string, stale tokenstore.Secret) { b.refreshed(id, stale, 9) },
			&tokenstore.Options{NoAccessLabel: true},
			map[string]chain{"awssm": {3, 3, 1}, "gcpsm": {6, 5, 2}, "vaultstore": {3, 3, 1}, "k8sstore": {3, 3, 1}}},
		{"find and refresh in a new process", (*bench).started, nil,
			map[string]chain{"awssm": {4, 4, 2}, "gcpsm": {6, 5, 2}, "vaultstore": {5, 4, 2}, "k8sstore": {3, 3, 1}}},
		{"save a new access token", func(b *bench, id string, _ tokenstore.Secret) {
			if _, err := b.store().SaveToken(b.Context(), tokenstore.Token{ID: id, AccessToken: "saved"}); err != nil {
				b.Error(err)
			}
		}, nil, map[string]chain{"awssm": {3, 3, 3}, "gcpsm": {5, 4, 4}, "vaultstore": {4, 3, 3}, "k8sstore": {2, 2, 2}}},
		{"find by user and client", func(b *bench, _ string, _ tokenstore.Secret) {
			if _, err := b.store().FindToken(b.Context(), tokenstore.Token{UserName: ann, ClientID: crm}); err != nil {
				b.Error(err)
			}
		}, nil, map[string]chain{"awssm": {1, 1, 1}, "gcpsm": {1, 1, 1}, "vaultstore": {1, 1, 1}, "k8sstore": {1, 1, 1}}},
	} {
		for name, open := range services {
			t.Run(op.name+", "+name, func(t *testing.T) {
				t.Parallel()
				c := open(t)
				synctest.Test(t, func(t *testing.T) {
					b := &bench{T: t, cloud: c, options: op.opts}
					var saved tokenstore.Token
					var stale tokenstore.Secret
					b.rounds(func() {
						var err error
						if saved, err = b.store().SaveToken(b.Context(), tokenstore.Token{
							UserName: ann, ClientID: crm, RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: time.Now().Add(-time.Minute),
						}); err != nil {
							b.Error(err)
						}
						stale = saved.AccessToken
						for n := range 4 {
							stale = b.refreshed(saved.ID, stale, n)
							<-time.After(time.Hour)
						}
					})
					rounds := b.rounds(func() { op.do(b, saved.ID, stale) })
					if got := chainOf(rounds); got != op.want[name] {
						var text strings.Builder
						for i, round := range rounds {
							fmt.Fprintf(&text, "\n%d: %s", i+1, strings.Join(round, "\n   "))
						}
						t.Errorf("%+v, want %+v:%s", got, op.want[name], cmp.Or(text.String(), " none"))
					}
				})
			})
		}
	}
}
