// Package files checks, creates and replaces files for the command tokenkeep.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tokenkeep/tokenkeep/cli/internal/display"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

// Create creates a file that only its owner can read and write, and writes data to the file. The
// error matches fs.ErrExist if the name exists. If the data cannot be written, Create removes the
// file.
func Create(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f, data); err != nil {
		_ = os.Remove(name)
		return err
	}
	return nil
}

// Replaceable returns an error that matches scheme.ErrUsage if the name exists and is not a
// regular file. A symbolic link is not a regular file. If the name cannot be examined, Replaceable
// returns the error from os.Lstat.
func Replaceable(name string) error {
	switch info, err := os.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return scheme.Usagef("%s is a symbolic link: name the file that it leads to", display.Clean(name))
	case !info.Mode().IsRegular():
		return scheme.Usagef("%s is not a regular file; - is standard output", display.Clean(name))
	}
	return nil
}

// Replace creates or atomically replaces a regular file. Only the owner can read and write the
// file. If the name exists and is not a regular file, Replace returns the error from Replaceable.
func Replace(name string, data []byte) error {
	if err := Replaceable(name); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tokenkeep-*")
	if err != nil {
		return err
	}
	err = fill(f, data)
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// fill writes data to f, syncs f to the disk, and closes f.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Exists reports whether the name exists, even as a symbolic link to a file that does not exist.
// If the name cannot be examined, Exists returns true.
func Exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// Real returns the absolute path of a file, with symbolic links resolved. If the file does not
// exist, Real resolves only the links of the directory. If the directory cannot be resolved, Real
// resolves no links.
func Real(name string) string {
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
		return filepath.Join(dir, filepath.Base(name))
	}
	return name
}

// Check returns an error if name is a directory, or is in a directory that does not exist. If
// mustExist is set, a file that does not exist is also an error. Stores call Check before they
// create a lock file.
func Check(name string, mustExist bool) error {
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory", display.Clean(name))
	}
	if Exists(name) {
		return nil
	}
	dir := filepath.Dir(name)
	switch {
	case mustExist:
		return fmt.Errorf("there is no file %s", display.Clean(name))
	case !Exists(dir):
		return fmt.Errorf("there is no directory %s", display.Clean(dir))
	}
	return nil
}

// Bare returns the cause of the fs.PathError in err, for messages that already contain the file
// name. If err wraps no fs.PathError, Bare returns err.
func Bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
