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
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
)

// resolve returns path without symbolic links. The target need not exist. A writer replaces the
// file at the resolved path, because replacing a link would lose the link. Two links to one file
// also share a lock, because they resolve to the same path.
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
				return path, nil // opening the file reports the missing directory
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

// unresolved adds path and an error class to err, the error from resolving path. It returns nil
// if err is nil.
func unresolved(path string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", path, err)
	if failed := (*fs.PathError)(nil); !errors.As(err, &failed) {
		return fmt.Errorf("%w: %w", tokenstore.ErrRefused, err) // a loop of links, or a path element that is a file
	}
	return classed(err)
}

// classed wraps err, an error from the file system, and adds an error class for callers. It returns
// nil if err is nil.
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

// checkDir returns an error if the directory of path does not exist or is not a directory. A
// wrong path must not look like an empty store.
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

// A file is the token file of a Store. It implements rowstore.Table.
type file struct {
	path        string
	dialect     codec.Dialect
	anyID       bool
	lockTimeout time.Duration
	settling    time.Duration            // equal to the constant settling, except in tests
	last        atomic.Pointer[snapshot] // the result of the last read
	writes      atomic.Int64             // number of committed changes; for tests
	parses      atomic.Int64             // number of times the file was parsed; for tests
}

func (f *file) read(ctx context.Context) (*snapshot, error) {
	path, err := resolve(f.path)
	if err != nil {
		return nil, err
	}
	if mountPoint(path) {
		return f.readMounted(ctx, path)
	}
	return f.readAt(path)
}

// errNotRegular means that a path leads to something other than a regular file, such as a
// directory or a pipe. The package neither reads nor replaces such a file.
var errNotRegular = errors.New("it is not a regular file")

// slurp returns the content and the description of the file at path. If err is not nil, data and
// info are nil.
func slurp(path string) (data []byte, info fs.FileInfo, err error) {
	err = persist(func() (err error) {
		if info, err = statRegular(path); err == nil {
			data, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return data, info, nil
}

// statRegular is like os.Stat, but returns an error matching errNotRegular for a file that is
// not regular. lstatRegular uses os.Lstat instead.
func statRegular(path string) (fs.FileInfo, error) { return regular(path, os.Stat) }

func lstatRegular(path string) (fs.FileInfo, error) { return regular(path, os.Lstat) }

func regular(path string, stat func(string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	info, err := stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, errNotRegular)
	}
	return info, err
}

// sameState reports whether a and b describe the same file with the same size and
// modification time, or are both nil.
func sameState(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// errOverwritten means that another program wrote the file without the lock after this process read
// the file.
var errOverwritten = errors.New("the file is being written by a program that does not lock it")

// updates is the maximum number of times that update attempts to write a change.
const updates = 10

// update changes the file under the lock. It calls the function change with a view of the current
// file, and writes the view if the function reports a change. If another program wrote the file
// meanwhile, update starts over. If another program writes the file during every attempt, the error
// matches tokenstore.ErrConflict.
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
		is, err := f.readLocked(path)
		if err != nil {
			return err
		}
		v := is.change()
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
		erase := len(v.gone) > 0
		v.drop()
		if err = v.commit(path, erase); err == nil {
			f.writes.Add(1)
		}
		if errors.Is(err, tokenstore.ErrInvalidToken) {
			return err
		}
		if !errors.Is(err, errOverwritten) {
			return classed(err)
		}
	}
	return fmt.Errorf("%w: %w", tokenstore.ErrConflict, errOverwritten)
}

// replace replaces the file at path with a file that contains data. old describes the state of the
// file at the last read; nil means that the file did not exist. If the file has changed since that
// read, replace returns errOverwritten. Only the holder of the lock calls replace, so one temporary
// name is enough.
func replace(path string, data []byte, old fs.FileInfo) (err error) {
	if old != nil {
		// A rename requires only permission to write to the directory. Do not replace a file that is
		// itself not writable.
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

// unchanged returns errOverwritten if the state of the file at path differs from old.
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

// writeBeside writes data to a temporary file beside the file at path, and returns the name of the
// temporary file. The temporary file gets the owner of the file that old describes.
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

func write(f *os.File, data []byte, old fs.FileInfo) error {
	if err := lockfile.InheritOwner(f, old); err != nil {
		return fmt.Errorf("the file belongs to another user: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// persist calls f, and calls f again up to 200 times while f fails with a temporary error. Windows
// refuses to replace a file that is being read, and to read a file that is being replaced.
func persist(f func() error) error {
	err := f()
	for n := 1; n <= 200 && passing(err); n++ {
		pause := time.NewTimer(time.Millisecond + rand.N(10*time.Millisecond))
		<-pause.C
		err = f()
	}
	return err
}
