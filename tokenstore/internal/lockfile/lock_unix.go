//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package lockfile

import (
	"errors"
	"os"
	"syscall"
)

const removesOpenFiles = true

// tryLock tries to lock f without waiting, and reports whether it succeeded. It returns false
// and no error if the file is already locked. The lock belongs to f, not to the process, and
// ends when f is closed.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		}
		return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
}

// Unlock releases the lock on f by closing f.
func Unlock(f *os.File) { _ = f.Close() }
