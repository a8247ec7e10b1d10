package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// Lock implements rowstore.Table.
func (f *file) Lock(_ context.Context, id string) (rowstore.Lock, error) {
	l, err := f.tryRefreshLock(id)
	if l == nil {
		return nil, err
	}
	// A file that cannot be written shows before an authorization server is asked for a
	// token that could not be kept.
	w, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		l.unlock()
		return nil, classed(err)
	}
	_ = w.Close()
	return &refreshLock{f, l}, nil
}

// A refreshLock is the right to refresh a record: a locked file, which holds what
// is kept of a refusal.
type refreshLock struct {
	*file
	lock *fileLock
}

// Note implements rowstore.Lock.
func (l *refreshLock) Note(context.Context) string {
	text, err := l.lock.text(4 << 10)
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
func (l *refreshLock) Release(keep bool) {
	if keep {
		l.lock.unlock()
	} else {
		l.lock.remove()
	}
}

// tryRefreshLock locks what is locked while the record with the ID is being refreshed.
// It returns nil if the lock is another's.
func (f *file) tryRefreshLock(id string) (*fileLock, error) {
	path, err := resolve(f.path)
	if err != nil {
		return nil, err
	}
	name, at := refreshLockOf(id)
	l, err := tryFileLock(path, name, at)
	return l, classed(err)
}

// refreshLockOf returns what follows the name of the token file in that of the lock
// file for a record, and the byte of the token file that is locked.
func refreshLockOf(id string) (name string, at int64) {
	digest := sha256.Sum256([]byte(id))
	return "." + hex.EncodeToString(digest[:8]) + ".refresh.lock", refreshByte + int64(binary.BigEndian.Uint32(digest[:4]))
}

// forgetRefusal removes what is kept of a refusal about a record that was
// deleted, unless the record is being refreshed just now: then the process that does
// it removes it.
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
