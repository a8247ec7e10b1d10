package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/handover"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An issuer is an authorization server that counts its requests.
type issuer struct {
	// later, if not nil, also gets each change, for the issuer of another world.
	later func(change func(*issuer))

	mu     sync.Mutex
	minted []tokenstore.Secret // credentials of all requests
	busy   int                 // number of current requests
	most   int                 // maximum number of concurrent requests
}

// changes applies change, which must not use the state of another issuer.
func (i *issuer) changes(change func(*issuer)) {
	if i.later != nil {
		i.later(func(i *issuer) { i.changes(change) })
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) mint(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	used := t.RefreshToken
	if used == "" {
		used = t.GrantToken
		t.RefreshToken = "refresh-of-" + t.GrantToken
	}
	i.changes(func(i *issuer) { i.minted = append(i.minted, used) })
	t.AccessToken = "access-of-" + used
	t.ExpiresAt = at(1000)
	return t, nil
}

func (i *issuer) String() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return fmt.Sprint(len(i.minted), i.busy, i.most)
}

// atMost returns an error if the issuer got more requests than 1+crashes, because each
// process that died may have lost the answer to a request.
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

// start returns the operation of a process that starts. The operation finds the user's record
// and, if the access token has expired, begins a refresh with the record that it found.
func (i *issuer) start() operation {
	return operation{name: "start", do: func(ctx context.Context, s *tokenstore.Store) error {
		ctx = handover.Context(ctx)
		t, err := s.FindToken(ctx, tokenstore.Token{UserName: user, ClientID: client})
		if err != nil || tokenstore.Fresh(t, "", time.Now()) {
			return err
		}
		stale := t.AccessToken
		t, err = s.Refresh(ctx, t.ID, stale, i.mint)
		if err == nil && (t.AccessToken == stale || t.AccessToken == "") {
			return errors.New("Refresh returned the stale token")
		}
		return err
	}}
}

// slow returns a mint that takes as long as a slow server, so that the holder of a lease in a note
// reads the note again. The mint also makes a call through s, so that the scheduler can run other
// processes while mint runs.
func (i *issuer) slow(s *tokenstore.Store) mintFunc {
	return func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
		i.enter(1)
		defer i.enter(-1)
		if err := s.ReadOnce(ctx, "mint"); !errors.Is(err, tokenstore.ErrNotFound) {
			return tokenstore.Token{}, err
		}
		<-time.After(2 * time.Second)
		return i.mint(ctx, t)
	}
}

func (i *issuer) enter(n int) {
	i.changes(func(i *issuer) {
		i.busy += n
		i.most = max(i.most, i.busy)
	})
}

// oneAtATime returns an error if the issuer got concurrent requests.
func (i *issuer) oneAtATime(int) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.most > 1 {
		return fmt.Errorf("%d requests to the authorization server at once", i.most)
	}
	return nil
}

// refreshSlowly is like refresh, with the mint that slow returns.
func (i *issuer) refreshSlowly(id string, stale tokenstore.Secret) operation {
	return operation{name: "refresh", do: func(ctx context.Context, s *tokenstore.Store) error {
		_, err := s.Refresh(ctx, id, stale, i.slow(s))
		return err
	}}
}

// refreshWithin is like refreshSlowly, but limits each call to twenty seconds and repeats
// calls that reach this deadline. Twenty seconds are shorter than a lease, and longer than
// the scheduler lets one process wait for another process.
func (i *issuer) refreshWithin(id string, stale tokenstore.Secret) operation {
	return operation{name: "refresh", within: true, do: func(ctx context.Context, s *tokenstore.Store) error {
		for {
			short, cancel := context.WithTimeout(ctx, 20*time.Second)
			_, err := s.Refresh(short, id, stale, i.slow(s))
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
	}}
}

func refreshScenarios() []func() scenario {
	expired := func(ctx context.Context, s *tokenstore.Store) {
		must(s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: client, ClientSecret: "secret", RefreshToken: "refresh0", AccessToken: "access0", ExpiresAt: time.UnixMilli(1)}))
	}
	code := func(ctx context.Context, s *tokenstore.Store) {
		must(s.SaveToken(ctx, tokenstore.Token{ClientID: client, ClientSecret: "secret", GrantToken: "grant1"}))
	}
	// consented saves the user's record and the record of a second consent, whose token
	// expired later.
	consented := func(ctx context.Context, s *tokenstore.Store) {
		expired(ctx, s)
		code(ctx, s)
		must(s.SaveToken(ctx, tokenstore.Token{ID: idOf("1"), RefreshToken: "refresh1", AccessToken: "access1", ExpiresAt: time.UnixMilli(2)}))
	}
	after := func(o, then operation) operation { o.then = &then; return o }
	type check = func(*issuer, int) error
	once, alone := (*issuer).atMost, (*issuer).oneAtATime
	with := func(name string, setup func(context.Context, *tokenstore.Store), ops func(*issuer) []operation, checks ...check) func() scenario {
		return func() scenario {
			var i issuer
			sc := scenario{name: name, setup: setup, ops: ops(&i), lease: 30 * time.Second}
			sc.issuer, sc.checks = &i, checks
			return sc
		}
	}
	return []func() scenario{
		with("two refreshers", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), i.refresh(userID(), "access0")}
		}, once),
		with("two exchanges of one code", code, func(i *issuer) []operation {
			return []operation{i.refresh(idOf("1"), ""), i.refresh(idOf("1"), "")}
		}, once),
		with("a refresh and a save", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), save(tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://api"})}
		}, once),
		with("a refresh and a new refresh token", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), save(tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh9"})}
		}),
		with("a refresh and a deletion", expired, func(i *issuer) []operation {
			return []operation{i.refresh(userID(), "access0"), remove(userID())}
		}, once),
		with("an exchange and a promotion", code, func(i *issuer) []operation {
			return []operation{i.refresh(idOf("1"), ""), promote("1")}
		}, once),
		with("two refreshers with deadlines", expired, func(i *issuer) []operation {
			return []operation{i.refreshWithin(userID(), "access0"), i.refreshWithin(userID(), "access0")}
		}, once, alone),
		with("a refresher with a deadline and one without", expired, func(i *issuer) []operation {
			return []operation{i.refreshSlowly(userID(), "access0"), i.refreshWithin(userID(), "access0")}
		}, once, alone),
		with("two processes that start", expired, func(i *issuer) []operation {
			return []operation{i.start(), i.start()}
		}, once),
		with("a process that starts, and a save", expired, func(i *issuer) []operation {
			return []operation{i.start(), save(tokenstore.Token{UserName: user, ClientID: client, APIDomain: "https://api"})}
		}, once),
		with("a process that starts, and a new refresh token", expired, func(i *issuer) []operation {
			return []operation{i.start(), save(tokenstore.Token{UserName: user, ClientID: client, RefreshToken: "refresh9"})}
		}),
		with("a process that starts, and a deletion", expired, func(i *issuer) []operation {
			return []operation{i.start(), remove(userID())}
		}, once),
		with("a process that starts, and a second consent", consented, func(i *issuer) []operation {
			return []operation{i.start(), promote("1")}
		}),
		with("a refresh while another consent is merged", consented, func(i *issuer) []operation {
			return []operation{i.refreshSlowly(userID(), "access0"), after(promote("1"), i.refreshSlowly(userID(), "access0"))}
		}, alone),
	}
}

// inNotes returns a function like fresh, but for scenarios with leases in notes.
func inNotes(fresh func() scenario) func() scenario {
	return func() scenario {
		sc := fresh()
		sc.name, sc.notes = sc.name+", with notes", true
		return sc
	}
}

// refreshFaults returns the kinds of faults of the services that keep leases in records, except
// kinds that combine stale reads with another fault.
func refreshFaults() []faultKind {
	return slices.DeleteFunc(faultKinds(), func(f faultKind) bool {
		return f.service.name == gcpsm.name || f.stales > 0 && (f.crashes > 0 || f.losses > 0)
	})
}

// noteFaults returns the kinds of faults of the service that keeps leases in notes.
func noteFaults() []faultKind {
	all := []faultKind{
		{"gcpsm without faults", budgets{}, gcpsm},
		{"gcpsm with a crash", budgets{crashes: 1}, gcpsm},
		{"gcpsm with a lost answer", budgets{losses: 1}, gcpsm},
		{"gcpsm with stale reads", budgets{stales: 2}, gcpsm},
	}
	if *exploreRuns == 0 {
		all = append(all, faultKind{"gcpsm with a stale read", budgets{stales: 1}, gcpsm})
	}
	return all
}

func TestEveryInterleavingOfRefreshes(t *testing.T) {
	run := func(fresh func() scenario, kinds []faultKind) {
		for _, b := range kinds {
			t.Run(fresh().name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				exploring(t, on(b.service, fresh), b.budgets)
			})
		}
	}
	for _, fresh := range refreshScenarios() {
		run(fresh, refreshFaults())
		run(inNotes(fresh), noteFaults())
	}
}
