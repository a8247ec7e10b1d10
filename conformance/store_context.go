package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

var contextCasesOfStore = []testCase[*storeEnv]{
	{"TS-29", "a method called with a context that is done changes nothing", func(e *storeEnv) {
		s := e.open()
		record := e.save(s, e.of("ann", "c1"))
		canceled, cancel := context.WithCancel(e.ctx)
		cancel()
		late, cancel := context.WithDeadline(e.ctx, deadline())
		defer cancel()
		for _, ctx := range []context.Context{canceled, late} {
			for _, c := range operations(s, record, e.of("bob", "c1")) {
				e.promptly(c.op, func() { e.wants(c.op+" with a context that is done", c.do(ctx), ctx.Err()) })
			}
		}
		e.keeps(s, record)
	}},
	{"TS-29", "a method returns the error of a context that is done in the middle", func(e *storeEnv) {
		s := e.open()
		n := len(operations(s, token{}, token{}))
		for i := range n {
			record := e.save(s, e.of("ann", "c1"))
			e.fuses(func(ctx context.Context) {
				c := operations(s, record, e.of("bob", "c1"))[i]
				e.promptly(c.op, func() {
					if err := c.do(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, tokenstore.ErrNotFound) {
						e.Errorf("%s whose context was canceled returned error %v, want %q", c.op, err, context.Canceled)
					}
				})
			})
		}
	}},
	{"TS-29", "an interrupted save has its whole effect or none", func(e *storeEnv) {
		s := e.open()
		i := 0
		e.fuses(func(ctx context.Context) {
			i++
			user := fmt.Sprintf("user %d", i)
			before := e.save(s, e.of(user, "c1"))
			t := e.of(user, "c1")
			_, _ = s.SaveToken(ctx, t)
			e.lags(e.b.ReadLag)
			got, err := s.FindToken(e.ctx, token{UserName: user, ClientID: "c1"})
			if err != nil {
				e.Fatalf("FindToken after an interrupted save: %v", err)
			}
			t.ID = before.ID
			if got != before && got != t {
				e.Errorf("after an interrupted save: %v", differ("FindToken", got, t))
			}
			if err := differ("SaveToken after an interrupted save", e.save(s, t), t); err != nil {
				e.Errorf("%v", err)
			}
			e.finds(s, "refresh token", token{ClientID: "c1", RefreshToken: t.RefreshToken}, t)
			e.finds(s, "access token", token{AccessToken: t.AccessToken}, t)
		})
	}},
	{"TS-20", "an interrupted promotion can be repeated", func(e *storeEnv) {
		s := e.open()
		i := 0
		e.fuses(func(ctx context.Context) {
			i++
			user := fmt.Sprintf("user %d", i)
			code := e.consent(s)
			want := e.answer(s, code, hour(2))
			if i%2 == 0 {
				e.save(s, e.of(user, "c1"))
			}
			_, err := s.SaveToken(ctx, token{ID: code.ID, UserName: user})
			if e.b.ForeignFormat {
				e.lags(e.b.ReadLag)
				_, gone := s.FindTokenByID(e.ctx, code.ID)
				if err == nil || errors.Is(gone, tokenstore.ErrNotFound) {
					return // the save succeeded, so a search by code.ID may find no record
				}
			}
			// Another process completes the interrupted save.
			got := e.save(e.reopen(s), token{ID: code.ID, UserName: user})
			want.ID, want.UserName, want.APIDomain = got.ID, user, got.APIDomain
			if err := differ("SaveToken after an interrupted promotion", got, want); err != nil {
				e.Errorf("%v", err)
			}
			e.finds(s, "user and client", token{UserName: user, ClientID: "c1"}, want)
			if !e.b.ForeignFormat {
				e.hasBy(s, code.ID, want)
			}
			e.after(e.lag(token{}), func() error {
				all, err := s.GetTokens(e.ctx)
				if err == nil && len(all) != i {
					err = fmt.Errorf("GetTokens returned %d tokens after %d users", len(all), i)
				}
				return err
			})
		})
	}},
	{"TS-30", "every error is an *Error and has a class", func(e *storeEnv) {
		// In all cases, the type watched checks the form of errors. This case causes errors of
		// several kinds.
		s := e.open()
		ann := e.save(s, e.of("ann", "c1"))
		e.save(s, token{UserName: "bob", AccessToken: ann.AccessToken})
		canceled, cancel := context.WithCancel(e.ctx)
		cancel()
		e.search()
		for class, err := range map[error]error{
			tokenstore.ErrNotFound:     second(s.FindTokenByID(e.ctx, "no such ID")),
			tokenstore.ErrAmbiguous:    second(s.FindToken(e.ctx, token{AccessToken: ann.AccessToken})),
			tokenstore.ErrIDMismatch:   second(s.SaveToken(e.ctx, token{ID: ann.ID, UserName: "bob"})),
			tokenstore.ErrInvalidToken: second(s.SaveToken(e.ctx, token{UserName: "\xff", AccessToken: e.secret()})),
			tokenstore.ErrTooLarge:     second(s.SaveToken(e.ctx, token{UserName: "cid", AccessToken: e.long(40 << 10)})),
			context.Canceled:           second(s.SaveToken(canceled, e.of("cid", "c1"))),
		} {
			e.wants("the operation", err, class)
			as, ok := errors.AsType[*tokenstore.Error](err)
			if !ok {
				e.Errorf("%v is a %T, not a *tokenstore.Error", err, err)
			} else if as.Op == "" || as.Store == "" || as.Err == nil {
				e.Errorf("the error %v has operation %q, store %q and cause %v, want all of them", err, as.Op, as.Store, as.Err)
			}
		}
	}},
}

// operations returns calls of all methods of tokenstore.TokenStore that read or change record.
// One call of SaveToken saves t, and another saves the access token of t in record.
func operations(s *watched, record, t token) []call {
	return []call{
		{"FindToken by ID", func(ctx context.Context) error { return second(s.FindToken(ctx, token{ID: record.ID})) }},
		{"FindToken by user", func(ctx context.Context) error { return second(s.FindToken(ctx, token{UserName: record.UserName})) }},
		{"FindToken by access token", func(ctx context.Context) error {
			return second(s.FindToken(ctx, token{AccessToken: record.AccessToken}))
		}},
		{"FindToken by refresh token", func(ctx context.Context) error {
			return second(s.FindToken(ctx, token{ClientID: record.ClientID, RefreshToken: record.RefreshToken}))
		}},
		{"FindTokenByID", func(ctx context.Context) error { return second(s.FindTokenByID(ctx, record.ID)) }},
		{"SaveToken", func(ctx context.Context) error { return second(s.SaveToken(ctx, t)) }},
		{"SaveToken of a record that exists", func(ctx context.Context) error {
			return second(s.SaveToken(ctx, token{ID: record.ID, AccessToken: t.AccessToken}))
		}},
		{"DeleteToken", func(ctx context.Context) error { return s.DeleteToken(ctx, record.ID) }},
		{"GetTokens", func(ctx context.Context) error { _, err := s.GetTokens(ctx); return err }},
		{"DeleteTokens", func(ctx context.Context) error { return s.DeleteTokens(ctx) }},
	}
}
