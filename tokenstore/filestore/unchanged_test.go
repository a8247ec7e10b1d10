package filestore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestSameAs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link, hard := filepath.Join(t.TempDir(), "link"), filepath.Join(dir, "hard.csv")
	path := filepath.Join(dir, "tokens.csv")
	s := open(t, path, nil)
	if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", RefreshToken: "r"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if err := os.Link(path, hard); err != nil {
		t.Skip("no hard links here: ", err)
	}
	for other, want := range map[string]bool{
		path:                                     true,
		filepath.Join(link, "tokens.csv"):        true,
		hard:                                     true,
		filepath.Join(link, "other.csv"):         false,
		filepath.Join(t.TempDir(), "tokens.csv"): false,
	} {
		is, err := s.SameAs(t.Context(), open(t, other, nil))
		if err != nil || is != want {
			t.Errorf("%s: %v, %v, want %v", other, is, err, want)
		}
	}
	if left, err := filepath.Glob(path + ".writing"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestSameAsOfNewFiles checks that SameAs compares paths to files that do not exist yet.
func TestSameAsOfNewFiles(t *testing.T) {
	t.Parallel()
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	s := open(t, filepath.Join(dir, "tokens.csv"), nil)
	for other, want := range map[string]bool{filepath.Join(link, "tokens.csv"): true, filepath.Join(link, "b.csv"): false} {
		if is, err := s.SameAs(t.Context(), open(t, other, nil)); err != nil || is != want {
			t.Errorf("%s: %v, %v, want %v", other, is, err, want)
		}
	}
}
