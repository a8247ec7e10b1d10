package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// createFile writes a new file that only its owner can read and write. It fails
// if there is something of that name.
func createFile(name string, data []byte) error {
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

// replaceable returns an error if there is something of that name that is not a regular
// file: a device, or a link that leads to another place than is meant.
func replaceable(name string) error {
	switch info, err := os.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return usagef("%s is a symbolic link: name the file that it leads to", clean(name))
	case !info.Mode().IsRegular():
		return usagef("%s is not a regular file; - is standard output", clean(name))
	}
	return nil
}

// replaceFile puts a new file, that only its owner can read and write, in the
// place of the regular file that has the name, if there is one. No other program sees
// half of it.
func replaceFile(name string, data []byte) error {
	if err := replaceable(name); err != nil {
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

// fill writes data to f and closes it.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// exists reports whether there is something of that name.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}
