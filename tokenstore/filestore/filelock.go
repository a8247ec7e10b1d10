package filestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
)

// A fileLock is a lock between processes: a locked file beside the token file. If the token file is
// a mount point, the lock is also a byte of the token file. Programs that mount the token file
// elsewhere cannot open the lock file, but can lock this byte. If the directory of a mounted token
// file is not writable, the lock is only the byte.
type fileLock struct {
	beside *os.File // the lock file; nil if the lock is only a byte
	inside *os.File // the token file; nil if it is not a mount point
}

// Offsets of the locked bytes of a token file, far beyond its end. A writer locks the byte at
// writeByte. A refresh locks the byte at refreshByte plus a digest of the record's ID.
const (
	writeByte   = 1 << 60
	refreshByte = 1 << 61
)

// tryFileLock locks the token file at path. path must be resolved. The lock file is path + name.
// The parameter at is the offset of the byte to lock in a token file that is a mount point.
// tryFileLock returns a nil lock and a nil error if the lock is already held.
func tryFileLock(path, name string, at int64) (*fileLock, error) {
	about, err := os.Stat(path)
	if err != nil {
		about = nil // the token file may not exist yet
	} else if !about.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, errNotRegular) // do not create a lock file beside a directory or device
	}
	l := &fileLock{}
	mounted := about != nil && mountPoint(path)
	if mounted {
		if l.inside, err = lockInside(path, at); l.inside == nil {
			return nil, err
		}
	}
	l.beside, err = lockfile.TryLock(path+name, about)
	switch {
	case l.beside != nil:
		return l, nil
	case mounted && unwritable(err):
		return l, nil
	}
	l.unlock()
	if errors.Is(err, fs.ErrPermission) {
		err = hintOwner(path+name, about, err)
	}
	return nil, err
}

// lockInside locks one byte of the file at path until the caller closes the returned file. The
// parameter at is the offset of the byte. lockInside returns a nil file and a nil error if the byte
// is already locked.
func lockInside(path string, at int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	locked, err := tryLockByte(f, at, false)
	if !locked {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// lockedInside reports whether one byte of the file at path is locked for writing. The parameter at
// is the offset of the byte.
func lockedInside(path string, at int64) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	free, err := tryLockByte(f, at, true)
	return err == nil && !free, err
}

// hintOwner adds advice to err, an error about the file lock, if the lock file and the token file
// have different owners. The parameter about describes the token file.
func hintOwner(lock string, about fs.FileInfo, err error) error {
	if is, statErr := os.Lstat(lock); statErr != nil || lockfile.SameOwner(is, about) {
		return err
	}
	return fmt.Errorf("%w: the lock file and the token file belong to different users: remove the lock file, or run doctor --repair as that user", err)
}

func (l *fileLock) unlock() {
	if l.beside != nil {
		lockfile.Unlock(l.beside)
	}
	l.unlockInside()
}

// remove removes the lock file, and releases the lock.
func (l *fileLock) remove() {
	if l.beside != nil {
		lockfile.Remove(l.beside)
	}
	l.unlockInside()
}

func (l *fileLock) unlockInside() {
	if l.inside != nil {
		_ = l.inside.Close()
	}
}

// text returns up to limit bytes of the lock file, or nil if there is no lock file.
func (l *fileLock) text(limit int64) ([]byte, error) {
	if l.beside == nil {
		return nil, nil
	}
	return io.ReadAll(io.NewSectionReader(l.beside, 0, limit))
}

// keep replaces the content of the lock file. Without a lock file, it does nothing.
func (l *fileLock) keep(data []byte) error {
	if l.beside == nil {
		return nil
	}
	return lockfile.Overwrite(l.beside, data)
}
