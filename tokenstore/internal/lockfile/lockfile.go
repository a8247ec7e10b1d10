// Package lockfile locks files for the stores that keep their records in a file:
// between goroutines and processes, on one machine. The operating system takes a
// lock from a process that dies.
//
// The names of lock files can be guessed, and other users may be able to write to the
// directory. So nothing is followed, cut off or written over that is not a regular
// file under one name, of a user who may lock the store.
package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A ForeignError says that something else is in the place of a lock file, which is
// left as it is.
type ForeignError struct {
	Path   string
	Reason string
}

// Error returns the text, with what to do.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not a lock file: it %s; remove it", e.Path, e.Reason)
}

// TryLock locks the file at path, which it creates if need be, and gives it to the
// user to whom the file belongs that it is about; nil if there is none yet. It returns
// nil if the lock is another's.
//
// A symbolic link at path, or a name of a file that has others, is removed first, and
// what it leads to stays as it is. Anything else there that is not a lock file is a
// *ForeignError.
func TryLock(path string, about fs.FileInfo) (*os.File, error) {
	if err := clear(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	locked, err := tryLock(f)
	if err != nil || !locked {
		_ = f.Close()
		return nil, err
	}
	if ok, err := confirm(f, about); err != nil || !ok {
		Unlock(f)
		return nil, err
	}
	return f, nil
}

// clear removes a symbolic link.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &ForeignError{path, "is a symbolic link"}
		}
	case !info.Mode().IsRegular():
		return &ForeignError{path, "is not a regular file"}
	}
	return nil
}

// confirm reports whether f, which is locked, is the lock file at its path, and gives
// it to the owner of the file that it is about. It may have been removed by a process
// that held the lock, and another one created since.
func confirm(f *os.File, about fs.FileInfo) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, now) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if links(mine) > 1 {
		// A process that has opened the file by this name finds it replaced, as above.
		if err := os.Remove(f.Name()); err != nil {
			return false, &ForeignError{f.Name(), "has other names"}
		}
		return false, nil
	}
	dir, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return false, err
	}
	if !trusted(mine, about, dir) {
		return false, &ForeignError{f.Name(), "belongs to another user"}
	}
	// A user who may not give it away may not write the other file either, or has its
	// group only.
	_ = InheritOwner(f, about)
	return true, nil
}

// Remove removes a locked file and unlocks it.
func Remove(f *os.File) {
	// It is removed while it is locked: another process must not have locked it
	// in the meantime. Where a file that is open cannot be removed, it can be
	// removed afterwards only if no other process has opened it.
	err := os.Remove(f.Name())
	Unlock(f)
	if err != nil && !removesOpenFiles {
		_ = os.Remove(f.Name())
	}
}

// Overwrite replaces what a locked file holds.
func Overwrite(f *os.File, data []byte) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}
