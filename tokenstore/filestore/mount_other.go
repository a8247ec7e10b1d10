//go:build !linux

package filestore

import (
	"errors"
	"os"
)

// mountPoint returns false, because other systems mount only directories.
func mountPoint(string) bool { return false }

// tryLockByte is never called, because mountPoint returns false.
func tryLockByte(*os.File, int64, bool) (bool, error) {
	return false, errors.ErrUnsupported
}
