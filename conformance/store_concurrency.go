package conformance

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// pair returns two handles on a new store.
func (e *storeEnv) pair() [2]*watched {
	s := e.open()
	return [2]*watched{s, e.reopen(s)}
}

var concurrencyCasesOfStore = []testCase[*storeEnv]{
	{"TS-18", "saves of few users at once leave one record for each", func(e *storeEnv) {
		const users, rounds = 3, 4
		hs := e.pair()
		var mu sync.Mutex
		ids := map[string]map[string]bool{}
		together(writers, func(i int) {
			for n := range rounds {
				user := fmt.Sprintf("user %d", (i+n)%users)
				t := e.of(user, "c1")
				// Each secret contains the user and the number of the save that stores the secret.
				mark := tokenstore.Secret(fmt.Sprintf("|%s|%d.%d", user, i, n))
				t.RefreshToken += mark
				t.AccessToken += mark
				got, err := hs[i%2].SaveToken(e.ctx, t)
				if err != nil {
					e.Errorf("SaveToken: %v", err)
					return
				}
				t.ID = got.ID
				if err := differ("SaveToken", got, t); err != nil {
					e.Errorf("%v", err)
				}
				mu.Lock()
				if ids[user] == nil {
					ids[user] = map[string]bool{}
				}
				ids[user][got.ID] = true
				mu.Unlock()
			}
		})
		e.unmixed(hs[1], users)
		for user, have := range ids {
			if len(have) != 1 {
				e.Errorf("the saves of %q returned %d IDs", user, len(have))
			}
		}
	}},
	{"TS-18", "first saves of one user at once leave one record", func(e *storeEnv) {
		hs := e.pair()
		for range 6 {
			t := e.of("ann", "c1")
			together(writers, func(i int) {
				if _, err := hs[i%2].SaveToken(e.ctx, t); err != nil {
					e.Errorf("SaveToken: %v", err)
				}
			})
			e.lags(e.b.ReadLag)
			got, err := hs[0].FindToken(e.ctx, token{UserName: "ann", ClientID: "c1"})
			if err != nil {
				e.Fatalf("FindToken: %v", err)
			}
			t.ID = got.ID
			e.keeps(hs[1], t)
			e.remove(hs[1], t.ID)
		}
	}},
	{"TS-18", "first saves of one token at once leave one record", func(e *storeEnv) {
		hs := e.pair()
		for _, t := range []token{{ClientID: "c1", GrantToken: e.secret()}, {ClientID: "c1", RefreshToken: e.secret()}, {AccessToken: e.secret()}} {
			var id sync.Map
			together(writers, func(i int) {
				got, err := hs[i%2].SaveToken(e.ctx, t)
				if err != nil {
					e.Errorf("SaveToken: %v", err)
				}
				id.Store(got.ID, true)
			})
			n := 0
			id.Range(func(any, any) bool { n++; return true })
			if n != 1 {
				e.Errorf("%d saves of one token returned %d IDs", writers, n)
			}
		}
		e.after(max(e.b.ReadLag, e.b.ListLag), func() error {
			all, err := hs[0].GetTokens(e.ctx)
			if err == nil && len(all) != 3 {
				err = fmt.Errorf("GetTokens returned %d tokens, want 3", len(all))
			}
			return err
		})
	}},
	{"TS-18", "saves of eleven and more users are all kept", func(e *storeEnv) {
		hs := e.pair()
		const users = 24
		together(4, func(i int) {
			for n := i; n < users; n += 4 {
				user := fmt.Sprintf("user %d", n)
				t := e.of(user, "c1")
				t.RefreshToken += tokenstore.Secret("|" + user + "|")
				t.AccessToken += tokenstore.Secret("|" + user + "|")
				if _, err := hs[i%2].SaveToken(e.ctx, t); err != nil {
					e.Errorf("SaveToken of the user %d: %v", n+1, err)
				}
			}
		})
		e.unmixed(hs[0], users)
	}},
	{"TS-19", "saves of different fields at once are all kept", func(e *storeEnv) {
		hs := e.pair()
		record := e.save(hs[0], e.all("ann"))
		for range 4 {
			parts := []token{
				{ClientSecret: e.secret()}, {RefreshToken: e.secret()}, {GrantToken: e.secret()},
				{AccessToken: e.secret(), ExpiresAt: hour(3)},
				{RedirectURL: "https://" + text(8) + ".example"}, {APIDomain: "https://" + text(8) + ".example"},
			}
			together(len(parts), func(i int) {
				t := parts[i]
				if t.ID = record.ID; i%3 == 0 {
					t.ID, t.UserName, t.ClientID = "", "ann", "c1"
				}
				if _, err := hs[i%2].SaveToken(e.ctx, t); err != nil {
					e.Errorf("SaveToken: %v", err)
				}
			})
			for _, part := range parts {
				for _, f := range contents {
					if v := *f.of(&part); v != "" {
						*f.of(&record) = v
					}
				}
			}
			record.ExpiresAt = hour(3)
			e.has(hs[0], record)
			e.has(hs[1], record)
		}
	}},
	{"TS-19", "first saves of different fields at once are all kept", func(e *storeEnv) {
		hs := e.pair()
		for i := range 6 {
			user := fmt.Sprintf("user %d", i)
			refresh := token{UserName: user, ClientID: "c1", RefreshToken: e.secret()}
			access := token{UserName: user, ClientID: "c1", AccessToken: e.secret(), ExpiresAt: hour(1)}
			together(2, func(j int) {
				if _, err := hs[j].SaveToken(e.ctx, []token{refresh, access}[j]); err != nil {
					e.Errorf("SaveToken: %v", err)
				}
			})
			e.lags(e.b.ReadLag)
			want := access
			want.RefreshToken = refresh.RefreshToken
			got, err := hs[0].FindToken(e.ctx, token{UserName: user, ClientID: "c1"})
			if err != nil {
				e.Fatalf("FindToken: %v", err)
			}
			want.ID = got.ID
			if err := differ("FindToken", got, want); err != nil {
				e.Errorf("%v", err)
			}
		}
	}},
	{"TS-33", "all methods may be called at once", func(e *storeEnv) {
		hs := e.pair()
		const users = 3
		together(writers, func(i int) {
			s := hs[i%2]
			for n := range 8 {
				user := fmt.Sprintf("user %d", (i+n)%users)
				mark := tokenstore.Secret("|" + user + "|")
				var got []token
				var t token
				var err error
				switch (i + n) % 6 {
				case 0, 1:
					t = e.of(user, "c1")
					t.RefreshToken += mark
					t.AccessToken += mark
					t, err = s.SaveToken(e.ctx, t)
				case 2:
					t, err = s.SaveToken(e.ctx, token{UserName: user, ClientID: "c1", AccessToken: e.secret() + mark, ExpiresAt: hour(n)})
				case 3:
					if t, err = s.FindToken(e.ctx, token{UserName: user, ClientID: "c1"}); err == nil && i%4 == 0 {
						err = s.DeleteToken(e.ctx, t.ID)
					}
				case 4:
					got, err = s.GetTokens(e.ctx)
				case 5:
					_, err = s.FindToken(e.ctx, token{AccessToken: e.secret()})
				}
				if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
					e.Errorf("%v", err)
				}
				for _, t := range append(got, t) {
					if err := marked(t); err != nil {
						e.Errorf("%v", err)
					}
				}
			}
		})
		for n := range users {
			e.save(hs[0], token{UserName: fmt.Sprintf("user %d", n), ClientID: "c1", AccessToken: e.secret() + tokenstore.Secret(fmt.Sprintf("|user %d|", n))})
		}
		e.unmixed(hs[1], users)
	}},
	{"TS-34", "one handle finds what another has saved", func(e *storeEnv) {
		s := e.open()
		before := e.reopen(s)
		record := e.save(s, e.all("ann"))
		after := e.reopen(s)
		for _, h := range []*watched{before, after} {
			e.has(h, record)
			e.finds(h, "user and client", token{UserName: "ann", ClientID: "c1"}, record)
			e.finds(h, "access token", token{AccessToken: record.AccessToken}, record)
			e.finds(h, "refresh token", token{ClientID: "c1", RefreshToken: record.RefreshToken}, record)
			e.finds(h, "grant token", token{ClientID: "c1", GrantToken: record.GrantToken}, record)
			e.keeps(h, record)
		}
		for _, h := range []*watched{after, before, s} {
			record.AccessToken, record.ExpiresAt = e.secret(), time.Time{}
			e.save(h, token{ID: record.ID, AccessToken: record.AccessToken})
			for _, other := range []*watched{s, before, after} {
				e.has(other, record)
				e.finds(other, "access token", token{AccessToken: record.AccessToken}, record)
			}
		}
		e.remove(before, record.ID)
		e.lacks(s, record.ID)
		e.lacks(after, record.ID)
		e.keeps(after)
	}},
}

// unmixed checks that each of the users has exactly one record, and that the secrets of the
// record contain the mark of the user.
func (e *storeEnv) unmixed(s *watched, users int) {
	e.TB.Helper()
	e.after(max(e.b.ReadLag, e.b.ListLag), func() error {
		all, err := s.GetTokens(e.ctx)
		if err != nil {
			return fmt.Errorf("GetTokens: %w", err)
		}
		seen := map[string]bool{}
		for _, t := range all {
			if seen[t.UserName] {
				return fmt.Errorf("two records are of %q", t.UserName)
			}
			seen[t.UserName] = true
			if err := marked(t); err != nil {
				return err
			}
		}
		if len(seen) != users {
			return fmt.Errorf("there are records of %d users, want %d", len(seen), users)
		}
		return nil
	})
}

// marked returns an error if a secret of t lacks the mark of t's user.
func marked(t token) error {
	for _, secret := range []tokenstore.Secret{t.RefreshToken, t.AccessToken} {
		if secret != "" && !strings.Contains(string(secret), "|"+t.UserName+"|") {
			return fmt.Errorf("the record of %q has a token of another user: %q", t.UserName, string(secret))
		}
	}
	return nil
}
