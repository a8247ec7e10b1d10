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

// mountPoint reports whether the file at path, which is absolute and has no links in
// it, is mounted there alone, as containers have it with -v FILE:FILE. Such a file
// cannot be replaced: a rename onto it fails with EBUSY. Where /proc is missing no
// file counts as mounted.
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

// unescape reads a path of mountinfo, where blanks, line breaks and backslashes are
// in octal.
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

// setOFDLock is F_OFD_SETLK, a lock on a part of a file that belongs to the open file
// and not to the process.
const setOFDLock = 37

// tryLockByte locks one byte of an open file, which need not have as many, if no other
// open file has it locked. Containers that mount one file have the lock in common,
// and have no other file in common.
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
