//go:build !unix

package lockfile

import (
	"io/fs"
	"os"
)

// noFollow is 0, because only administrators can create links, and the package writes
// nothing to a file that it opened through a link.
const noFollow = 0

// On these systems, the permissions of the directory apply to the files in it.

func links(fs.FileInfo) uint64                 { return 1 }
func trusted(fs.FileInfo, ...fs.FileInfo) bool { return true }

// SameOwner returns true.
func SameOwner(_, _ fs.FileInfo) bool { return true }

// InheritOwner does nothing.
func InheritOwner(*os.File, fs.FileInfo) error { return nil }
