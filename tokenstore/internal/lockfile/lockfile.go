// Package lockfile locks files, for stores that keep their records in a file. A lock
// excludes other goroutines and processes on the same machine. The operating system
// releases the locks of a process that ends.
//
// The names of lock files can be guessed, and other users may be able to write to the
// directory. The package therefore does not write to a file through a link. It writes only
// to a regular file with one name, owned by a user who may lock the store.
package lockfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A ForeignError reports that something other than a lock file exists at the path of a lock
// file. The package does not change it.
type ForeignError struct {
	Path   string
	Reason string
}

// Error returns a text that names the path, the reason and the remedy.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not a lock file: it %s; remove it", e.Path, e.Reason)
}

// TryLock locks the file at path and creates it if necessary. The lock file gets the owner
// of the file that about describes; about is nil if that file does not exist yet. TryLock
// returns a nil file if the file is already locked, or was replaced meanwhile.
//
// TryLock first removes a symbolic link or an additional hard link at path, without
// changing the target. If anything else at path is not a lock file, the error is a
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

// clear removes a symbolic link at path. It returns an error if path is another kind of
// file that is not regular.
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

// confirm reports whether f, which is locked, is still the lock file at its path. If so, it
// gives f the owner of the file that about describes. A process that held the lock may have
// removed it, and another process may have created a new one.
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
		// By the check above, a process that has opened this file notices its removal.
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
	// If this fails, the user either cannot write the file that about describes or only
	// shares its group.
	_ = InheritOwner(f, about)
	return true, nil
}

// Remove removes a locked file and unlocks it. It ignores a failure to remove the file.
func Remove(f *os.File) {
	// Remove the file while it is locked, so that no other process can lock it in between.
	// On systems that cannot remove an open file, remove it after closing it. This fails if
	// another process has opened it.
	err := os.Remove(f.Name())
	Unlock(f)
	if err != nil && !removesOpenFiles {
		_ = os.Remove(f.Name())
	}
}

// Overwrite replaces the content of a locked file.
func Overwrite(f *os.File, data []byte) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

// Peek returns the content of the lock file at path, up to limit bytes, and reports whether
// the file is locked. If it is locked, data is nil. A file that does not exist counts as
// empty and not locked. Peek creates and removes no file, but briefly locks one that is not
// locked.
func Peek(path string, limit int64) (data []byte, locked bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer Unlock(f)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, false, &ForeignError{path, "is not a regular file"}
	}
	free, err := tryLock(f)
	if err != nil || !free {
		return nil, err == nil, err
	}
	data, err = io.ReadAll(io.NewSectionReader(f, 0, limit))
	return data, false, err
}
