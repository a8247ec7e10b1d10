//go:build unix

package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// readOnly reports whether err is that of a file system which is mounted
// read-only.
func readOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// passing reports whether err goes away by itself.
func passing(error) bool { return false }

// inheritOwner gives f the owner of the file that it replaces: a program run by
// root must not shut out the one whose file it is.
func inheritOwner(f *os.File, old fs.FileInfo) error {
	if old == nil {
		return nil
	}
	was, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if is, ok := info.Sys().(*syscall.Stat_t); ok && is.Uid == was.Uid && is.Gid == was.Gid {
		return nil
	}
	if err := f.Chown(int(was.Uid), int(was.Gid)); err != nil {
		is, ok := info.Sys().(*syscall.Stat_t)
		if ok && is.Uid == was.Uid {
			return nil // the group has no permissions in mode 0600
		}
		return fmt.Errorf("%w: the file is another user's: %w", tokenstore.ErrDenied, err)
	}
	return nil
}

// syncDir makes the names in a directory durable. Some file systems cannot do
// that, and need not.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
