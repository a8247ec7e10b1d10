package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A mint is a function that Refresh calls to get a new token.
type mint = func(context.Context, token) (token, error)

// refresher returns s as a tokenstore.Refresher. If s does not implement that interface,
// refresher skips the case.
func (e *storeEnv) refresher(s *watched) tokenstore.Refresher {
	e.TB.Helper()
	r, ok := s.TokenStore.(tokenstore.Refresher)
	if !ok {
		e.TB.Skipf("%T is not a tokenstore.Refresher", s.TokenStore)
	}
	return r
}

// expired saves a record whose access token has expired.
func (e *storeEnv) expired(s *watched) token {
	e.TB.Helper()
	t := e.of("ann", "c1")
	t.ExpiresAt = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	return e.save(s, t)
}

// minted returns a token that has only a new access token and an expiry time.
func (e *storeEnv) minted() token {
	return token{AccessToken: e.secret(), ExpiresAt: hour(2)}
}

// never is a mint that fails the case if it is called.
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
	{"TS-36", "a mint that does not return blocks no other process", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		other := e.refresher(e.reopen(s))
		t := e.expired(s)
		e.lags(e.b.ReadLag)
		for what, end := range map[string]func(){"panics": func() { panic("mint") }, "ends its goroutine": runtime.Goexit} {
			var ended sync.WaitGroup
			ended.Go(func() {
				defer func() { _ = recover() }()
				_, _ = r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
					end()
					return e.minted(), nil
				})
				e.Errorf("Refresh returned though mint %s", what)
			})
			ended.Wait()
			e.lags(e.b.ReadLag) // a stale read may still show the right to mint that was released
			want := tokenstore.Merge(t, e.minted())
			if !e.promptly("Refresh after a mint that "+what, func() {
				if _, err := other.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return want, nil }); err != nil {
					e.Errorf("Refresh after a mint that %s: %v", what, err)
				}
			}) {
				return
			}
			e.has(s, want)
			t = want
			e.lags(e.b.ReadLag)
		}
	}},
	{"TS-36", "records are refreshed at the same time", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		another := e.of("bob", "c1")
		another.ExpiresAt = t.ExpiresAt
		another = e.save(s, another)
		e.lags(e.b.ReadLag)
		want := tokenstore.Merge(t, e.minted())
		if _, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			e.refreshes(e.reopen(s), another)
			return want, nil
		}); err != nil {
			e.Errorf("Refresh: %v", err)
		}
		e.has(s, want)
	}},
	{"TS-37", "fields that mint leaves empty stay, and so does the owner", func(e *storeEnv) {
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
	{"TS-37", "a result that is too large is returned", func(e *storeEnv) {
		brought, ok := e.large()
		if !ok {
			e.TB.Skipf("every record fits")
		}
		brought.ExpiresAt = hour(2)
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return brought, nil })
		if !errors.Is(err, tokenstore.ErrNotPersisted) || got.AccessToken != brought.AccessToken {
			e.Errorf("Refresh with a result that is too large returned %d bytes of an access token and error %v, want ErrNotPersisted", len(got.AccessToken), err)
		}
		e.has(e.reopen(s), t)
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
		for _, h := range []*watched{other, s} {
			if _, err := e.refresher(h).Refresh(e.ctx, t.ID, t.AccessToken, e.never); !isRefusal(err, "invalid_grant", true) {
				e.Errorf("Refresh after that returned %v, want the refusal that is kept", err)
			}
			e.forward(s, 24*time.Hour)
		}
		e.has(s, t)
		// The refusal must not apply to another refresh token.
		t = e.save(s, token{ID: t.ID, RefreshToken: e.secret()})
		e.lags(e.b.ReadLag)
		e.refreshes(other, t)
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
		if !e.forward(s, 4*time.Minute) {
			return
		}
		if _, err := e.refresher(e.reopen(s)).Refresh(e.ctx, t.ID, t.AccessToken, e.never); !isRefusal(err, "slow_down", false) {
			e.Errorf("Refresh four minutes after returned %v, want the refusal that is kept", err)
		}
		e.forward(s, 2*time.Minute)
		e.refreshes(e.reopen(s), t)
	}},
	{"TS-38", "a refusal for hours is kept for hours", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		const long = 50 * time.Hour
		_, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			return token{}, &tokenstore.RefreshError{Code: "slow_down", RetryAfter: long}
		})
		if !isRefusal(err, "slow_down", false) {
			e.Errorf("Refresh returned %v, want mint's refusal", err)
		}
		e.lags(e.b.ReadLag)
		_, err = e.refresher(e.reopen(s)).Refresh(e.ctx, t.ID, t.AccessToken, e.never)
		refusal, _ := errors.AsType[*tokenstore.RefreshError](err)
		if !isRefusal(err, "slow_down", false) || refusal.RetryAfter < long/2 || refusal.RetryAfter > long {
			e.Errorf("Refresh soon after returned %v, want the refusal that is kept, for %v", err, long)
		}
	}},
	{"TS-38", "a refusal of the client is not kept", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		for _, refused := range []tokenstore.RefreshError{
			{Code: "redirect_uri_mismatch", RetryAfter: 5 * time.Minute, Client: true},
			{Code: "invalid_client", Permanent: true},
		} {
			_, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return token{}, &refused })
			if !isRefusal(err, refused.Code, refused.Permanent) {
				e.Errorf("Refresh returned %v, want mint's refusal", err)
			}
			e.lags(e.b.ReadLag)
			t = e.refreshes(e.reopen(s), t)
			e.lags(e.b.ReadLag)
		}
	}},
	{"TS-38", "a refusal is deleted with its record", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.of("ann", "c1")
		t.ID, t.ExpiresAt = e.own(0), time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		e.save(s, t)
		e.search()
		refused := func(context.Context, token) (token, error) {
			return token{}, &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}
		}
		if _, err := r.Refresh(e.ctx, t.ID, t.AccessToken, refused); !isRefusal(err, "invalid_grant", true) {
			e.Errorf("Refresh returned %v, want mint's refusal", err)
		}
		other := e.reopen(s)
		e.remove(other, t.ID)
		e.search() // before the lags pass, a search by the ID might find the deleted record
		e.save(other, t)
		e.search()
		e.refreshes(s, t)
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
		want := tokenstore.Merge(tokenstore.Merge(t, token{RedirectURL: "https://moved.example/back", APIDomain: "https://moved.example"}), brought)
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			e.save(other, token{ID: t.ID, APIDomain: "https://moved.example"})
			e.save(s, e.of("bob", "c1"))
			e.lags(e.b.ReadLag)
			e.save(s, token{ID: t.ID, RedirectURL: "https://moved.example/back"})
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
	{"TS-40", "a refresh token that is saved meanwhile is used", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		other := e.reopen(s)
		e.lags(e.b.ReadLag)
		saved := token{ID: t.ID, RefreshToken: e.secret()}
		old, brought := e.minted(), e.minted()
		want := tokenstore.Merge(tokenstore.Merge(t, saved), brought)
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(_ context.Context, used token) (token, error) {
			if used.RefreshToken == saved.RefreshToken {
				return brought, nil
			}
			e.save(other, saved)
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
	{"TS-40", "an access token that is saved meanwhile stays, beside a new refresh token", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		other := e.reopen(s)
		for _, rotates := range []bool{false, true} {
			t := e.expired(s)
			e.lags(e.b.ReadLag)
			saved := token{ID: t.ID, AccessToken: e.secret(), ExpiresAt: hour(1)}
			brought := e.minted() // expires later than the token in saved
			want := tokenstore.Merge(t, saved)
			if rotates {
				brought.RefreshToken = e.secret()
				want.RefreshToken = brought.RefreshToken
			}
			got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
				e.save(other, saved)
				return brought, nil
			})
			if err != nil {
				e.Fatalf("Refresh: %v", err)
			}
			if err := differ("Refresh", got, want); err != nil {
				e.Errorf("%v", err)
			}
			e.has(s, want)
		}
	}},
	{"TS-40", "an access token that is saved meanwhile and has expired does not stay", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		other := e.reopen(s)
		e.lags(e.b.ReadLag)
		brought := e.minted()
		want := tokenstore.Merge(t, brought)
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
			e.save(other, token{ID: t.ID, AccessToken: e.secret(), ExpiresAt: time.Now().Add(-time.Minute)})
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
	{"TS-40", "what is saved meanwhile stays though mint returns what was there before", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		other := e.reopen(s)
		e.lags(e.b.ReadLag)
		saved := token{ID: t.ID, ClientSecret: e.secret(), GrantToken: e.secret(), APIDomain: "https://moved.example", RedirectURL: "https://moved.example/back"}
		brought := e.minted()
		want := tokenstore.Merge(tokenstore.Merge(t, saved), brought)
		got, err := r.Refresh(e.ctx, t.ID, t.AccessToken, func(_ context.Context, used token) (token, error) {
			e.save(other, saved)
			return tokenstore.Merge(used, brought), nil
		})
		if err != nil {
			e.Fatalf("Refresh: %v", err)
		}
		if err := differ("Refresh", got, want); err != nil {
			e.Errorf("%v", err)
		}
		e.has(s, want)
	}},
	{"TS-40", "an ID that meanwhile names another user's record", func(e *storeEnv) {
		for i, who := range []struct{ before, after token }{
			{token{UserName: "ann", ClientID: "c1"}, token{UserName: "bob", ClientID: "c1"}},
			{token{UserName: "ann", ClientID: "c1"}, token{UserName: "ann", ClientID: "c2"}},
			{token{UserName: "ann"}, token{UserName: "bob"}},
			{token{ClientID: "c1"}, token{UserName: "bob", ClientID: "c1"}},
			{token{ClientID: "c1"}, token{ClientID: "c1"}},
		} {
			e.replacedBy(e.own(i), who.before, who.after)
		}
	}},
	{"TS-41", "input that cannot be refreshed is refused", func(e *storeEnv) {
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
	{"TS-42", "a waiter does not wait longer than its context", func(e *storeEnv) {
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
	{"TS-42", "a caller whose context ends does not end the refresh of the others", func(e *storeEnv) {
		s := e.open()
		r := e.refresher(s)
		t := e.expired(s)
		e.lags(e.b.ReadLag)
		minting := make(chan struct{})
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := r.Refresh(ctx, t.ID, t.AccessToken, func(ctx context.Context, _ token) (token, error) {
				close(minting)
				<-ctx.Done()
				return token{}, ctx.Err()
			}); !errors.Is(err, context.Canceled) {
				e.Errorf("Refresh whose context was canceled returned %v", err)
			}
		})
		select {
		case <-minting:
		case <-e.ctx.Done():
			e.Fatalf("mint is not called")
		}
		want := tokenstore.Merge(t, e.minted())
		var calls atomic.Int64
		for _, waiter := range []tokenstore.Refresher{r, e.refresher(e.reopen(s))} {
			all.Go(func() {
				got, err := waiter.Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) {
					calls.Add(1)
					return want, nil
				})
				if err != nil || got.AccessToken != want.AccessToken {
					e.Errorf("Refresh of a caller that stays: %v", err)
				}
			})
		}
		cancel()
		all.Wait()
		if n := calls.Load(); n != 1 {
			e.Errorf("%d calls of mint by those that stay, want 1", n)
		}
		e.has(s, want)
	}},
	{"TS-42", "the result of mint is stored even if no caller waits for it", func(e *storeEnv) {
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

// refreshes checks that a refresh of t stores the new token, and returns the new record.
func (e *storeEnv) refreshes(s *watched, t token) token {
	e.TB.Helper()
	want := tokenstore.Merge(t, e.minted())
	if _, err := e.refresher(s).Refresh(e.ctx, t.ID, t.AccessToken, func(context.Context, token) (token, error) { return want, nil }); err != nil {
		e.Errorf("Refresh: %v", err)
	}
	e.has(s, want)
	return want
}

// forward advances the clock of the store by d. If Store.Forward is nil, forward returns false.
func (e *storeEnv) forward(s *watched, d time.Duration) bool {
	e.TB.Helper()
	if e.b.Forward != nil {
		e.b.Forward(e.TB, s.TokenStore, d)
	}
	return e.b.Forward != nil
}

// replacedBy saves a first record, described by before, and refreshes the record. The mint deletes
// the first record, and saves a second record, described by after, with the same ID. Neither record
// has a refresh or grant token. replacedBy checks that the second record does not get the token
// for the first record.
func (e *storeEnv) replacedBy(id string, before, after token) {
	e.TB.Helper()
	s := e.open()
	r := e.refresher(s)
	other := e.reopen(s)
	before.ID, after.ID = id, id
	before.AccessToken, after.AccessToken = e.secret(), e.secret()
	before.ExpiresAt = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	after.ExpiresAt = before.ExpiresAt
	e.save(s, before)
	e.search()
	brought := map[tokenstore.Secret]token{before.AccessToken: e.minted(), after.AccessToken: e.minted()}
	got, err := r.Refresh(e.ctx, id, before.AccessToken, func(_ context.Context, used token) (token, error) {
		if used.AccessToken == before.AccessToken {
			e.remove(other, id)
			e.search() // before the lags pass, a search by the ID might find the removed record
			after = e.save(other, after)
		}
		return brought[used.AccessToken], nil
	})
	refreshed := tokenstore.Merge(after, brought[after.AccessToken])
	switch {
	case errors.Is(err, tokenstore.ErrNotPersisted):
		if got.UserName != before.UserName || got.AccessToken != brought[before.AccessToken].AccessToken {
			e.Errorf("Refresh of a record whose ID is another's by now returned another's token with ErrNotPersisted")
		}
	case err == nil && got.AccessToken != refreshed.AccessToken && got.AccessToken != after.AccessToken:
		e.Errorf("Refresh of a record whose ID is another's by now returned a token of user %q that is not that user's", got.UserName)
	case err != nil && !errors.Is(err, tokenstore.ErrNotFound):
		e.Errorf("Refresh of a record whose ID is another's by now: %v", err)
	}
	e.after(e.lag(token{ID: id}), func() error {
		now, err := s.FindTokenByID(e.ctx, id)
		if err != nil {
			return fmt.Errorf("FindTokenByID of the other record: %w", err)
		}
		if now.AccessToken == refreshed.AccessToken {
			return differ("the other record", now, refreshed)
		}
		return differ("the other record", now, after)
	})
	e.remove(s, id)
	e.lacks(s, id)
}

// isRefusal reports whether err contains a RefreshError with the given Code and Permanent.
func isRefusal(err error, code string, permanent bool) bool {
	r, ok := errors.AsType[*tokenstore.RefreshError](err)
	return ok && r.Code == code && r.Permanent == permanent
}

// get returns the record with the given ID. If FindTokenByID fails, get ends the case.
func (e *storeEnv) get(s *watched, id string) token {
	e.TB.Helper()
	t, err := s.FindTokenByID(e.ctx, id)
	if err != nil {
		e.Fatalf("FindTokenByID(%q): %v", id, err)
	}
	return t
}
