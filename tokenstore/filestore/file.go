package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// resolve returns the path of the file that path leads to, which need not exist.
// It is what has to be replaced: a link in its place would be lost, and what two
// links lead to has one lock.
func resolve(path string) (string, error) {
	for range 40 {
		target, err := filepath.EvalSymlinks(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return target, classed(err)
		}
		target, err = os.Readlink(path)
		if err != nil {
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return path, nil // there is no directory; whoever opens the file says so
			}
			return filepath.Join(dir, filepath.Base(path)), nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return "", fmt.Errorf("%w: too many symbolic links", tokenstore.ErrUnavailable)
}

// classed returns err, an error of the file system, with its class.
func classed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission), readOnly(err):
		return fmt.Errorf("%w: %w", tokenstore.ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
}

// read returns the file as it is now.
func (s *Store) read() (*view, error) {
	path, err := resolve(s.path)
	if err != nil {
		return nil, err
	}
	return s.readAt(path)
}

func (s *Store) readAt(path string) (*view, error) {
	var info fs.FileInfo
	var data []byte
	err := persist(func() (err error) {
		if info, err = os.Stat(path); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errors.New("not a regular file")
		}
		data, err = os.ReadFile(path)
		return err
	})
	var file *codec.TokenFile
	switch {
	case errors.Is(err, fs.ErrNotExist):
		info = nil
		file, err = codec.NewTokenFile(s.o.Dialect)
	case err != nil:
		return nil, classed(err)
	default:
		file, err = codec.ParseTokenFile(data, s.o.Dialect)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tokenstore.ErrCorrupt, err)
	}
	file.AnyID = s.o.AnyID
	return look(file, info), nil
}

// sameState reports whether a and b, of which each may be nil, tell of the same
// file in the same state.
func sameState(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// errOverwritten means that another program has written the file, without the
// lock, since it was read.
var errOverwritten = errors.New("the file is being written by a program that does not lock it")

// updates is how often a change is tried again because of that.
const updates = 10

// update changes the file under the lock. change is called with the file as it
// is; it may be called again, with another view, if an SDK has written the file.
func (s *Store) update(ctx context.Context, change func(*view) (changed bool, err error)) error {
	path, err := resolve(s.path)
	if err != nil {
		return err
	}
	held, err := s.lock(ctx, path)
	if err != nil {
		return err
	}
	defer held.release()
	for range updates {
		v, err := s.readAt(path)
		if err != nil {
			return err
		}
		v.used = held.used()
		if changed, err := change(v); err != nil || !changed {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if v.removed > v.used {
			if err := held.use(v.removed); err != nil {
				return classed(err)
			}
		}
		err = replace(path, v.file.Bytes(), v.info)
		if err == nil {
			s.writes.Add(1)
		}
		if !errors.Is(err, errOverwritten) {
			return classed(err)
		}
	}
	return fmt.Errorf("%w: %w", tokenstore.ErrConflict, errOverwritten)
}

// replace puts a file with the data in the place of the one at path, which was
// read when old told of it. Only the holder of the lock calls it, so that one
// name is enough for the file that is being written, and what a crash has left
// there is removed.
func replace(path string, data []byte, old fs.FileInfo) (err error) {
	if old != nil {
		// The directory's permissions decide who may rename; but a file that
		// may not be written is not meant to be replaced either.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	temp := path + ".writing"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	err = write(f, data, old)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	now, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		now = nil
	}
	if !sameState(now, old) {
		return errOverwritten
	}
	if err := persist(func() error { return os.Rename(temp, path) }); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// write fills a file that is about to take the place of the old one.
func write(f *os.File, data []byte, old fs.FileInfo) error {
	if err := inheritOwner(f, old); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// persist calls f again while it fails in a way that passes: Windows refuses to
// replace a file that is being read, and to read one that is being replaced.
func persist(f func() error) error {
	err := f()
	for n := 1; n <= 200 && passing(err); n++ {
		pause := time.NewTimer(time.Millisecond + rand.N(10*time.Millisecond))
		<-pause.C
		err = f()
	}
	return err
}
