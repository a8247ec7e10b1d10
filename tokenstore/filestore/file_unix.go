//go:build unix

package filestore

import (
	"errors"
	"os"
	"syscall"
)

// readOnly reports whether err means that the file system is mounted read-only.
func readOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// mountedOver reports whether err is the error from a rename onto a mount point.
func mountedOver(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV)
}

// setUp reports whether err persists until an operator acts, for example because the path
// is unusable or the file system lacks a feature.
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

// passing returns false, because Unix can replace a file that is being read.
func passing(error) bool { return false }

// syncDir syncs a directory, so that earlier changes to it survive a crash. It ignores the errors
// from file systems that cannot sync directories.
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
