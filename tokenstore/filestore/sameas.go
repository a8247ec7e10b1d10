package filestore

import (
	"context"
	"crypto/rand"
	"errors"
	"os"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// SameAs reports whether s and other use the same file, even through different paths, such as two
// mounts of one directory. SameAs may create a temporary file beside the file of s, and look for
// the temporary file beside the other store's file. Meanwhile, SameAs holds the lock of s. It does
// not change records. SameAs returns false for a store of another kind. A store that embeds a
// *Store counts as the embedded Store.
func (s *Store) SameAs(ctx context.Context, other tokenstore.TokenStore) (bool, error) {
	embedding, ok := other.(interface{ tokenFile() *file })
	if !ok {
		return false, nil
	}
	is, err := s.file.sameAs(ctx, embedding.tokenFile())
	return is, s.rows.Wrap("compare with another store", "", err)
}

func (s *Store) tokenFile() *file { return s.file }

func (f *file) sameAs(ctx context.Context, other *file) (bool, error) {
	path, err := resolve(f.path)
	if err != nil {
		return false, err
	}
	there, err := resolve(other.path)
	if err != nil {
		return false, err
	}
	a, err := os.Stat(path)
	b, errThere := os.Stat(there)
	if err == nil && errThere == nil && os.SameFile(a, b) {
		return true, nil
	}
	// Two mounts may report different inode numbers for one file. Only the holder of the
	// lock creates path+".writing", so look for that file through the other path.
	held, err := f.lock(ctx, path)
	if err != nil {
		return false, err
	}
	defer held.release()
	temp, probe := path+".writing", rand.Text()
	_ = os.Remove(temp)
	w, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, classed(err)
	}
	defer func() { _ = os.Remove(temp) }()
	_, err = w.WriteString(probe)
	if err = errors.Join(err, w.Close()); err != nil {
		return false, classed(err)
	}
	seen, err := os.ReadFile(there + ".writing")
	return err == nil && string(seen) == probe, nil
}
