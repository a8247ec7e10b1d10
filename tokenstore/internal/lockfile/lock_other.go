//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package lockfile

import (
	"errors"
	"fmt"
	"os"
)

const removesOpenFiles = true

// tryLock returns an error that matches errors.ErrUnsupported, because a store that cannot lock
// its file must not write to the file.
func tryLock(*os.File) (bool, error) {
	return false, fmt.Errorf("%w: this platform has no file locks between processes", errors.ErrUnsupported)
}

// Unlock closes f.
func Unlock(f *os.File) { _ = f.Close() }
