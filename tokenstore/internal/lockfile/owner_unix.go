//go:build unix

package lockfile

import (
	"io/fs"
	"os"
	"syscall"
)

// noFollow makes os.OpenFile fail if a symbolic link has replaced the checked file. It also
// keeps os.OpenFile from waiting for the other end of a pipe.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// links returns the number of hard links to a file.
func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink) //nolint:unconvert // the type differs between systems
	}
	return 1
}

// trusted reports whether a lock file is owned by the current user, by root, or by the owner
// of a file in others.
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

// SameOwner reports whether two files have the same owner. A nil FileInfo matches
// every owner.
func SameOwner(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return true
	}
	of, ok := a.Sys().(*syscall.Stat_t)
	than, okToo := b.Sys().(*syscall.Stat_t)
	return !ok || !okToo || of.Uid == than.Uid
}

// InheritOwner gives f the owner and group of the file described by other, unless other is nil. A
// program that runs as root thus does not lock out the owner of that file. InheritOwner returns nil
// if f has the right owner but its group cannot be changed.
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
		return nil // mode 0600 gives the group no permissions
	}
	return err
}
