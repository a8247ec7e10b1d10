//go:build unix

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

// TestTryLockOwner checks that the lock file gets the owner of the store's file, and that
// TryLock refuses the lock file of a user that is not trusted. The test needs root, because only
// root can change the owner of a file.
func TestTryLockOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const service, stranger = 65534, 65533
	uid := func(path string) uint32 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid
	}
	dir := t.TempDir()
	path, about := filepath.Join(dir, "tokens.lock"), filepath.Join(dir, "tokens")
	if err := errors.Join(os.WriteFile(about, nil, 0o600), os.Chown(about, service, service)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(about)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what    string
		owner   int // owner of the lock file; -1 if the file does not exist
		about   fs.FileInfo
		want    uint32
		foreign bool
	}{
		{"a new lock file", -1, info, service, false},
		{"one that root has left", 0, info, service, false},
		{"one of the file's owner", service, info, service, false},
		{"one about no file", -1, nil, 0, false},
		{"a stranger's", stranger, info, stranger, true},
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if test.owner >= 0 {
			if err := errors.Join(os.WriteFile(path, []byte("7\n"), 0o600), os.Chown(path, test.owner, test.owner)); err != nil {
				t.Fatal(err)
			}
		}
		f, err := TryLock(path, test.about)
		if foreign := (*ForeignError)(nil); errors.As(err, &foreign) != test.foreign || (f == nil) != test.foreign {
			t.Errorf("%s: error %v", test.what, err)
		}
		if f != nil {
			Unlock(f)
		}
		if got := uid(path); got != test.want {
			t.Errorf("%s belongs to %d afterwards, want %d", test.what, got, test.want)
		}
	}
}
