package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// turns holds the rights to refresh records and the kept refusals, both by ID. All handles on a
// shelf share one turns value, unless flaws.localTurns is set.
type turns struct {
	mu       sync.Mutex
	taken    map[string]chan struct{}
	refusals map[string]refusal
	results  map[string]token // for flaws.sharesLease, by user and ClientID
}

// A refusal is an error from mint, with the token that was refused.
type refusal struct {
	err   *tokenstore.RefreshError
	of    token
	until time.Time
}

func (t *turns) of(id string) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken == nil {
		t.taken, t.refusals, t.results = map[string]chan struct{}{}, map[string]refusal{}, map[string]token{}
	}
	if t.taken[id] == nil {
		t.taken[id] = make(chan struct{}, 1)
	}
	return t.taken[id]
}

type flaws struct {
	alwaysMints   bool // calls mint even if the token has not expired
	noTurns       bool // lets all callers refresh at the same time
	localTurns    bool // lets one caller of each handle refresh at a time
	neverLooks    bool // does not read the record again after waiting
	replaces      bool // replaces the record with the token that mint returned
	renames       bool // stores the token under the user that mint returned
	storesFailure bool // stores the token that mint returned with an error
	forgets       bool // keeps no refusals
	grudges       bool // keeps a refusal even if the record changes
	swallows      bool // returns an error other than the error from mint
	resurrects    bool // creates a record that was deleted
	overwrites    bool // overwrites fields that were saved during mint
	overRefresh   bool // stores the token from mint even if a refresh token was saved during mint
	takesEmpty    bool // accepts a response without an access token
	deafToContext bool // waits even after its context is done
	loses         bool // does not store the result if the caller's context is done
	keepsTurn     bool // keeps the right to refresh if mint does not return
	shortens      bool // keeps a refusal for half an hour at most
	blames        bool // also keeps a refusal of the client
	takesLater    bool // replaces a saved access token with a minted one that expires later
	overSaved     bool // overwrites all fields with those of the response
	mixes         bool // does not check the owner of the record after mint
	remembers     bool // keeps the refusal of a deleted record
	sharesLease   bool // has one lease for each user and ClientID, even at several issuers
	dropsLarge    bool // does not store a response if its Extra, merged with that of the record, is too large
}

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

func (r refreshing) DeleteToken(ctx context.Context, id string) error {
	err := r.plain.DeleteToken(ctx, id)
	if err == nil && !r.remembers {
		r.turns.mu.Lock()
		defer r.turns.mu.Unlock()
		delete(r.turns.refusals, id)
	}
	return err
}

// passedOn marks an error, from mint or a kept refusal, that Refresh returns unchanged.
type passedOn struct{ error }

func (r refreshing) refresh(ctx context.Context, id string, stale tokenstore.Secret, mint mint) (token, error) {
	if id == "" || mint == nil {
		return token{}, tokenstore.ErrInvalidToken
	}
	used, err := r.FindTokenByID(ctx, id)
	if err != nil || r.fresh(used, stale) {
		return used, err
	}
	if r.sharesLease {
		return r.shared(ctx, stale, used, mint)
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
		gone := true
		defer func() {
			if !gone || !r.keepsTurn {
				<-turn
			}
		}()
		t, err := r.inTurn(ctx, id, stale, used, mint)
		gone = false
		return t, err
	}
	return r.inTurn(ctx, id, stale, used, mint)
}

// shared refreshes one record of each user and ClientID at a time. Waiters and later callers get
// the result of the first successful call.
func (r refreshing) shared(ctx context.Context, stale tokenstore.Secret, used token, mint mint) (token, error) {
	who := used.UserName + " " + used.ClientID
	turn := r.turns.of(who)
	turn <- struct{}{}
	defer func() { <-turn }()
	r.turns.mu.Lock()
	got, done := r.turns.results[who]
	r.turns.mu.Unlock()
	if done {
		return got, nil
	}
	got, err := r.inTurn(ctx, used.ID, stale, used, mint)
	if err == nil {
		r.turns.mu.Lock()
		defer r.turns.mu.Unlock()
		r.turns.results[who] = got
	}
	return got, err
}

// inTurn refreshes the record with the given ID. The caller must have the right to refresh that
// record, unless flaws.noTurns is set.
func (r refreshing) inTurn(ctx context.Context, id string, stale tokenstore.Secret, used token, mint mint) (token, error) {
	var err error
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
	return r.store(ctx, stale, used, brought, mint)
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
	if kept, ok := errors.AsType[*tokenstore.RefreshError](err); ok && (r.blames || !kept.Client && !strings.HasPrefix(kept.Code, "invalid_client")) {
		r.turns.mu.Lock()
		defer r.turns.mu.Unlock()
		wait := kept.RetryAfter
		if r.shortens {
			wait = min(wait, 30*time.Minute)
		}
		r.turns.refusals[id] = refusal{kept, used, time.Now().Add(wait)}
	}
	if r.swallows {
		return errors.New("refresh failed")
	}
	return passedOn{err}
}

func (r refreshing) store(ctx context.Context, stale tokenstore.Secret, used, brought token, mint mint) (token, error) {
	if r.renames {
		used.UserName = brought.UserName
	}
	brought.ID, brought.UserName, brought.ClientID, brought.Issuer, brought.Resource = "", "", "", "", ""
	r.mu.Lock()
	t, err := r.stored(stale, used, brought)
	r.mu.Unlock()
	if errors.Is(err, errAgain) {
		return r.inTurn(ctx, used.ID, stale, t, mint)
	}
	return t, err
}

// errAgain means that mint must be called again with the current record.
var errAgain = errors.New("again")

// stored stores brought, the token that mint returned. The caller must hold r.mu.
func (r refreshing) stored(stale tokenstore.Secret, used, brought token) (token, error) {
	now := r.rows[used.ID]
	if now == nil && !r.resurrects {
		return tokenstore.Merge(used, brought), fmt.Errorf("%w: deleted", tokenstore.ErrNotPersisted)
	}
	if now == nil || r.overwrites || r.renames {
		return r.put(now, tokenstore.Merge(used, brought)), nil
	}
	plan := tokenstore.PlanRefresh(used, now.token, brought, stale, time.Now())
	if r.dropsLarge && len(tokenstore.Merge(now.token, brought).Extra) > maxExtra {
		return now.token, tokenstore.ErrTooLarge
	}
	if size(plan.Token) > 64<<10 {
		return plan.Token, fmt.Errorf("%w: %w", tokenstore.ErrNotPersisted, tokenstore.ErrTooLarge)
	}
	same := now.RefreshToken == used.RefreshToken && now.GrantToken == used.GrantToken
	switch {
	case r.overRefresh, r.overSaved && same, r.mixes && same:
		return r.put(now, tokenstore.Merge(now.token, brought)), nil
	case r.takesLater && same && brought.ExpiresAt.After(now.ExpiresAt):
		return r.put(now, tokenstore.Merge(now.token, brought)), nil
	case r.replaces:
		brought.ID, brought.UserName, brought.ClientID = used.ID, used.UserName, used.ClientID
		return r.put(now, brought), nil
	case plan.Again:
		return plan.Token, errAgain
	}
	return r.put(now, plan.Token), nil
}

// refresher returns a backend of refreshing stores with the flaws f.
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
	{"one lease for the records of a user at all issuers", "a lock named after the user", "TS-44", refresher(flaws{sharesLease: true})},
	{"loses a token whose other members do not fit", "", "TS-46", refresher(flaws{dropsLarge: true})},
	{"mints whenever it is asked", "AgentCore's force_authentication", "TS-35", refresher(flaws{alwaysMints: true})},
	{"lets everybody mint", "the Zoho SDKs: 20 threads, 20 refreshes", "TS-36", refresher(flaws{noTurns: true})},
	{"locks in its process only", "ContextForge #6353", "TS-36", refresher(flaws{localTurns: true, neverLooks: true})},
	{"does not look again when it is its turn", "", "TS-36", refresher(flaws{neverLooks: true})},
	{"erases what the answer leaves out", "apify/mcpc #373", "TS-37", refresher(flaws{replaces: true})},
	{"takes the user from the answer", "", "TS-37", refresher(flaws{renames: true})},
	{"stores what came with an error", "schmorrison/Zoho #9", "TS-38", refresher(flaws{storesFailure: true})},
	{"asks again at once after a refusal", "refresh loops that burn the limit", "TS-38", refresher(flaws{forgets: true})},
	{"gives its turn back only if mint returns", "", "TS-36", refresher(flaws{keepsTurn: true})},
	{"asks after half an hour whatever the server has said", "LangAlpha #379", "TS-38", refresher(flaws{shortens: true})},
	{"keeps a refusal of the client", "a corrected redirect URL that helps half an hour later", "TS-38", refresher(flaws{blames: true})},
	{"takes a credential for dead for ever", "better-ccflare #407", "TS-38", refresher(flaws{grudges: true})},
	{"keeps the refusal of a deleted record", "", "TS-38", refresher(flaws{remembers: true})},
	{"returns an error of its own", "the Zoho SDKs drop error_description", "TS-38", refresher(flaws{swallows: true})},
	{"brings back what was deleted", "Gitlawb/zero #668", "TS-39", refresher(flaws{resurrects: true})},
	{"writes over what was saved meanwhile", "Put after Get", "TS-40", refresher(flaws{overwrites: true})},
	{"takes what it got for an old refresh token", "", "TS-40", refresher(flaws{overRefresh: true})},
	{"replaces what was saved by what expires later", "", "TS-40", refresher(flaws{takesLater: true})},
	{"replaces what was saved by what mint was called with", "", "TS-40", refresher(flaws{overSaved: true})},
	{"stores one user's token in another's record", "", "TS-40", refresher(flaws{mixes: true})},
	{"stores an empty answer", "schmorrison/Zoho #22", "TS-41", refresher(flaws{takesEmpty: true})},
	{"waits whatever becomes of the context", "", "TS-42", refresher(flaws{deafToContext: true})},
	{"loses what it brought for a caller who has gone", "n8n, Composio", "TS-42", refresher(flaws{loses: true})},
}
