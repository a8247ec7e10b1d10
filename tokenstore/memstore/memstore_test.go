package memstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

type token = tokenstore.Token

// TestConformanceWithEncryption checks that a store that encrypts its records and has a name
// key passes the conformance suite.
func TestConformanceWithEncryption(t *testing.T) {
	t.Parallel()
	backend := conformance.Driver{
		Open:   func(testing.TB) driver.Secrets { return memstore.NewDriver() },
		Reopen: func(_ testing.TB, d driver.Secrets) driver.Secrets { return d.(*memstore.Driver).Reopen() },
	}
	conformance.RunStore(t, backend.Store(t, &tokenstore.Options{NameKey: []byte("0123456789abcdef"), Codec: encrypted(t)}))
}

func encrypted(t *testing.T) codec.Codec {
	t.Helper()
	key, err := codec.AESGCM(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	c, err := codec.Encrypted(codec.JSON, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsStoredEncryptedShowsNoSecret(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s, err := tokenstore.New(d, &tokenstore.Options{Codec: encrypted(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SaveToken(t.Context(), token{UserName: "canary-u", ClientID: "canary-c", ClientSecret: "canary-s", RefreshToken: "canary-r", AccessToken: "canary-a", GrantToken: "canary-g"}); err != nil {
		t.Fatal(err)
	}
	for secret, err := range d.List(t.Context()) {
		if err != nil || bytes.Contains(secret.Data, []byte("canary")) || len(secret.Data) < 100 {
			t.Errorf("%d bytes show a secret, error %v", len(secret.Data), err)
		}
	}
}

func TestNewPanicsOnAMistakeOfTheProgram(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("a short key is taken")
		}
	}()
	memstore.New(&tokenstore.Options{NameKey: []byte("short")})
}

func TestDriverReopen(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	if _, err := d.Create(t.Context(), "a", driver.Payload{Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Reopen().Get(t.Context(), "a"); err != nil || string(s.Data) != "1" {
		t.Errorf("another handle reads %q, error %v", s.Data, err)
	}
	if _, err := memstore.NewDriver().Get(t.Context(), "a"); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("another memory: error %v, want ErrNotFound", err)
	}
}

// TestManySaveTheSameUsersAtOnce checks that no field is lost if 32 goroutines, each with a
// separate Store, concurrently save different fields of four users.
func TestManySaveTheSameUsersAtOnce(t *testing.T) {
	t.Parallel()
	fields := []func(*token){
		func(t *token) { t.AccessToken, t.ExpiresAt = "access", time.UnixMilli(4_000_000_000_123).UTC() },
		func(t *token) { t.GrantToken = "grant" },
		func(t *token) { t.ClientSecret = "secret" },
		func(t *token) { t.RedirectURL = "https://example.com" },
		func(t *token) { t.APIDomain = "https://api.example.com" },
		func(*token) {}, func(*token) {}, func(*token) {},
	}
	for round := range 50 {
		d := memstore.NewDriver()
		var wait sync.WaitGroup
		for i := range 4 * len(fields) {
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				s, err := tokenstore.New(d.Reopen(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				mine := token{UserName: fmt.Sprint("user", i%4), ClientID: "c1", RefreshToken: "refresh"}
				fields[i/4](&mine)
				if _, err := s.SaveToken(ctx, mine); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wait.Wait()
		s, err := tokenstore.New(d, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.GetTokens(t.Context())
		if err != nil || len(got) != 4 {
			t.Fatalf("round %d: %d records, error %v, want 4", round, len(got), err)
		}
		for _, g := range got {
			want := token{ID: g.ID, UserName: g.UserName, ClientID: "c1", RefreshToken: "refresh"}
			for _, set := range fields {
				set(&want)
			}
			if g != want {
				t.Errorf("round %d: a field is lost: %+v", round, g)
			}
		}
	}
}

// TestLookup_Index checks that a search does not read every record. A search copies the
// records that it reads, so the test counts allocations.
func TestLookup_Index(t *testing.T) { // not parallel: AllocsPerRun counts the allocations of all goroutines
	allocs := func(records int) float64 {
		s := memstore.New(nil)
		for i := range records {
			if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: fmt.Sprint(i), ClientID: "c", RefreshToken: tokenstore.Secret(fmt.Sprint("r", i))}); err != nil {
				t.Fatal(err)
			}
		}
		return testing.AllocsPerRun(20, func() {
			if got, err := s.FindToken(t.Context(), tokenstore.Token{ClientID: "c", RefreshToken: "r7"}); err != nil || got.UserName != "7" {
				t.Errorf("found %+v, %v", got, err)
			}
		})
	}
	if few, many := allocs(10), allocs(1000); many > few*1.2 {
		t.Errorf("a search among 1,000 records needs %v allocations, among 10 %v", many, few)
	}
}
