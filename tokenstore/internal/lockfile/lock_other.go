//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package lockfile

import (
	"errors"
	"fmt"
	"os"
)

const removesOpenFiles = true

// tryLock fails: a store that cannot lock its file does not write it.
func tryLock(*os.File) (bool, error) {
	return false, fmt.Errorf("%w: this platform has no lock on files that holds between processes", errors.ErrUnsupported)
}

func Unlock(f *os.File) { _ = f.Close() }
