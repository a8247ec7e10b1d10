//go:build !linux

package filestore

import (
	"errors"
	"os"
)

// mountPoint returns false: on these systems only directories are mounted.
func mountPoint(string) bool { return false }

// tryLockByte is for mount points.
func tryLockByte(*os.File, int64, bool) (bool, error) {
	return false, errors.ErrUnsupported
}
