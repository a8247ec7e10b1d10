//go:build unix

package lockfile

import (
	"io/fs"
	"os"
	"syscall"
)

// noFollow keeps a file from being opened through a link that took its place since it
// was looked at, or from waiting for the other end of a pipe.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// links returns how many names a file has.
func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink) //nolint:unconvert // the type is another on other systems
	}
	return 1
}

// trusted reports whether the owner of a lock file may lock: this user, root, or the
// owner of the file that the lock is about, or of its directory.
func trusted(lock fs.FileInfo, others ...fs.FileInfo) bool {
	is, ok := lock.Sys().(*syscall.Stat_t)
	if !ok || is.Uid == 0 || int(is.Uid) == os.Geteuid() {
		return true
	}
	for _, other := range others {
		if other == nil {
			continue
		}
		if o, ok := other.Sys().(*syscall.Stat_t); ok && o.Uid == is.Uid {
			return true
		}
	}
	return false
}

// SameOwner reports whether two files belong to one user. A nil FileInfo belongs to
// every user.
func SameOwner(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return true
	}
	of, ok := a.Sys().(*syscall.Stat_t)
	than, okToo := b.Sys().(*syscall.Stat_t)
	return !ok || !okToo || of.Uid == than.Uid
}

// InheritOwner gives f the owner and group of another file, if that is not nil: a
// program run by root must not shut out the user to whom the file belongs. It
// succeeds if only the group cannot be given.
func InheritOwner(f *os.File, other fs.FileInfo) error {
	if other == nil {
		return nil
	}
	was, ok := other.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	if ok && is.Uid == was.Uid && is.Gid == was.Gid {
		return nil
	}
	err = f.Chown(int(was.Uid), int(was.Gid))
	if err != nil && ok && is.Uid == was.Uid {
		return nil // the group has no permissions in mode 0600
	}
	return err
}
