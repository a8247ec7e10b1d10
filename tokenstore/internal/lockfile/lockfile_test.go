package lockfile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestTryLock checks that TryLock replaces a link at the path of the lock file, and does not
// change the target of the link. It also checks that TryLock refuses a directory or a pipe at
// that path.
func TestTryLock(t *testing.T) {
	t.Parallel()
	const precious = "ssh-ed25519 AAAA precious\n"
	for what, test := range map[string]struct {
		plant   func(victim, path string) error
		foreign bool
	}{
		"nothing":         {func(string, string) error { return nil }, false},
		"a lock file":     {func(_, path string) error { return os.WriteFile(path, []byte("7\n"), 0o600) }, false},
		"a symbolic link": {os.Symlink, false},
		"a dangling link": {func(victim, path string) error { return os.Symlink(victim+"2", path) }, false},
		"a hard link":     {os.Link, false},
		"a directory":     {func(_, path string) error { return os.Mkdir(path, 0o700) }, true},
		"a pipe":          {func(_, path string) error { return mkfifo(path) }, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			victim, path := filepath.Join(dir, "authorized_keys"), filepath.Join(dir, "tokens.lock")
			if err := os.WriteFile(victim, []byte(precious), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := test.plant(victim, path); errors.Is(err, errors.ErrUnsupported) || err != nil && runtime.GOOS == "windows" {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			f, err := TryLock(path, nil)
			if f == nil && err == nil {
				f, err = TryLock(path, nil) // the first call only removed the link
			}
			if foreign := (*ForeignError)(nil); errors.As(err, &foreign) != test.foreign || (f == nil) != test.foreign {
				t.Fatalf("TryLock returned error %v", err)
			}
			if f != nil {
				if other, err := TryLock(path, nil); other != nil || err != nil {
					t.Errorf("a second lock: error %v, want none and no lock", err)
				}
				if err := Overwrite(f, []byte("1\n")); err != nil {
					t.Error(err)
				}
				Remove(f)
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the lock file is left, %v", err)
				}
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != precious {
				t.Errorf("the other file holds %q, %v", got, err)
			}
			if _, err := os.Lstat(victim + "2"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file was created through the link, %v", err)
			}
		})
	}
}
