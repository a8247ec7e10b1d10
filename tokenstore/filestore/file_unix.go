//go:build unix

package filestore

import (
	"errors"
	"os"
	"syscall"
)

// readOnly reports whether err is that of a file system which is mounted
// read-only.
func readOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// mountedOver reports whether err is that of a rename onto a mount point.
func mountedOver(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV)
}

// setUp reports whether err does not go away until an operator changes something:
// the path leads nowhere, or the file system cannot do what it takes.
func setUp(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EROFS,
		syscall.EBUSY, syscall.EXDEV, syscall.ENOLCK, syscall.ENOSYS, syscall.ENOTSUP,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// passing reports whether err goes away by itself.
func passing(error) bool { return false }

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
