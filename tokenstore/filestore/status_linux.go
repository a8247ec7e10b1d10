package filestore

import (
	"io/fs"
	"syscall"
	"time"
)

// statusTime returns the time of the last change to the file's content or status, or the zero time
// if it is unknown.
func statusTime(info fs.FileInfo) time.Time {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return time.Time{}
}
