package initializer_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// freshClient returns a Client with the real clock and a token that expires in an hour.
func freshClient(tb testing.TB) *initializer.Client {
	tb.Helper()
	c, err := initializer.New(context.Background(), initializer.Config{
		Environment: initializer.EU.Production(),
		Store:       memstore.New(nil),
		Token:       tokenstore.Token{AccessToken: "token", ExpiresAt: time.Now().Add(time.Hour)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestTokenAllocations(t *testing.T) { // not parallel: AllocsPerRun counts the allocations of all goroutines
	c := freshClient(t)
	ctx := context.Background()
	source := c.TokenSource(ctx)
	for name, get := range map[string]func() error{
		"Token":       func() error { _, err := c.Token(ctx); return err },
		"TokenSource": func() error { _, err := source.Token(); return err },
	} {
		if n := testing.AllocsPerRun(1000, func() {
			if err := get(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkFreshToken(b *testing.B) {
	c := freshClient(b)
	ctx := context.Background()
	b.Run("Token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Token(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, source := range map[string]oauth2.TokenSource{
		"TokenSource":             c.TokenSource(ctx),
		"oauth2.ReuseTokenSource": oauth2.ReuseTokenSource(&oauth2.Token{AccessToken: "token", Expiry: time.Now().Add(time.Hour)}, nil),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := source.Token(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := source.Token(); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
