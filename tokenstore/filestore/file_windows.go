package filestore

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// readOnly reports whether err is that of a volume which is write-protected.
func readOnly(err error) bool {
	const errorWriteProtect = syscall.Errno(19)
	return errors.Is(err, errorWriteProtect)
}

// passing reports whether err goes away by itself: somebody has the file open, or
// is about to replace it.
func passing(err error) bool {
	const errorSharingViolation = syscall.Errno(32)
	return errors.Is(err, errorSharingViolation) || errors.Is(err, syscall.ERROR_ACCESS_DENIED)
}

// inheritOwner does nothing: the directory decides who may do what with the
// files in it.
func inheritOwner(*os.File, fs.FileInfo) error { return nil }

// syncDir does nothing: Windows writes names with the files.
func syncDir(string) error { return nil }
