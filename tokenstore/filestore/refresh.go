package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"

	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// Lock implements rowstore.Table.
func (f *file) Lock(_ context.Context, id string) (rowstore.Lock, error) {
	l, err := f.tryRefreshLock(id)
	if l == nil {
		return nil, err
	}
	// Detect a file that is not writable before requesting a token that could not be stored.
	w, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		l.unlock()
		return nil, classed(err)
	}
	_ = w.Close()
	return &refreshLock{f, id, l}, nil
}

// maxNote is the maximum number of bytes of a note that are read.
const maxNote = 4 << 10

// Peek implements rowstore.Table.
func (f *file) Peek(_ context.Context, id string) (note string, leased bool, err error) {
	path, err := resolve(f.path)
	if err != nil {
		return "", false, err
	}
	name, at := refreshLockOf(id)
	if mountPoint(path) {
		if leased, err = lockedInside(path, at); leased || err != nil {
			return "", leased, classed(err)
		}
	}
	data, leased, err := lockfile.Peek(path+name, maxNote)
	return string(data), leased, classed(err)
}

// A refreshLock is the right to refresh a record. Its lock file may contain a refusal.
type refreshLock struct {
	*file
	id   string
	lock *fileLock
}

// Note implements rowstore.Lock.
func (l *refreshLock) Note(context.Context) string {
	text, err := l.lock.text(maxNote)
	if err != nil {
		return ""
	}
	return string(text)
}

// SetNote implements rowstore.Lock.
func (l *refreshLock) SetNote(_ context.Context, text string) error {
	return l.lock.keep([]byte(text))
}

// Release implements rowstore.Lock.
func (l *refreshLock) Release(ctx context.Context, keep bool) {
	if !keep {
		l.lock.remove()
		return
	}
	l.lock.unlock()
	// A process that deletes the record while the lock is held leaves the removal of the note to this
	// process. A process that deletes the record later removes the note itself.
	if is, err := l.read(ctx); err == nil && !holds(is.file, l.id) {
		l.forgetRefusal(l.id)
	}
}

// holds reports whether file has a row with the given ID.
func holds(file *tokenfile.File, id string) bool {
	for i := range file.Len() {
		if f, _ := file.Row(i); f.ID == id {
			return true
		}
	}
	return false
}

// tryRefreshLock takes the lock for refreshing the record with the given ID. It returns a nil lock
// and a nil error if the lock is already held.
func (f *file) tryRefreshLock(id string) (*fileLock, error) {
	path, err := resolve(f.path)
	if err != nil {
		return nil, err
	}
	name, at := refreshLockOf(id)
	l, err := tryFileLock(path, name, at)
	return l, classed(err)
}

// refreshLockOf returns the suffix of the lock file for a record, and the offset of the byte to
// lock in the token file.
func refreshLockOf(id string) (name string, at int64) {
	digest := sha256.Sum256([]byte(id))
	return "." + hex.EncodeToString(digest[:8]) + ".refresh.lock", refreshByte + int64(binary.BigEndian.Uint32(digest[:4]))
}

// forgetRefusal removes the refusal of a deleted record. If a process is refreshing the record,
// forgetRefusal leaves the refusal to that process.
func (f *file) forgetRefusal(id string) {
	path, err := resolve(f.path)
	if err != nil {
		return
	}
	name, at := refreshLockOf(id)
	if _, err := os.Lstat(path + name); err != nil {
		return
	}
	if l, err := tryFileLock(path, name, at); err == nil && l != nil {
		l.remove()
	}
}
