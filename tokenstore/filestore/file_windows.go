package filestore

import (
	"errors"
	"syscall"
)

// readOnly reports whether err is that of a volume which is write-protected.
func readOnly(err error) bool {
	const errorWriteProtect = syscall.Errno(19)
	return errors.Is(err, errorWriteProtect)
}

// passing reports whether err goes away by itself: another process has the file open,
// or is about to replace it.
func passing(err error) bool {
	const errorSharingViolation = syscall.Errno(32)
	return errors.Is(err, errorSharingViolation) || errors.Is(err, syscall.ERROR_ACCESS_DENIED)
}

// mountedOver returns false: there are no mounts of single files.
func mountedOver(error) bool { return false }

// setUp reports whether err does not go away until an operator changes something.
func setUp(err error) bool {
	const errorInvalidName, errorDirectory = syscall.Errno(123), syscall.Errno(267)
	return readOnly(err) || errors.Is(err, errorInvalidName) || errors.Is(err, errorDirectory)
}

// syncDir does nothing: Windows writes names with the files.
func syncDir(string) error { return nil }
