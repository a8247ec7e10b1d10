//go:build unix

package keys

import (
	"io/fs"
	"os"
	"syscall"
)

// forbidden returns the permission bits that a keys file must not have. The group may read a file
// of another user, such as a mounted Secret in Kubernetes, because the process could not read the
// file otherwise.
func forbidden(info fs.FileInfo) fs.FileMode {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return 0o037
	}
	return 0o077
}
