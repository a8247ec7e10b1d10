//go:build !unix

package keys

import "io/fs"

// forbidden returns 0: Load checks permission bits only on Unix.
func forbidden(fs.FileInfo) fs.FileMode { return 0 }
