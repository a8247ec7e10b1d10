// Package lockfile locks files, for stores that keep their records in a file. A lock
// excludes other goroutines and processes on the same machine. The operating system
// releases the locks of a process that ends.
//
// The names of lock files can be guessed, and other users might be able to write to the
// directory. The package therefore does not write to a file through a link. It writes only to a
// regular file. On Unix, this file must have only one name. Its owner must be the current user,
// root, or the owner of the store's file or directory.
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
// file. The package does not write to that file.
type ForeignError struct {
	Path   string
	Reason string
}

// Error returns a text that names the path, the reason and the remedy.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not a lock file: it %s; remove it", e.Path, e.Reason)
}

// TryLock locks the file at path without waiting, and creates the file if necessary. It returns nil
// and no error if the file is already locked, or was replaced meanwhile. If about is not nil,
// TryLock tries to give the lock file the same owner as the file described by about. The caller
// must call Unlock or Remove with a returned file.
//
// TryLock first removes a symbolic link at path without changing its target. If the file at
// path has further names, TryLock removes path and returns nil and no error. The error is a
// *ForeignError if such a path cannot be removed. It is also a *ForeignError if path is not a
// regular file, or belongs to a user whom the package does not trust.
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

// clear removes path if it is a symbolic link. It returns a *ForeignError if the link cannot be
// removed, or if path is neither a link nor a regular file.
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

// confirm reports whether f, which is locked, can be used as the lock file at its path. A former
// holder may have removed f, and another process may have created a new lock file. If f has
// further names, confirm removes its path and returns false. If the owner of f is not trusted,
// confirm returns a *ForeignError. Otherwise, confirm tries to give f the same owner as the file
// described by about.
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
		// A process that has already opened this file detects the removal by the check above.
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
	// InheritOwner fails if a user other than root locks the file of another user. The lock is
	// still valid.
	_ = InheritOwner(f, about)
	return true, nil
}

// Remove removes the locked file f and releases the lock. It ignores a failure to remove the
// file.
func Remove(f *os.File) {
	// Remove the file while it is locked, so that no other process can lock the file before the
	// removal. On a system that cannot remove open files, try again after Unlock. That attempt
	// fails if another process has opened the file.
	err := os.Remove(f.Name())
	Unlock(f)
	if err != nil && !removesOpenFiles {
		_ = os.Remove(f.Name())
	}
}

// Overwrite replaces the content of f with data, and syncs f. f must be locked.
func Overwrite(f *os.File, data []byte) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

// Peek returns the content of the lock file at path, up to limit bytes, and reports whether the
// file is locked. If the file is locked, data is nil. A file that does not exist counts as empty
// and not locked. If the file is not a regular file, the error is a *ForeignError. On Unix, Peek
// also fails for a symbolic link. Peek neither creates nor removes a file, but briefly locks a
// file that is not locked.
func Peek(path string, limit int64) (data []byte, locked bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer Unlock(f)
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, &ForeignError{path, "is not a regular file"}
	}
	free, err := tryLock(f)
	if err != nil || !free {
		return nil, err == nil, err
	}
	data, err = io.ReadAll(io.NewSectionReader(f, 0, limit))
	return data, false, err
}
