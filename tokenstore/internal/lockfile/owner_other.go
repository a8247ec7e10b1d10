//go:build !unix

package lockfile

import (
	"io/fs"
	"os"
)

// noFollow adds no flags. On these systems, only administrators can create links, and confirm
// rejects a file that was opened through a link.
const noFollow = 0

// The following functions check nothing, because the permissions of a directory also apply to
// the files in it.

func links(fs.FileInfo) uint64                 { return 1 }
func trusted(fs.FileInfo, ...fs.FileInfo) bool { return true }

// SameOwner returns true.
func SameOwner(_, _ fs.FileInfo) bool { return true }

// InheritOwner does nothing and returns nil.
func InheritOwner(*os.File, fs.FileInfo) error { return nil }
