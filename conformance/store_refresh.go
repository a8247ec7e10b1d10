package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A mint is what Refresh calls.
type mint = func(context.Context, token) (token, error)

// refresher returns s if it can refresh.
func (e *storeEnv) refresher(s *watched) tokenstore.Refresher {
	e.TB.Helper()
	r, ok := s.TokenStore.(tokenstore.Refresher)
	if !ok {
		e.TB.Skipf("%T is not a tokenstore.Refresher", s.TokenStore)
	}
	return r
}

// expired saves a record whose access token has expired. Every secret of it has
// the mark.
func (e *storeEnv) expired(s *watched) token {
	e.TB.Helper()
	t := e.of("ann", "c1")
	t.ExpiresAt = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	return e.save(s, t)
}

// minted returns what an authorization server answers.
func (e *storeEnv) minted() token {
	return token{AccessToken: e.secret(), ExpiresAt: hour(2)}
}

// never fails the case if it is called.
func (e *storeEnv) never(context.Context, token) (token, error) {
	e.Errorf("mint is called")
	return token{}, errors.New("called")
}

var refreshCases = []testCase[*storeEnv]{
	{"TS-35", "a token that is fresh is returned", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		fresh := e.save(s, e.of("ann", "c1"))
		unknown := e.of("bob", "c1")
		unknown.ExpiresAt = time.Time{}
		unknown = e.save(s, unknown)
		for _, want := range []token{fresh, unknown} {
			got, err := r.Refresh(e.ctx, want.ID, e.secret(), e.never)
			if err != nil {
				e.Errorf("Refresh: %v", err)
			} else if err := differ("Refresh", got, want); err != nil {
				e.Errorf("%v", err)
			}
		}
	}},
	{"TS-35", "a token that is stale is not fresh, though it has not expired", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.save(s, e.of("ann", "c1"))
		want := tokenstore.Merge(t, e.minted())
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return want, nil })
		if err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		if err := differ("Refresh", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.has(s, want)
	}},
	{"TS-36", "of many that refresh at once one calls mint", func(e *storeEnv) {
		s := e.open()
		e.refresher(s)
		hs := []*watched{s}
		for range 3 {
			hs = append(hs, e.reopen(s))
		}
		t := e.expired(s)
		e.lags(e.b.ReadLag)
		brought := e.minted()
		want := tokenstore.Merge(t, brought)
		var calls atomic.Int64
		const each = 4
		together(len(hs)*each, func(i int) {
			got, err := e.refresher(hs[i%len(hs)]).Refresh(e.ctx, t.ID, t.AccessToken, func(ctx context.Context, used token) (token, error) {
				calls.Add(1)
				if err := differ("mint got", used, t); err != nil {
					e.Errorf("%v", err)
				}
				e.pause(20 * time.Millisecond)
				return brought, ctx.Err()
			})
			if err != nil {
				e.Errorf("Refresh: %v", err)
			} else if err := differ("Refresh", got, want); err != nil {
				e.Errorf("%v", err)
			}
		})
		if n := calls.Load(); n != 1 {
			e.Errorf("%d calls of mint, want 1", n)
		}
		e.has(s, want)
		got, err := e.refresher(hs[1]).Refresh(e.ctx, t.ID, t.AccessToken, e.never)
		if err != nil || got.AccessToken != want.AccessToken {
			e.Errorf("Refresh afterwards: %v", err)
		}
	}},
	{"TS-36", "of many that exchange one code one calls mint", func(e *storeEnv) {
		s := e.open()
		e.refresher(s)
		hs := []*watched{s, e.reopen(s)}
		t := e.save(s, token{ClientID: "c1", ClientSecret: e.secret(), GrantToken: e.secret()})
		e.lags(e.b.ReadLag)
		brought := e.minted()
		brought.RefreshToken = e.secret()
		var calls atomic.Int64
		together(writers, func(i int) {
			got, err := e.refresher(hs[i%2]).Refresh(e.ctx, t.ID, "", func(context.Context, token) (token, error) {
				calls.Add(1)
				return brought, nil
			})
			if err != nil || got.RefreshToken != brought.RefreshToken {
				e.Errorf("Refresh: %v", err)
			}
		})
		if n := calls.Load(); n != 1 {
			e.Errorf("%d calls of mint, want 1", n)
		}
	}},
	{"TS-37", "what mint leaves empty stays, and who the record is of", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		brought := e.minted()
		want := tokenstore.Merge(t, brought)
		brought.ID, brought.UserName, brought.ClientID = "another", "bob", "c2"
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return brought, nil })
		if err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		if err := differ("Refresh", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.has(e.reopen(s), want)
		e.keeps(s, want)
	}},
	{"TS-37", "a new refresh token replaces the old one", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		brought := e.minted()
		brought.RefreshToken = e.secret()
		if _, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return brought, nil }); err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		want := tokenstore.Merge(t, brought)
		e.has(e.reopen(s), want)
		e.finds(s, "the new refresh token", token{ClientID: "c1", RefreshToken: brought.RefreshToken}, want)
	}},
	{"TS-38", "an error of mint is passed on, and leaves the record alone", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		broken := errors.New("the line is broken")
		for range 2 {
			called := false
			_, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
				called = true
				return e.minted(), broken
			})
			if !errors.Is(err, broken) || !called {
				e.Errorf("Refresh returned %v, want mint's error", err)
			}
			if errors.Is(err, tokenstore.ErrUnavailable) {
				e.Errorf("the error of mint is taken for one of the store: %v", err)
			}
		}
		e.has(e.reopen(s), t)
	}},
	{"TS-38", "a refusal is kept for others", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		refused := func(context.Context, token) (token, error) {
			return token{}, fmt.Errorf("refresh: %w", &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true})
		}
		other := e.reopen(s)
		if _, err := r.Refresh(e.ctx, t.ID, t.AccessToken, refused); !isRefusal(err, "invalid_grant", true) {
			e.Errorf("Refresh returned %v, want mint's refusal", err)
		}
		e.lags(e.b.ReadLag)
		if _, err := e.refresher(other).Refresh(e.ctx, t.ID, t.AccessToken, e.never); !isRefusal(err, "invalid_grant", true) {
			e.Errorf("Refresh by another handle returned %v, want the refusal that is kept", err)
		}
		e.has(s, t)
		// With another credential it is worth trying.
		t = e.save(s, token{ID: t.ID, RefreshToken: e.secret()})
		e.lags(e.b.ReadLag)
		want := tokenstore.Merge(t, e.minted())
		if _, err := e.refresher(other).Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return want, nil }); err != nil {
			e.Errorf("Refresh with another refresh token: %v", err)
		}
		e.has(s, want)
	}},
	{"TS-38", "a refusal for a time is kept for that time", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		_, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			return token{}, &tokenstore.RefreshError{Code: "slow_down", RetryAfter: 5 * time.Minute}
		})
		if !isRefusal(err, "slow_down", false) {
			e.Errorf("Refresh returned %v, want mint's refusal", err)
		}
		e.lags(e.b.ReadLag)
		_, err = e.refresher(e.reopen(s)).Refresh(e.ctx, t.ID, t.AccessToken, e.never)
		refusal, _ := errors.AsType[*tokenstore.RefreshError](err)
		if !isRefusal(err, "slow_down", false) || refusal.RetryAfter <= 0 || refusal.RetryAfter > 5*time.Minute {
			e.Errorf("Refresh soon after returned %v, want the refusal that is kept", err)
		}
	}},
	{"TS-39", "a record that is deleted meanwhile stays deleted", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		other := e.reopen(s)
		e.lags(e.b.ReadLag)
		brought := e.minted()
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			e.remove(other, t.ID)
			return brought, nil
		})
		if !errors.Is(err, tokenstore.ErrNotPersisted) {
			e.Errorf("Refresh of what was deleted meanwhile returned error %v, want ErrNotPersisted", err)
		}
		if got.AccessToken != brought.AccessToken {
			e.Errorf("Refresh of what was deleted meanwhile does not return the token")
		}
		e.lacks(s, t.ID)
		e.keeps(s)
	}},
	{"TS-40", "what is saved meanwhile stays", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		other := e.reopen(s)
		e.lags(e.b.ReadLag)
		brought := e.minted()
		want := tokenstore.Merge(tokenstore.Merge(t, token{APIDomain: "https://moved.example"}), brought)
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			e.save(other, token{ID: t.ID, APIDomain: "https://moved.example"})
			return brought, nil
		})
		if err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		if err := differ("Refresh", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.has(s, want)
	}},
	{"TS-40", "a refresh token that is saved meanwhile is not replaced", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		other := e.reopen(s)
		e.lags(e.b.ReadLag)
		consent := e.minted()
		consent.ID, consent.RefreshToken = t.ID, e.secret()
		var want token
		old := e.minted()
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			want = e.save(other, consent)
			old.RefreshToken = e.secret()
			return old, nil
		})
		if err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		if err := differ("Refresh", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.has(s, want)
	}},
	{"TS-41", "what cannot be refreshed", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		for _, c := range []struct {
			what, id string
			mint     mint
			class    error
		}{
			{"an unknown ID", "u" + text(32), e.never, tokenstore.ErrNotFound},
			{"no ID", "", e.never, tokenstore.ErrInvalidToken},
			{"no function", t.ID, nil, tokenstore.ErrInvalidToken},
			{"an answer without an access token", t.ID, func(context.Context, token) (token, error) { return token{RefreshToken: e.secret()}, nil }, tokenstore.ErrInvalidToken},
		} {
			if _, err := r.Refresh(e.ctx, c.id, t.AccessToken, c.mint); !errors.Is(err, c.class) {
				e.Errorf("Refresh with %s returned error %v, want %q", c.what, err, c.class)
			}
		}
		e.has(e.reopen(s), t)
		e.keeps(s, t)
	}},
	{"TS-42", "who waits does not wait longer than its context", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		for _, waiter := range []tokenstore.Refresher{r, e.refresher(e.reopen(s))} {
			minting, done := make(chan struct{}), make(chan struct{})
			var holder sync.WaitGroup
			stale := e.get(s, t.ID).AccessToken
			holder.Go(func() {
				if _, err := r.Refresh(e.ctx, t.ID, stale, func(context.Context, token) (token, error) {
					close(minting)
					<-done
					return e.minted(), nil
				}); err != nil {
					e.Errorf("Refresh: %v", err)
				}
			})
			select {
			case <-minting:
			case <-e.ctx.Done():
				e.Fatalf("mint is not called")
			}
			ctx, cancel := context.WithCancel(e.ctx)
			e.promptly("Refresh that waits", func() {
				time.AfterFunc(20*time.Millisecond, cancel)
				if _, err := waiter.Refresh(ctx, t.ID, stale, e.never); !errors.Is(err, context.Canceled) {
					e.Errorf("Refresh whose context was canceled returned %v", err)
				}
			})
			close(done)
			holder.Wait()
		}
	}},
	{"TS-42", "what mint brought is stored though nobody waits for it", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		want := tokenstore.Merge(t, e.minted())
		ctx, cancel := context.WithCancel(e.ctx)
		_, _ = r.Refresh(ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			cancel()
			return want, nil
		})
		e.has(e.reopen(s), want)
	}},
}

// isRefusal reports whether err holds mint's refusal.
func isRefusal(err error, code string, permanent bool) bool {
	r, ok := errors.AsType[*tokenstore.RefreshError](err)
	return ok && r.Code == code && r.Permanent == permanent
}

// get returns the record with the ID.
func (e *storeEnv) get(s *watched, id string) token {
	e.TB.Helper()
	t, err := s.FindTokenByID(e.ctx, id)
	if err != nil {
		e.Fatalf("FindTokenByID(%q): %v", id, err)
	}
	return t
}
