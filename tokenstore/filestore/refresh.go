package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
)

// Refresh implements tokenstore.Refresher. See the package documentation under
// "Refreshing".
//
// The context of mint ends after LeaseTTL. What mint has brought is then stored
// though the caller's context is done: it may be the only copy of a new refresh
// token. If that fails it is tried again for LeaseTTL, and then returned with an
// error matching tokenstore.ErrNotPersisted; so it is at once if the record was
// deleted meanwhile.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	t, err := s.refresher.Refresh(ctx, id, &record{Store: s, id: id}, stale, mint)
	return t, wrap("refresh", id, err)
}

// A record is the record with an ID, as one Refresh sees it.
type record struct {
	*Store
	id string

	// What the last Look has seen: while the file stays in that state it need not
	// be read again.
	looked bool
	info   fs.FileInfo
	token  tokenstore.Token
}

// Look implements refreshing.Record.
func (r *record) Look(ctx context.Context) (tokenstore.Token, error) {
	if info, err := os.Stat(r.path); r.looked && err == nil && sameState(info, r.info) {
		return r.token, nil
	}
	v, i, err := r.find(ctx)
	if err != nil {
		return tokenstore.Token{}, err
	}
	r.looked, r.info, r.token = true, v.info, v.Records[i].Token
	return r.token, nil
}

// find reads the file, and returns where in it the record is.
func (r *record) find(ctx context.Context) (*view, int, error) {
	v, err := r.read(ctx)
	if err != nil {
		return nil, 0, err
	}
	i, err := v.Choose(tokenstore.Token{ID: r.id})
	return v, i, err
}

// TryLock implements refreshing.Record.
func (r *record) TryLock(context.Context) (refreshing.Lock, error) {
	l, err := r.tryRefreshLock(r.id)
	if l == nil {
		return nil, err
	}
	// A file that cannot be written shows before an authorization server is asked for a
	// token that could not be kept.
	f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	if err != nil {
		l.unlock()
		return nil, classed(err)
	}
	_ = f.Close()
	return &refreshLock{r, l}, nil
}

// A refreshLock is the right to refresh a record: a locked file, which holds what
// is kept of a refusal.
type refreshLock struct {
	*record
	lock *fileLock
}

// Look implements refreshing.Lock.
func (l *refreshLock) Look(ctx context.Context) (tokenstore.Token, error) {
	v, i, err := l.find(ctx)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return v.Records[i].Token, nil
}

// Refusal implements refreshing.Lock.
func (l *refreshLock) Refusal(context.Context) *codec.Failure {
	data, err := l.lock.text(4 << 10)
	var f codec.Failure
	if err != nil || json.Unmarshal(data, &f) != nil {
		return nil
	}
	return &f
}

// Keep implements refreshing.Lock.
func (l *refreshLock) Keep(_ context.Context, f *codec.Failure) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return l.lock.keep(data)
}

// Update implements refreshing.Lock.
func (l *refreshLock) Update(ctx context.Context, change func(tokenstore.Token) (tokenstore.Token, error)) error {
	return l.update(ctx, func(v *view) (changed bool, err error) {
		i, err := v.Choose(tokenstore.Token{ID: l.id})
		if err != nil {
			return false, err
		}
		now := v.Records[i].Token
		t, err := change(now)
		if err != nil || t == now {
			return false, err
		}
		return true, v.put(i, t)
	})
}

// Release implements refreshing.Lock.
func (l *refreshLock) Release(keep bool) {
	if keep {
		l.lock.unlock()
	} else {
		l.lock.remove()
	}
}

// tryRefreshLock locks what is locked while the record with the ID is being refreshed.
// It returns nil if the lock is another's.
func (s *Store) tryRefreshLock(id string) (*fileLock, error) {
	path, err := resolve(s.path)
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
func (s *Store) forgetRefusal(id string) {
	path, err := resolve(s.path)
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
