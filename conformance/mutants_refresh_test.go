package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// turns are the rights to refresh, by ID, that all handles of a plain store
// share, and the refusals that are kept.
type turns struct {
	mu       sync.Mutex
	taken    map[string]chan struct{}
	refusals map[string]refusal
}

// A refusal is kept with the credentials that were refused.
type refusal struct {
	err   *tokenstore.RefreshError
	of    token
	until time.Time
}

func (t *turns) of(id string) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken == nil {
		t.taken, t.refusals = map[string]chan struct{}{}, map[string]refusal{}
	}
	if t.taken[id] == nil {
		t.taken[id] = make(chan struct{}, 1)
	}
	return t.taken[id]
}

// flaws are what is wrong with a refreshing store.
type flaws struct {
	alwaysMints   bool // though the token is fresh
	noTurns       bool // everybody at once
	localTurns    bool // one at a time in each handle only
	neverLooks    bool // does not look again when it is its turn
	replaces      bool // stores what mint returned, and nothing else
	renames       bool // stores it under the user that mint returned
	storesFailure bool // stores what came with an error
	forgets       bool // keeps no refusals
	grudges       bool // keeps a refusal whatever changes
	swallows      bool // returns an error of its own for mint's
	resurrects    bool // creates a record that was deleted
	overwrites    bool // stores over what was saved meanwhile
	overRefresh   bool // takes what it got for an old refresh token
	takesEmpty    bool // accepts an answer without an access token
	deafToContext bool // waits for its turn whatever becomes of the context
	loses         bool // stores under the caller's context
}

// refreshing is a plain store with a Refresh.
type refreshing struct {
	*plain
	turns *turns
	flaws
}

func (r refreshing) made() *plain { return r.plain }

func (r refreshing) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint mint) (token, error) {
	t, err := r.refresh(ctx, id, stale, mint)
	var passed passedOn
	if errors.As(err, &passed) {
		return t, passed.error
	}
	return t, wrap("refresh", id, err)
}

// passedOn is an error of mint.
type passedOn struct{ error }

func (r refreshing) refresh(ctx context.Context, id string, stale tokenstore.Secret, mint mint) (token, error) {
	if id == "" || mint == nil {
		return token{}, tokenstore.ErrInvalidToken
	}
	used, err := r.FindTokenByID(ctx, id)
	if err != nil || r.fresh(used, stale) {
		return used, err
	}
	if !r.noTurns {
		turn := r.turns.of(id)
		if r.deafToContext {
			turn <- struct{}{}
		} else {
			select {
			case turn <- struct{}{}:
			case <-ctx.Done():
				return token{}, ctx.Err()
			}
		}
		defer func() { <-turn }()
	}
	if !r.neverLooks {
		if used, err = r.FindTokenByID(ctx, id); err != nil || r.fresh(used, stale) {
			return used, err
		}
	}
	if err := r.refused(id, used); err != nil {
		return token{}, err
	}
	brought, err := mint(ctx, used)
	if err != nil && !r.storesFailure {
		return token{}, r.refuse(id, used, err)
	}
	if brought.AccessToken == "" && !r.takesEmpty {
		return token{}, tokenstore.ErrInvalidToken
	}
	if r.loses && ctx.Err() != nil {
		return token{}, ctx.Err()
	}
	return r.store(used, brought)
}

func (r refreshing) fresh(t token, stale tokenstore.Secret) bool {
	return !r.alwaysMints && t.AccessToken != "" && t.AccessToken != stale && (t.ExpiresAt.IsZero() || time.Now().Before(t.ExpiresAt))
}

func (r refreshing) refused(id string, used token) error {
	r.turns.mu.Lock()
	defer r.turns.mu.Unlock()
	kept, ok := r.turns.refusals[id]
	left := time.Until(kept.until)
	switch {
	case !ok || r.forgets, !r.grudges && (kept.of.RefreshToken != used.RefreshToken || kept.of.GrantToken != used.GrantToken):
		return nil
	case kept.err.Permanent:
		return passedOn{kept.err}
	case left > 0:
		return passedOn{&tokenstore.RefreshError{Code: kept.err.Code, RetryAfter: left}}
	}
	return nil
}

func (r refreshing) refuse(id string, used token, err error) error {
	if kept, ok := errors.AsType[*tokenstore.RefreshError](err); ok {
		r.turns.mu.Lock()
		defer r.turns.mu.Unlock()
		r.turns.refusals[id] = refusal{kept, used, time.Now().Add(kept.RetryAfter)}
	}
	if r.swallows {
		return errors.New("refresh failed")
	}
	return passedOn{err}
}

func (r refreshing) store(used, brought token) (token, error) {
	if r.renames {
		used.UserName = brought.UserName
	}
	brought.ID, brought.UserName, brought.ClientID = "", "", ""
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.rows[used.ID]
	switch {
	case now == nil && !r.resurrects:
		return tokenstore.Merge(used, brought), fmt.Errorf("%w: deleted", tokenstore.ErrNotPersisted)
	case now == nil || r.overwrites || r.renames:
		return r.put(now, tokenstore.Merge(used, brought)), nil
	case now.RefreshToken != used.RefreshToken && !r.overRefresh:
		return now.token, nil
	case r.replaces:
		brought.ID, brought.UserName, brought.ClientID = used.ID, used.UserName, used.ClientID
		return r.put(now, brought), nil
	}
	return r.put(now, tokenstore.Merge(now.token, brought)), nil
}

// refresher returns a backend of stores that refresh with the flaws.
func refresher(f flaws) Store {
	var mu sync.Mutex
	shared := map[*shelf]*turns{}
	return shop(func(p *plain) tokenstore.TokenStore {
		mu.Lock()
		defer mu.Unlock()
		if shared[p.shelf] == nil || f.localTurns {
			shared[p.shelf] = &turns{}
		}
		return refreshing{p, shared[p.shelf], f}
	})
}

func TestPlainRefresher(t *testing.T) { RunStore(t, refresher(flaws{})) }

var refreshMutants = []mutant[Store]{
	{"mints whenever it is asked", "AgentCore's force_authentication", "TS-35", refresher(flaws{alwaysMints: true})},
	{"lets everybody mint", "the Zoho SDKs: 20 threads, 20 refreshes", "TS-36", refresher(flaws{noTurns: true})},
	{"locks in its process only", "ContextForge #6353", "TS-36", refresher(flaws{localTurns: true, neverLooks: true})},
	{"does not look again when it is its turn", "", "TS-36", refresher(flaws{neverLooks: true})},
	{"erases what the answer leaves out", "apify/mcpc #373", "TS-37", refresher(flaws{replaces: true})},
	{"takes the user from the answer", "", "TS-37", refresher(flaws{renames: true})},
	{"stores what came with an error", "schmorrison/Zoho #9", "TS-38", refresher(flaws{storesFailure: true})},
	{"asks again at once after a refusal", "refresh loops that burn the limit", "TS-38", refresher(flaws{forgets: true})},
	{"takes a credential for dead for ever", "better-ccflare #407", "TS-38", refresher(flaws{grudges: true})},
	{"returns an error of its own", "the Zoho SDKs drop error_description", "TS-38", refresher(flaws{swallows: true})},
	{"brings back what was deleted", "Gitlawb/zero #668", "TS-39", refresher(flaws{resurrects: true})},
	{"writes over what was saved meanwhile", "Put after Get", "TS-40", refresher(flaws{overwrites: true})},
	{"takes what it got for an old refresh token", "", "TS-40", refresher(flaws{overRefresh: true})},
	{"stores an empty answer", "schmorrison/Zoho #22", "TS-41", refresher(flaws{takesEmpty: true})},
	{"waits whatever becomes of the context", "", "TS-42", refresher(flaws{deafToContext: true})},
	{"loses what it brought for a caller who has gone", "n8n, Composio", "TS-42", refresher(flaws{loses: true})},
}
