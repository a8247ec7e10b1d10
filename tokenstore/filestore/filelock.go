package filestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
)

// A fileLock is a lock that processes compete for: a file beside the token file. Beside
// a token file that is a mount point it is a byte of that file, too, because the
// programs that have it mounted elsewhere do not see the file beside it; and then it
// is that alone if nothing can be written there.
type fileLock struct {
	beside *os.File // nil: it does not exist
	inside *os.File // nil: the token file is not a mount point
}

// The bytes of a token file that are locked, far behind its end: one for writing, and
// one for each record that is being refreshed.
const (
	writeByte   = 1 << 60
	refreshByte = 1 << 61
)

// tryFileLock locks the token file at path, which is resolved. The name of the lock
// is what follows that of the file, and at is its byte. It returns nil if the lock is
// another's.
func tryFileLock(path, name string, at int64) (*fileLock, error) {
	about, err := os.Stat(path)
	if err != nil {
		about = nil // there may be none yet
	} else if !about.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, errNotRegular) // and gets no lock beside it
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

// lockInside locks a byte of a file. It returns nil if that is another's.
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

// hintOwner returns err, which is about a lock file, with what to do if that belongs
// to another user than the token file.
func hintOwner(lock string, about fs.FileInfo, err error) error {
	if is, statErr := os.Lstat(lock); statErr != nil || lockfile.SameOwner(is, about) {
		return err
	}
	return fmt.Errorf("%w: it belongs to another user than the token file: remove it, or run doctor --repair as that user", err)
}

// unlock gives the lock back.
func (l *fileLock) unlock() {
	if l.beside != nil {
		lockfile.Unlock(l.beside)
	}
	l.unlockInside()
}

// remove gives the lock back and removes the file beside the token file.
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

// text returns what is kept in the file beside the token file, up to a limit; nothing
// if there is none.
func (l *fileLock) text(limit int64) ([]byte, error) {
	if l.beside == nil {
		return nil, nil
	}
	return io.ReadAll(io.NewSectionReader(l.beside, 0, limit))
}

// keep replaces what is kept there. Without a file nothing is kept.
func (l *fileLock) keep(data []byte) error {
	if l.beside == nil {
		return nil
	}
	return lockfile.Overwrite(l.beside, data)
}
