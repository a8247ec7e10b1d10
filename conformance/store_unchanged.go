package conformance

import (
	"context"
	"errors"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// deleteIfUnchanged calls the method DeleteIfUnchanged of s. If s does not have the method,
// deleteIfUnchanged skips the case.
func (e *storeEnv) deleteIfUnchanged(ctx context.Context, s *watched, t token) error {
	e.TB.Helper()
	c, ok := s.TokenStore.(interface {
		DeleteIfUnchanged(ctx context.Context, t token) error
	})
	if !ok {
		e.TB.Skipf("%T has no DeleteIfUnchanged", s.TokenStore)
	}
	return e.checked("DeleteIfUnchanged", c.DeleteIfUnchanged(ctx, t))
}

var unchangedCases = []testCase[*storeEnv]{
	{"TS-43", "a record that is as it was read is removed", func(e *storeEnv) {
		s := e.open()
		kept := e.save(s, e.of("bob", "c1"))
		for _, t := range []token{e.of("ann", "c1"), {ClientID: "c1", RefreshToken: e.secret()}, {ID: e.own(0), ClientID: "c1", RefreshToken: e.secret()}} {
			record := e.save(s, t)
			e.search()
			other := e.reopen(s)
			for range 2 { // in the second iteration, no record exists
				if err := e.deleteIfUnchanged(e.ctx, other, record); err != nil {
					e.Errorf("DeleteIfUnchanged: %v", err)
				}
			}
			e.search()
			e.lacks(s, record.ID)
		}
		e.keeps(s, kept)
	}},
	{"TS-43", "a record that differs in one field stays", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		e.search()
		for what, change := range map[string]func(*token){
			"access token":  func(t *token) { t.AccessToken = e.secret() },
			"refresh token": func(t *token) { t.RefreshToken = e.secret() },
			"client secret": func(t *token) { t.ClientSecret = e.secret() },
			"expiry":        func(t *token) { t.ExpiresAt = hour(7) },
			"API domain":    func(t *token) { t.APIDomain = "https://other.example" },
			"redirect URL":  func(t *token) { t.RedirectURL = "https://other.example/back" },
			"user":          func(t *token) { t.UserName = "bob" },
		} {
			read := record
			change(&read)
			if err := e.deleteIfUnchanged(e.ctx, s, read); !errors.Is(err, tokenstore.ErrConflict) {
				e.Errorf("DeleteIfUnchanged with another %s: %v, want ErrConflict", what, err)
			}
		}
		e.keeps(s, record)
	}},
	{"TS-43", "a save that runs meanwhile is not lost", func(e *storeEnv) {
		s := e.open()
		other := e.reopen(s)
		for range 12 {
			record := e.save(s, e.of("ann", "c1"))
			e.search()
			late := e.of("ann", "c1")
			together(2, func(j int) {
				if j == 1 {
					if err := e.deleteIfUnchanged(e.ctx, other, record); err != nil && !errors.Is(err, tokenstore.ErrConflict) {
						e.Errorf("DeleteIfUnchanged: %v", err)
					}
					return
				}
				if _, err := s.SaveToken(e.ctx, late); err != nil {
					e.Errorf("SaveToken: %v", err)
				}
			})
			e.lags(e.b.ReadLag)
			got, err := e.reopen(s).FindToken(e.ctx, token{UserName: "ann", ClientID: "c1"})
			if err != nil || got.AccessToken != late.AccessToken {
				e.Fatalf("what was saved is not found: %v", err)
			}
		}
	}},
}
