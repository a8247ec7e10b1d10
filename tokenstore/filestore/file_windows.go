package filestore

import (
	"errors"
	"syscall"
)

// readOnly reports whether err means that the volume is write-protected.
func readOnly(err error) bool {
	const errorWriteProtect = syscall.Errno(19)
	return errors.Is(err, errorWriteProtect)
}

// passing reports whether err is temporary: another process has the file open or is
// replacing it.
func passing(err error) bool {
	const errorSharingViolation = syscall.Errno(32)
	return errors.Is(err, errorSharingViolation) || errors.Is(err, syscall.ERROR_ACCESS_DENIED)
}

// mountedOver returns false, because Windows cannot mount a single file.
func mountedOver(error) bool { return false }

// setUp reports whether err persists until an operator acts.
func setUp(err error) bool {
	const errorInvalidName, errorDirectory = syscall.Errno(123), syscall.Errno(267)
	return readOnly(err) || errors.Is(err, errorInvalidName) || errors.Is(err, errorDirectory)
}

// syncDir does nothing, because Windows writes directory entries together with files.
func syncDir(string) error { return nil }
