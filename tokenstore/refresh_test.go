package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An issuer is an authorization server that counts.
type issuer struct {
	mu     sync.Mutex
	minted []tokenstore.Secret // the credentials it was asked with
}

func (i *issuer) mint(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	used := t.RefreshToken
	if used == "" {
		used = t.GrantToken
		t.RefreshToken = "refresh-of-" + t.GrantToken
	}
	i.minted = append(i.minted, used)
	t.AccessToken = "access-of-" + used
	t.ExpiresAt = at(1000)
	return t, nil
}

// atMost checks that the issuer was asked once, and once more for each process
// that died with the lease.
func (i *issuer) atMost(crashes int) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.minted) > 1+crashes {
		return fmt.Errorf("%d requests to the authorization server", len(i.minted))
	}
	return nil
}

func (i *issuer) refresh(id string, stale tokenstore.Secret) operation {
	return operation{name: "refresh", do: func(ctx context.Context, s *tokenstore.Store) error {
		t, err := s.Refresh(ctx, id, stale, i.mint)
		if err == nil && (t.AccessToken == stale || t.AccessToken == "") {
			return errors.New("Refresh returned the stale token")
		}
		return err
	}}
}

func refreshScenarios() []func() scenario {
	expired := func(ctx context.Context, s *tokenstore.Store) {
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, ClientSecret: "secret", RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: time.UnixMilli(1)}))
	}
	code := func(ctx context.Context, s *tokenstore.Store) {
		must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, ClientSecret: "secret", GrantToken: "grant1"}))
	}
	with := func(name string, setup func(context.Context, *tokenstore.Store), ops func(*issuer) []operation, strict bool) func() scenario {
		return func() scenario {
			var i issuer
			sc := scenario{name: name, setup: setup, ops: ops(&i), lease: 30 * time.Second}
			if strict {
				sc.check = i.atMost
			}
			return sc
		}
	}
	return []func() scenario{
		with("two refreshers", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), i.refresh(userID(), "access0")}
		}, true),
		with("two exchanges of one code", code, func(i *issuer) []operation {
			return []operation{i.refresh(idOf("1"), ""), i.refresh(idOf("1"), "")}
		}, true),
		with("a refresh and a save", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), save(tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://api"})}
		}, true),
		with("a refresh and a new refresh token", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), save(tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh9"})}
		}, false),
		with("a refresh and a deletion", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), remove(userID())}
		}, true),
		with("an exchange and a promotion", code, func(i *issuer) []operation {
			return []operation{i.refresh(idOf("1"), ""), promote("1")}
		}, true),
	}
}

// inNotes returns the scenario with a driver that keeps leases in notes.
func inNotes(fresh func() scenario) func() scenario {
	return func() scenario {
		sc := fresh()
		sc.name, sc.notes = sc.name+", with notes", true
		return sc
	}
}

func TestEveryInterleavingOfRefreshes(t *testing.T) {
	all := refreshScenarios()
	for _, fresh := range refreshScenarios() {
		all = append(all, inNotes(fresh))
	}
	for _, fresh := range all {
		for _, b := range []struct {
			name string
			budgets
		}{
			{"without faults", budgets{}},
			{"with a crash", budgets{crashes: 1}},
			{"with a lost answer", budgets{losses: 1}},
			{"with stale reads", budgets{stales: 2}},
		} {
			t.Run(fresh().name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { explore(t, fresh, b.budgets) })
			})
		}
	}
}
