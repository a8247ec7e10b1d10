package filestore

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mountPoint reports whether the file at path is itself a mount point, as with "docker run -v
// FILE:FILE". path must be absolute and must contain no symbolic links. A mount point cannot be
// replaced: a rename onto it fails with EBUSY. Without /proc, mountPoint returns false.
func mountPoint(path string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && unescape(fields[4]) == path {
			return true
		}
	}
	return false
}

// unescape decodes a path in mountinfo, in which spaces, line breaks and backslashes are octal
// escapes.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// setOFDLock is F_OFD_SETLK, the fcntl command that locks a range of a file. The lock belongs to
// the open file, not to the process.
const setOFDLock = 37

// tryLockByte tries to lock one byte of f without waiting, and reports whether it locked the byte.
// The parameter at is the offset of the byte, which may lie beyond the end of f. The lock is for
// reading if shared is set, and for writing otherwise. The lock also works between containers that
// share no other file.
func tryLockByte(f *os.File, at int64, shared bool) (bool, error) {
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Start: at, Len: 1}
	if shared {
		lock.Type = syscall.F_RDLCK
	}
	for {
		err := syscall.FcntlFlock(f.Fd(), setOFDLock, &lock)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES):
			return false, nil
		}
		return false, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
}
