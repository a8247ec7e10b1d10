package conformance

import (
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// keys returns tokens by which FindToken finds record. The parameter earlier holds earlier states
// of the record.
func keys(record token, earlier ...token) map[string]token {
	by := map[string]token{
		"ID":            {ID: record.ID},
		"user":          {UserName: record.UserName},
		"user, client":  {UserName: record.UserName, ClientID: record.ClientID},
		"access token":  {AccessToken: record.AccessToken},
		"refresh token": {ClientID: record.ClientID, RefreshToken: record.RefreshToken},
		"grant token":   {ClientID: record.ClientID, GrantToken: record.GrantToken},
	}
	for i, t := range earlier {
		by[fmt.Sprintf("earlier refresh token %d", i)] = token{ClientID: record.ClientID, RefreshToken: t.RefreshToken}
		by[fmt.Sprintf("earlier grant token %d", i)] = token{ClientID: record.ClientID, GrantToken: t.GrantToken}
	}
	for what, like := range by {
		if _, err := tokenstore.Select(like, nil); errors.Is(err, tokenstore.ErrInvalidToken) {
			delete(by, what)
		}
	}
	return by
}

func (e *storeEnv) remove(s *watched, id string) {
	e.TB.Helper()
	if err := s.DeleteToken(e.ctx, id); err != nil {
		e.Fatalf("DeleteToken(%q): %v", id, err)
	}
}

var deleteCasesOfStore = []testCase[*storeEnv]{
	{"TS-24", "no key finds a deleted record", func(e *storeEnv) {
		s := e.open()
		old := e.of("ann", "c1")
		old.GrantToken = e.secret()
		e.save(s, old)
		record := e.save(s, token{UserName: "ann", ClientID: "c1", GrantToken: e.secret(), RefreshToken: e.secret(), AccessToken: e.secret()})
		kept := e.save(s, e.of("bob", "c1"))
		e.search()
		e.remove(e.reopen(s), record.ID)
		for _, h := range []*watched{s, e.reopen(s)} {
			for what, like := range keys(record, old) {
				e.misses(h, what+" of a deleted record", like, tokenstore.ErrNotFound)
			}
			e.lacks(h, record.ID)
			e.keeps(h, kept)
		}
	}},
	{"TS-24", "a record without a user is deleted", func(e *storeEnv) {
		s := e.open()
		for _, t := range []token{{ClientID: "c1", GrantToken: e.secret(), RefreshToken: e.secret()}, {AccessToken: e.secret()}, {ID: e.own(0), ClientID: "c1", RefreshToken: e.secret()}} {
			record := e.save(s, t)
			e.search()
			e.remove(s, record.ID)
			for what, like := range keys(record) {
				e.misses(s, what+" of a deleted record", like, tokenstore.ErrNotFound)
			}
		}
		e.keeps(s)
	}},
	{"TS-24", "deleting a record that does not exist is no error", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		kept := e.save(s, e.of("bob", "c1"))
		e.remove(s, record.ID)
		for _, id := range []string{record.ID, "no such ID", "1", "u" + text(32), e.own(0)} {
			e.remove(s, id)
			e.remove(e.reopen(s), id)
		}
		e.keeps(s, kept)
	}},
	{"TS-24", "a merged record is deleted by either ID", func(e *storeEnv) {
		s := e.open()
		for i := range 2 {
			first := e.save(s, e.of("ann", "c1"))
			code := e.consent(s)
			e.answer(s, code, hour(9))
			record := e.save(s, token{ID: code.ID, UserName: "ann"})
			e.search()
			id := []string{first.ID, code.ID}[i]
			if e.b.ForeignFormat {
				id = first.ID
			}
			e.remove(s, id)
			e.lacks(s, first.ID, code.ID)
			for what, like := range keys(record, first, code) {
				e.misses(s, what+" of a deleted record", like, tokenstore.ErrNotFound)
			}
			e.keeps(s)
		}
	}},
	{"TS-24", "a deletion that fails after a stale read is not reported as done", func(e *storeEnv) {
		if e.b.Stale == nil || e.b.Lose == nil {
			e.TB.Skipf("Store.Stale or Store.Lose is nil")
		}
		s := e.open()
		old := e.save(s, e.of("ann", "c1"))
		arm := e.b.Stale(e.TB, s.TokenStore, old.ID)
		e.remove(s, old.ID)
		record := e.save(s, e.of("ann", "c1"))
		arm()
		e.b.Lose(e.TB, s.TokenStore)
		if err := s.DeleteToken(e.ctx, record.ID); err == nil {
			e.lacks(e.reopen(s), record.ID)
		}
		e.remove(s, record.ID)
		e.keeps(s)
	}},
	{"TS-25", "a deleted record does not come back", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		code := e.consent(s)
		e.answer(s, code, hour(9))
		e.save(s, token{ID: code.ID, UserName: "ann"})
		bob := e.save(s, e.of("bob", "c1"))
		e.search()
		e.remove(s, record.ID)
		for _, h := range []*watched{s, e.reopen(s)} {
			// Each of these saves would change the record if it existed, but cannot create a
			// record. If reads lag, only a write can detect that the record was deleted.
			e.refuses(h, "the ID of a deleted record", token{ID: record.ID, UserName: "ann", ClientID: "c1", APIDomain: "https://a.example"}, tokenstore.ErrNotFound)
			e.refuses(h, "the user of a deleted record", token{UserName: "ann", ClientID: "c1", APIDomain: "https://a.example"}, tokenstore.ErrNotFound)
			if !e.b.ForeignFormat {
				e.refuses(h, "the other ID of a deleted record", token{ID: code.ID, UserName: "ann", RedirectURL: "https://new.example"}, tokenstore.ErrNotFound)
			}
			bob = e.save(h, token{ID: bob.ID, AccessToken: e.secret()})
			e.lacks(h, record.ID)
			if !e.b.ForeignFormat { // a store with a foreign format may reuse an ID
				e.lacks(h, code.ID)
			}
			e.keeps(h, bob)
		}
	}},
	{"TS-25", "a record that is created again has nothing of the deleted one", func(e *storeEnv) {
		s := e.open()
		for _, t := range []token{{UserName: "ann", ClientID: "c1"}, {ClientID: "c1", RefreshToken: e.secret()}} {
			for range 3 {
				full := t
				full.ClientSecret, full.AccessToken, full.GrantToken, full.ExpiresAt = e.secret(), e.secret(), e.secret(), hour(1)
				full.RedirectURL, full.APIDomain = "https://r.example", "https://a.example"
				if full.RefreshToken == "" {
					full.RefreshToken = e.secret()
				}
				old := e.save(s, full)
				e.search()
				e.remove(s, old.ID)
				again := t
				again.AccessToken = e.secret()
				got := e.save(e.reopen(s), again)
				again.ID = got.ID
				if err := differ("SaveToken after DeleteToken", got, again); err != nil {
					e.Errorf("%v", err)
				}
				e.has(s, again)
				e.misses(s, "the access token of the deleted record", token{AccessToken: old.AccessToken}, tokenstore.ErrNotFound)
				e.keeps(s, again)
				e.search()
				e.remove(s, again.ID)
			}
		}
	}},
	{"TS-25", "a deletion wins over saves that cannot create", func(e *storeEnv) {
		s := e.open()
		other := e.reopen(s)
		for i := range 12 {
			record := e.save(s, e.of("ann", "c1"))
			together(3, func(j int) {
				var err error
				switch j {
				case 0:
					err = s.DeleteToken(e.ctx, record.ID)
				case 1:
					_, err = other.SaveToken(e.ctx, token{UserName: "ann", ClientID: "c1", APIDomain: fmt.Sprintf("https://%d.example", i)})
				case 2:
					_, err = other.SaveToken(e.ctx, token{ID: record.ID, RedirectURL: fmt.Sprintf("https://%d.example", i)})
				}
				if err != nil && !(j > 0 && errors.Is(err, tokenstore.ErrNotFound)) {
					e.Errorf("writer %d: %v", j, err)
				}
			})
			e.lacks(e.reopen(s), record.ID)
			e.misses(s, "user and client of a deleted record", token{UserName: "ann", ClientID: "c1"}, tokenstore.ErrNotFound)
		}
		e.keeps(s)
	}},
	{"TS-25", "a save that races with DeleteToken and SaveToken loses its base", func(e *storeEnv) {
		s := e.open()
		other := e.reopen(s)
		for i := range 12 {
			old := e.save(s, e.of("ann", "c1"))
			again := e.of("ann", "c1")
			together(2, func(j int) {
				if j == 1 {
					_, err := other.SaveToken(e.ctx, token{UserName: "ann", ClientID: "c1", APIDomain: fmt.Sprintf("https://%d.example", i)})
					if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
						e.Errorf("SaveToken: %v", err)
					}
					return
				}
				if err := s.DeleteToken(e.ctx, old.ID); err != nil {
					e.Errorf("DeleteToken: %v", err)
				}
				if _, err := s.SaveToken(e.ctx, again); err != nil {
					e.Errorf("SaveToken after DeleteToken: %v", err)
				}
			})
			e.lags(e.b.ReadLag)
			got, err := other.FindToken(e.ctx, token{UserName: "ann", ClientID: "c1"})
			if err != nil {
				e.Fatalf("FindToken of a record that was created again: %v", err)
			}
			again.ID, again.APIDomain = got.ID, got.APIDomain
			if err := differ("the record that was created again", got, again); err != nil {
				e.Errorf("%v", err)
			}
			e.remove(s, got.ID)
		}
	}},
	{"TS-25", "a deletion and a promotion at once leave the record or nothing", func(e *storeEnv) {
		s := e.open()
		other := e.reopen(s)
		for i := range 8 {
			code := e.consent(s)
			e.answer(s, code, hour(1))
			if i%2 == 1 {
				e.save(s, e.of("ann", "c1"))
			}
			e.search()
			together(2, func(j int) {
				if j == 1 {
					if err := other.DeleteToken(e.ctx, code.ID); err != nil {
						e.Errorf("DeleteToken: %v", err)
					}
					return
				}
				// If the deletion comes first, the save can fail with any of these errors.
				_, err := s.SaveToken(e.ctx, token{ID: code.ID, UserName: "ann"})
				if err != nil && !errors.Is(err, tokenstore.ErrNotFound) && !errors.Is(err, tokenstore.ErrIDMismatch) && !errors.Is(err, tokenstore.ErrInvalidToken) {
					e.Errorf("SaveToken: %v", err)
				}
			})
			e.search()
			all, err := e.reopen(s).GetTokens(e.ctx)
			if err != nil || len(all) > 1 {
				e.Fatalf("GetTokens returned %d tokens and error %v, want one or none", len(all), err)
			}
			for _, t := range all {
				e.has(s, t)
				if t.UserName != "" {
					e.finds(s, "user and client", token{UserName: t.UserName, ClientID: t.ClientID}, t)
				}
				e.remove(s, t.ID)
			}
			e.lacks(s, code.ID)
			e.misses(s, "user", token{UserName: "ann", ClientID: "c1"}, tokenstore.ErrNotFound)
			e.keeps(s)
		}
	}},
}
