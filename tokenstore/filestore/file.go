package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
)

// resolve returns the path of the file that path leads to, which need not exist.
// It is what has to be replaced: a link in its place would be lost, and what two
// links lead to has one lock.
func resolve(path string) (string, error) {
	for range 40 {
		target, err := filepath.EvalSymlinks(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return target, unresolved(path, err)
		}
		target, err = os.Readlink(path)
		if err != nil {
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return path, nil // there is no directory: opening the file says so
			}
			return filepath.Join(dir, filepath.Base(path)), nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return "", fmt.Errorf("%w: too many symbolic links", tokenstore.ErrRefused)
}

// unresolved returns err, which is why a path leads to no file, with its class.
func unresolved(path string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", path, err)
	if failed := (*fs.PathError)(nil); !errors.As(err, &failed) {
		return fmt.Errorf("%w: %w", tokenstore.ErrRefused, err) // a loop of links, or a file on the way
	}
	return classed(err)
}

// classed returns err, an error of the file system, with its class.
func classed(err error) error {
	var foreign *lockfile.ForeignError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", tokenstore.ErrDenied, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w: create the directory", tokenstore.ErrRefused, err)
	case mountedOver(err):
		return fmt.Errorf("%w: %w: the file alone is mounted, and cannot be replaced: mount its directory", tokenstore.ErrRefused, err)
	case readOnly(err):
		return fmt.Errorf("%w: %w: it has to be mounted for writing", tokenstore.ErrRefused, err)
	case setUp(err), errors.Is(err, errNotRegular), errors.As(err, &foreign), errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("%w: %w", tokenstore.ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
}

// checkDir returns an error if the directory of the file at path is missing: then the
// path is wrong, and there are no records only because of that.
func checkDir(path string) error {
	dir := filepath.Dir(path)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no directory %s: create it", tokenstore.ErrRefused, dir)
	case err != nil:
		return classed(err)
	case !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory", tokenstore.ErrRefused, dir)
	}
	return nil
}

// A file is a token file: the Table of a Store.
type file struct {
	path        string
	dialect     codec.Dialect
	anyID       bool
	lockTimeout time.Duration
	writes      atomic.Int64 // how often the file was replaced; tests count
}

// read returns the file as it is now.
func (f *file) read(ctx context.Context) (*view, error) {
	path, err := resolve(f.path)
	if err != nil {
		return nil, err
	}
	if mountPoint(path) {
		return f.readMounted(ctx, path)
	}
	return f.readAt(path)
}

func (f *file) readAt(path string) (*view, error) {
	data, info, err := slurp(path)
	var parsed *tokenfile.File
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := checkDir(path); err != nil {
			return nil, err
		}
		parsed, err = tokenfile.New(f.dialect)
	case err != nil:
		return nil, classed(err)
	default:
		parsed, err = tokenfile.Parse(data, f.dialect)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tokenstore.ErrCorrupt, err)
	}
	return f.view(parsed, info, data), nil
}

// view returns what was parsed of a file that holds data.
func (f *file) view(parsed *tokenfile.File, info fs.FileInfo, data []byte) *view {
	parsed.AnyID = f.anyID
	return &view{File: parsed, info: info, data: data}
}

// errNotRegular means that there is a directory, a device, a pipe or a socket in the
// place of the token file. It is neither read nor replaced.
var errNotRegular = errors.New("it is not a regular file")

// slurp returns what a file holds. A file that is not there has no FileInfo.
func slurp(path string) (data []byte, info fs.FileInfo, err error) {
	err = persist(func() (err error) {
		if info, err = os.Stat(path); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s: %w", path, errNotRegular)
		}
		data, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return data, info, nil
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
func (f *file) update(ctx context.Context, change func(*view) (changed bool, err error)) error {
	path, err := resolve(f.path)
	if err != nil {
		return err
	}
	held, err := f.lock(ctx, path)
	if err != nil {
		return err
	}
	defer held.release()
	for range updates {
		v, err := f.readLocked(path)
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
		v.drop()
		if mountPoint(path) {
			err = overwrite(path, v.Bytes(), v)
		} else {
			err = replace(path, v.Bytes(), v.info)
		}
		if err == nil {
			f.writes.Add(1)
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
	temp, err := writeBeside(path, data, old)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	if err := unchanged(path, old); err != nil {
		return err
	}
	if err := persist(func() error { return os.Rename(temp, path) }); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// unchanged returns an error if the file is not as it was when old told of it.
func unchanged(path string, old fs.FileInfo) error {
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
	return nil
}

// writeBeside writes a file beside that at path and returns its name.
func writeBeside(path string, data []byte, old fs.FileInfo) (temp string, err error) {
	temp = path + ".writing"
	if info, err := os.Lstat(temp); err == nil && info.IsDir() {
		return "", &lockfile.ForeignError{Path: temp, Reason: "is a directory"}
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	err = write(f, data, old)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(temp)
		return "", err
	}
	return temp, nil
}

// write fills a file that is about to take the place of the old one.
func write(f *os.File, data []byte, old fs.FileInfo) error {
	if err := lockfile.InheritOwner(f, old); err != nil {
		return fmt.Errorf("the file is another user's: %w", err)
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
