package filestore

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func openWith(t *testing.T, n int) *Store {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "tokens.csv"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var tokens []tokenstore.Token
	for i := range n {
		tokens = append(tokens, tokenstore.Token{
			UserName: fmt.Sprintf("user%d", i), ClientID: "1000.CLIENT",
			RefreshToken: tokenstore.Secret(fmt.Sprintf("refresh%032d", i)), AccessToken: tokenstore.Secret(fmt.Sprintf("access%032d", i)),
		})
	}
	if _, err := s.SaveAll(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestParses checks that a store parses the file only once after each change, even if several
// calls read the file.
func TestParses(t *testing.T) {
	t.Parallel()
	for name, settling := range map[string]time.Duration{"young file": settling, "old file": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openWith(t, 100)
			s.file.settling = settling
			var records []tokenstore.Token
			parses := func() int64 {
				t.Helper()
				before := s.file.parses.Load()
				for i := range 10 {
					user := fmt.Sprintf("user%d", i)
					found, err := s.FindToken(t.Context(), tokenstore.Token{UserName: user})
					if err != nil || found.UserName != user {
						t.Fatalf("found %v, %v", found, err)
					}
					if _, err := s.SaveToken(t.Context(), found); err != nil {
						t.Fatal(err)
					}
				}
				var err error
				if records, err = s.GetTokens(t.Context()); err != nil {
					t.Fatal(err)
				}
				return s.file.parses.Load() - before
			}
			if n := parses(); n != 1 || len(records) != 100 {
				t.Errorf("a new file with %d records was parsed %d times", len(records), n)
			}
			if n := parses(); n != 0 {
				t.Errorf("an unchanged file was parsed %d times", n)
			}
			if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "user7", AccessToken: "new"}); err != nil {
				t.Fatal(err)
			}
			if n := parses(); n != 1 || !slices.ContainsFunc(records, func(r tokenstore.Token) bool { return r.AccessToken == "new" }) {
				t.Errorf("after a save the file was parsed %d times, and has %d records", n, len(records))
			}
		})
	}
}

// TestOverwrites checks that a store detects every write of another program. The program writes the
// file in place, without a change of the size or, on Linux, of the modification time.
func TestOverwrites(t *testing.T) {
	t.Parallel()
	s := openWith(t, 3)
	path := s.file.path
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	old := fmt.Appendf(nil, "access%032d", 1)
	for i := range 300 {
		token := fmt.Sprintf("access%032d", 100+i)
		if err := os.WriteFile(path, bytes.Replace(was, old, []byte(token), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS == "linux" {
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
		found, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "user1"})
		if err != nil || string(found.AccessToken) != token {
			t.Fatalf("write %d: found %v, %v", i, string(found.AccessToken), err)
		}
	}
}

// TestSettled checks that the times of a file count only once the file is older than the
// settling period. It also checks that setting the modification time back does not hide a
// change.
func TestSettled(t *testing.T) {
	t.Parallel()
	s := openWith(t, 1)
	read := func() *snapshot {
		t.Helper()
		is, err := s.file.readAt(s.file.path)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if read().settled {
		t.Error("the times of a file that was just written count")
	}
	s.file.settling = -1
	if is := read(); !is.settled || is != read() {
		t.Error("the times of a file that has been as it is do not count")
	}
	if runtime.GOOS != "linux" {
		return
	}
	was := read()
	if err := os.Chtimes(s.file.path, was.info.ModTime(), was.info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if was == read() {
		t.Error("the time at which the file's properties were changed does not count")
	}
}

// TestFind_Time checks that searches among 10,000 records take at most twice as long as among 10,
// if the file is unchanged. The test compares the shortest times, because other programs can only
// make times longer.
func TestFind_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	few, many := openWith(t, 10), openWith(t, 10_000)
	few.file.settling, many.file.settling = -1, -1
	shortest := func(least time.Duration, s *Store) time.Duration {
		begin := time.Now()
		for range 10 {
			if _, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "user7"}); err != nil {
				t.Fatal(err)
			}
		}
		return min(least, time.Since(begin))
	}
	const limit = 2
	atFew, atMany := time.Hour, time.Hour
	for range 200 {
		atFew, atMany = shortest(atFew, few), shortest(atMany, many)
		if atMany <= limit*atFew {
			return
		}
	}
	t.Errorf("10 searches of 10,000 records take %v, and of 10 records %v: the limit is %d times that", atMany, atFew, limit)
}
