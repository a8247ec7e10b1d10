package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
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
func (r *record) Look(context.Context) (tokenstore.Token, error) {
	if info, err := os.Stat(r.path); r.looked && err == nil && sameState(info, r.info) {
		return r.token, nil
	}
	v, i, err := r.find()
	if err != nil {
		return tokenstore.Token{}, err
	}
	r.looked, r.info, r.token = true, v.info, v.Records[i].Token
	return r.token, nil
}

// find reads the file, and returns where in it the record is.
func (r *record) find() (*view, int, error) {
	v, err := r.read()
	if err != nil {
		return nil, 0, err
	}
	i, err := v.Choose(tokenstore.Token{ID: r.id})
	return v, i, err
}

// TryLock implements refreshing.Record.
func (r *record) TryLock(context.Context) (refreshing.Lock, error) {
	path, err := r.refreshLock(r.id)
	if err != nil {
		return nil, err
	}
	f, err := lockfile.TryLock(path)
	if f == nil {
		return nil, classed(err)
	}
	return &refreshLock{r, f}, nil
}

// A refreshLock is the right to refresh a record: a locked file, which holds what
// is kept of a refusal.
type refreshLock struct {
	*record
	file *os.File
}

// Look implements refreshing.Lock.
func (l *refreshLock) Look(context.Context) (tokenstore.Token, error) {
	v, i, err := l.find()
	if err != nil {
		return tokenstore.Token{}, err
	}
	return v.Records[i].Token, nil
}

// Refusal implements refreshing.Lock.
func (l *refreshLock) Refusal(context.Context) *codec.Failure {
	data, err := io.ReadAll(io.NewSectionReader(l.file, 0, 4<<10))
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
	return lockfile.Overwrite(l.file, data)
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
		lockfile.Unlock(l.file)
	} else {
		lockfile.Remove(l.file)
	}
}

// refreshLock returns the path of the file that is locked while the record with
// the ID is being refreshed.
func (s *Store) refreshLock(id string) (string, error) {
	path, err := resolve(s.path)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte(id))
	return path + "." + hex.EncodeToString(digest[:8]) + ".refresh.lock", nil
}

// forgetRefusal removes what is kept of a refusal about a record that was
// deleted, unless the record is being refreshed just now: then whoever does it
// removes it.
func (s *Store) forgetRefusal(id string) {
	path, err := s.refreshLock(id)
	if err != nil {
		return
	}
	if _, err := os.Lstat(path); err != nil {
		return
	}
	if f, err := lockfile.TryLock(path); err == nil && f != nil {
		lockfile.Remove(f)
	}
}
