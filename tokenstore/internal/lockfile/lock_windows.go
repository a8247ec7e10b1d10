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

// lockedByte returns the offset of the byte to lock, far beyond the end of any file. Other
// processes cannot read a locked byte, so the byte must not hold data.
func lockedByte() *syscall.Overlapped { return &syscall.Overlapped{OffsetHigh: 1 << 30} }

// tryLock tries to lock f without waiting, and reports whether it succeeded. It returns false
// and no error if the file is already locked.
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

// Unlock unlocks and closes f. Without an explicit unlock, Windows would release the lock
// some time after the file is closed.
func Unlock(f *os.File) {
	_, _, _ = procUnlockFileEx.Call(f.Fd(), 0, 1, 0, uintptr(unsafe.Pointer(lockedByte())))
	_ = f.Close()
}
