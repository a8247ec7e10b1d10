//go:build !linux

package filestore

import (
	"io/fs"
	"time"
)

// statusTime returns the zero time, because package syscall has no portable name for the
// status change time.
func statusTime(fs.FileInfo) time.Time { return time.Time{} }
