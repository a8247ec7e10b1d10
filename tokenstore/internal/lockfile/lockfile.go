// Package lockfile locks files for the stores that keep their records in a file:
// between goroutines and processes, on one machine. The operating system takes a
// lock from a process that dies.
package lockfile

import (
	"errors"
	"io/fs"
	"os"
)

// TryLock locks the file at path, which it creates if need be. It returns nil if
// the lock is another's.
func TryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked, err := tryLock(f)
	if err != nil || !locked {
		_ = f.Close()
		return nil, err
	}
	// The file may have been removed by whoever held the lock, and another one
	// created since.
	mine, err := f.Stat()
	if err == nil {
		var now fs.FileInfo
		now, err = os.Stat(path)
		if err == nil && os.SameFile(mine, now) {
			return f, nil
		}
	}
	Unlock(f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, nil
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
