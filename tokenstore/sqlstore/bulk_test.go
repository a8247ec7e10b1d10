package sqlstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestSaveAllSavesWhatSavingOneByOneDoes checks that SaveAll and repeated calls of
// SaveToken store the same records, for random tokens with few different values.
func TestSaveAllSavesWhatSavingOneByOneDoes(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(8) {
				saveBothWays(t, rand.New(rand.NewPCG(seed, 1)), kind.new(t).open(t, nil), kind.new(t).open(t, nil))
			}
		})
	}
}

func saveBothWays(t *testing.T, random *rand.Rand, one, all *Store) {
	t.Helper()
	pick := func(kind string, of int) string {
		if n := random.IntN(of + 1); n > 0 {
			return fmt.Sprint(kind, n)
		}
		return ""
	}
	for range 3 {
		var good, want []tokenstore.Token
		for range 8 {
			token := tokenstore.Token{
				UserName: pick("user", 3), ClientID: pick("client", 2),
				RefreshToken: tokenstore.Secret(pick("refresh", 3)), AccessToken: tokenstore.Secret(pick("access", 4)),
			}
			if random.IntN(4) == 0 {
				token.ID = fmt.Sprint(1 + random.IntN(12))
			}
			saved, err := one.SaveToken(t.Context(), token)
			if err != nil {
				continue // with this token, SaveAll would save no token
			}
			good, want = append(good, token), append(want, saved)
		}
		got, err := all.SaveAll(t.Context(), good)
		if err != nil {
			t.Fatal(err)
		}
		if len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("SaveAll %+v, SaveToken %+v", got, want)
		}
		a, errA := one.GetTokens(t.Context())
		b, errB := all.GetTokens(t.Context())
		if err := errors.Join(errA, errB); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%v: one by one %+v, in bulk %+v", err, a, b)
		}
	}
}

func TestSaveAllSavesAllOrNone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		tokens := []tokenstore.Token{
			{UserName: "bob", AccessToken: "s3cret"},
			{ID: "x", UserName: "eve", AccessToken: "s3cret"},
			{UserName: "dan", AccessToken: "s3cret"},
		}
		saved, err := s.SaveAll(t.Context(), tokens)
		if saved != nil || !errors.Is(err, tokenstore.ErrInvalidToken) || !strings.Contains(err.Error(), "token 2 of 3") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, %v", saved, err)
		}
		if left, err := s.GetTokens(t.Context()); err != nil || len(left) != 0 {
			t.Errorf("%d records were saved, %v", len(left), err)
		}
		tokens[1].ID = "7"
		writes := s.db.writes.Load()
		if saved, err = s.SaveAll(t.Context(), tokens); err != nil || saved[0].ID != "1" || saved[1].ID != "7" || saved[2].ID != "8" {
			t.Errorf("%v, %v", saved, err)
		}
		if _, err = s.SaveAll(t.Context(), tokens); err != nil || s.db.writes.Load() != writes+1 {
			t.Errorf("%d transactions were committed: %v", s.db.writes.Load()-writes, err)
		}
	})
}

func TestDeleteAllLeavesWhatHasChanged(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, nil)
		saved, err := s.SaveAll(t.Context(), []tokenstore.Token{
			{UserName: "ann", AccessToken: "a"}, {UserName: "bob", AccessToken: "b"}, {UserName: "eve", AccessToken: "c"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "bob", AccessToken: "newer"}); err != nil {
			t.Fatal(err)
		}
		if n, err := s.DeleteAll(t.Context(), saved); n != 2 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if left, err := s.GetTokens(t.Context()); err != nil || len(left) != 1 || left[0].AccessToken != "newer" {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

func TestFitsLooksAtEachTokenAlone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		large := 256
		if b.dialect == SQLite {
			large = MaxRecord
		}
		s := b.open(t, nil)
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", AccessToken: "a"}); err != nil {
			t.Fatal(err)
		}
		errs, err := s.Fits(t.Context(), []tokenstore.Token{
			{UserName: "bob", AccessToken: "b"},
			{ID: "1", UserName: "bob", AccessToken: "b"},
			{ID: "x", UserName: "bob", AccessToken: "b"},
			{UserName: "bob", AccessToken: "a\x00"},
			{UserName: strings.Repeat("ü", 255), AccessToken: "b"},
			{UserName: strings.Repeat("ü", large), AccessToken: "b"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, nil, tokenstore.ErrInvalidToken, tokenstore.ErrInvalidToken, nil, tokenstore.ErrTooLarge} {
			if !errors.Is(errs[i], want) {
				t.Errorf("token %d: %v, want %v", i, errs[i], want)
			}
		}
	})
}
