package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Bench measures the operations of a store that holds a hundred records. If s.Calls is not nil,
// Bench reports the average number of requests for each operation as rpcs/op.
func Bench(b *testing.B, s Store) {
	b.Helper()
	const records = 100
	of := func(i int) token {
		return token{
			UserName: fmt.Sprintf("user %d", i), ClientID: "c1",
			RefreshToken: tokenstore.Secret(fmt.Sprintf("refresh %d", i)),
			AccessToken:  tokenstore.Secret(fmt.Sprintf("access %d", i)),
			ExpiresAt:    hour(1),
		}
	}
	type step = func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error
	for _, op := range []struct {
		name string
		do   step
	}{
		{"SaveToken/new", func(ctx context.Context, st tokenstore.TokenStore, i int, _ []token) error {
			return second(st.SaveToken(ctx, of(records+i)))
		}},
		{"SaveToken/changed", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.SaveToken(ctx, token{ID: saved[i%records].ID, AccessToken: tokenstore.Secret(fmt.Sprintf("new %d", i)), ExpiresAt: hour(2).Add(time.Duration(i) * time.Second)}))
		}},
		{"SaveToken/unchanged", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.SaveToken(ctx, saved[i%records]))
		}},
		{"FindTokenByID", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.FindTokenByID(ctx, saved[i%records].ID))
		}},
		{"FindToken/user and client", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.FindToken(ctx, token{UserName: saved[i%records].UserName, ClientID: "c1"}))
		}},
		{"FindToken/user", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.FindToken(ctx, token{UserName: saved[i%records].UserName}))
		}},
		{"FindToken/refresh token", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.FindToken(ctx, token{ClientID: "c1", RefreshToken: saved[i%records].RefreshToken}))
		}},
		{"FindToken/access token", func(ctx context.Context, st tokenstore.TokenStore, i int, saved []token) error {
			return second(st.FindToken(ctx, token{AccessToken: saved[i%records].AccessToken}))
		}},
		{"FindToken/miss", func(ctx context.Context, st tokenstore.TokenStore, i int, _ []token) error {
			_, _ = st.FindToken(ctx, token{UserName: "nobody", ClientID: "c1"})
			return ctx.Err()
		}},
		{"GetTokens", func(ctx context.Context, st tokenstore.TokenStore, _ int, _ []token) error {
			_, err := st.GetTokens(ctx)
			return err
		}},
	} {
		b.Run(op.name, func(b *testing.B) {
			st := s.Open(b)
			var saved []token
			for i := range records {
				t, err := st.SaveToken(b.Context(), of(i))
				if err != nil {
					b.Fatal(err)
				}
				saved = append(saved, t)
			}
			if s.Settle != nil {
				s.Settle(b, st)
			}
			var before int64
			if s.Calls != nil {
				before = s.Calls()
			}
			i := 0
			for b.Loop() {
				if err := op.do(b.Context(), st, i, saved); err != nil {
					b.Fatal(err)
				}
				i++
			}
			if s.Calls != nil && i > 0 {
				b.ReportMetric(float64(s.Calls()-before)/float64(i), "rpcs/op")
			}
		})
	}
}
