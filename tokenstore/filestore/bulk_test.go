package filestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func openNew(t *testing.T, opts *Options) *Store {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "sdk_tokens.txt"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSaveAllSavesWhatSavingOneByOneDoes checks that SaveAll and repeated calls of
// SaveToken store the same records, for random tokens with few different values.
func TestSaveAllSavesWhatSavingOneByOneDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		pick := func(kind string, of int) string {
			if n := random.IntN(of + 1); n > 0 {
				return fmt.Sprint(kind, n)
			}
			return ""
		}
		one, all := openNew(t, nil), openNew(t, nil)
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
				t.Fatalf("seed %d: SaveAll: %v", seed, err)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("seed %d: token %d: SaveAll %+v, SaveToken %+v", seed, i, got[i], want[i])
				}
			}
			if a, b := readFile(t, one.file.path), readFile(t, all.file.path); string(a) != string(b) {
				t.Fatalf("seed %d: one by one\n%s\nin bulk\n%s", seed, a, b)
			}
		}
	}
}

func TestSaveAllSavesAllOrNone(t *testing.T) {
	t.Parallel()
	s := openNew(t, nil)
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", AccessToken: "a"}); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, s.file.path)
	tokens := []tokenstore.Token{
		{UserName: "bob", AccessToken: "s3cret"},
		{ID: "x", UserName: "eve", AccessToken: "s3cret"},
		{UserName: "dan", AccessToken: "s3cret"},
	}
	saved, err := s.SaveAll(t.Context(), tokens)
	if saved != nil || !errors.Is(err, tokenstore.ErrInvalidToken) || !strings.Contains(err.Error(), "token 2 of 3") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v, %v", saved, err)
	}
	if string(readFile(t, s.file.path)) != string(before) {
		t.Error("the file has changed")
	}
	tokens[1].ID = ""
	writes := s.file.writes.Load()
	if saved, err = s.SaveAll(t.Context(), tokens); err != nil || saved[2].ID != "4" {
		t.Errorf("%v, %v", saved, err)
	}
	if n := s.file.writes.Load() - writes; n != 1 {
		t.Errorf("the file was replaced %d times", n)
	}
	if _, err = s.SaveAll(t.Context(), tokens); err != nil || s.file.writes.Load() != writes+1 {
		t.Errorf("what is there already was written again: %v", err)
	}
	if saved, err := s.SaveAll(t.Context(), nil); err != nil || len(saved) != 0 {
		t.Errorf("of nothing: %v, %v", saved, err)
	}
}

func TestFitsLooksAtEachTokenAlone(t *testing.T) {
	t.Parallel()
	s := openNew(t, &Options{Dialect: "node"})
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", AccessToken: "a"}); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, s.file.path)
	long := tokenstore.Secret(strings.Repeat("x", 31<<10))
	errs, err := s.Fits(t.Context(), []tokenstore.Token{
		{UserName: "bob", AccessToken: "b"},
		{ID: "1", UserName: "bob", AccessToken: "b"},
		{ID: "1", UserName: "bob", AccessToken: "b"},
		{ID: "x", UserName: "bob", AccessToken: "b"},
		{UserName: "o'neil, sean", AccessToken: "b"},
		{UserName: "bob", AccessToken: "a\x00"},
		{UserName: "bob", AccessToken: long, RefreshToken: long, GrantToken: long},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, nil, tokenstore.ErrInvalidToken, tokenstore.ErrInvalidToken, tokenstore.ErrInvalidToken, tokenstore.ErrTooLarge} {
		if !errors.Is(errs[i], want) {
			t.Errorf("token %d: %v, want %v", i, errs[i], want)
		}
	}
	if string(readFile(t, s.file.path)) != string(before) {
		t.Error("the file has changed")
	}
}

func TestDeleteAllLeavesWhatHasChanged(t *testing.T) {
	t.Parallel()
	s := openNew(t, nil)
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
	left, err := s.GetTokens(t.Context())
	if err != nil || len(left) != 1 || left[0].AccessToken != "newer" {
		t.Errorf("left: %v, %v", left, err)
	}
	again, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "dan", AccessToken: "d"})
	if err != nil || again.ID != "4" {
		t.Errorf("the ID of a deleted record was used again: %v, %v", again, err)
	}
}

func TestBulkErrors(t *testing.T) {
	t.Parallel()
	s := openNew(t, nil)
	if err := os.WriteFile(s.file.path, []byte("no tokens\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	some := []tokenstore.Token{{UserName: "ann", AccessToken: "a"}}
	_, save := s.SaveAll(t.Context(), some)
	_, fits := s.Fits(t.Context(), some)
	_, remove := s.DeleteAll(t.Context(), some)
	for _, err := range []error{save, fits, remove} {
		var e *tokenstore.Error
		if !errors.Is(err, tokenstore.ErrCorrupt) || !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
	}
}
