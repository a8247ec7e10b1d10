package lockfile

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

const removesOpenFiles = false

var (
	kernel32         = syscall.NewLazyDLL("kernel32.dll")
	procLockFileEx   = kernel32.NewProc("LockFileEx")
	procUnlockFileEx = kernel32.NewProc("UnlockFileEx")
)

// lockedByte is what is locked: one byte far behind the end of any file, because
// what is locked cannot be read by others.
func lockedByte() *syscall.Overlapped { return &syscall.Overlapped{OffsetHigh: 1 << 30} }

// tryLock locks an open file, if nobody else has.
func tryLock(f *os.File) (bool, error) {
	const (
		failImmediately    = 1
		exclusive          = 2
		errorLockViolation = syscall.Errno(33)
	)
	ok, _, err := procLockFileEx.Call(f.Fd(), failImmediately|exclusive, 0, 1, 0, uintptr(unsafe.Pointer(lockedByte())))
	switch {
	case ok != 0:
		return true, nil
	case errors.Is(err, errorLockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return false, nil
	}
	return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
}

// Unlock unlocks and closes a locked file. Windows would unlock it when it is
// closed, but takes its time.
func Unlock(f *os.File) {
	_, _, _ = procUnlockFileEx.Call(f.Fd(), 0, 1, 0, uintptr(unsafe.Pointer(lockedByte())))
	_ = f.Close()
}
