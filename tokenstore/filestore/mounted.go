package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A token file that is a mount point cannot be replaced. It is written in place, as
// the SDKs do: readers take a shared lock, and a copy beside the file, which is there
// while it is written, is what a crash leaves whole. A program that has the file
// mounted elsewhere does not see the copy.
const copySuffix = ".in-place"

// readMounted is read of a token file that is a mount point: not while it is written.
// A process that may not lock it reads it without.
func (f *file) readMounted(ctx context.Context, path string) (*view, error) {
	shared, err := os.Open(path)
	if err != nil {
		return nil, classed(err)
	}
	defer shared.Close()
	poll := driverkit.Backoff{Pause: firstPoll, Longest: lastPoll, Patience: f.lockTimeout}
	unlocked, err := poll.Until(ctx, func() (bool, error) {
		locked, err := tryLockByte(shared, writeByte, true)
		return locked || err != nil, nil
	})
	switch {
	case err != nil:
		return nil, err
	case !unlocked:
		return nil, fmt.Errorf("%w: the file was being written for %v", tokenstore.ErrUnavailable, f.lockTimeout)
	}
	return f.readLocked(path)
}

// readLocked returns the file at path while nothing of this package writes it. What a
// crash has left half-written is read from its copy, which takes the place of the rest
// with the next write.
func (f *file) readLocked(path string) (*view, error) {
	v, err := f.readAt(path)
	copied, copyErr := os.ReadFile(path + copySuffix)
	if copyErr != nil || !mountPoint(path) {
		return v, err
	}
	broken, info, slurpErr := slurp(path)
	old, data, ok := cutCopy(copied)
	if slurpErr != nil || !ok || !errors.Is(err, tokenstore.ErrCorrupt) && !halfWritten(broken, old, data) {
		return v, err
	}
	parsed, parseErr := tokenfile.Parse(data, f.dialect)
	if parseErr != nil {
		return v, err
	}
	return f.view(parsed, info, broken), nil
}

// halfWritten reports whether a file that held old is what a write of data leaves that
// did not come to its end. What another program has written since is not.
func halfWritten(now, old, data []byte) bool {
	padded := pad(data, len(old))
	if bytes.Equal(now, old) || bytes.Equal(now, data) || bytes.Equal(now, padded) {
		return false
	}
	n := 0
	for n < len(now) && n < len(padded) && now[n] == padded[n] {
		n++
	}
	// The bytes behind the written ones are old: the file is cut off at the end only.
	// A shorter one is another program's, which has removed something since.
	return bytes.Equal(now[n:], old[min(n, len(old)):])
}

// joinCopy returns what a copy holds while old is replaced by data, and cutCopy the
// two.
func joinCopy(old, data []byte) []byte {
	return slices.Concat(fmt.Appendf(nil, "%d\n", len(old)), old, data)
}

func cutCopy(text []byte) (old, data []byte, ok bool) {
	head, rest, found := bytes.Cut(text, []byte("\n"))
	n, err := strconv.Atoi(string(head))
	if !found || err != nil || n < 0 || n > len(rest) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

// pad returns data with blank lines behind it that make it as long as size, or data if
// that is longer.
func pad(data []byte, size int) []byte {
	return append(bytes.Clone(data), bytes.Repeat([]byte("\n"), max(0, size-len(data)))...)
}

// overwrite writes data into the file at path, of which v is the present state. If
// that fails it writes back what was there.
func overwrite(path string, data []byte, v *view) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := writeCopy(path, joinCopy(v.data, data), v.info); err != nil {
		return err
	}
	if err := unchanged(path, v.info); err != nil {
		return err
	}
	if err := fill(f, data, len(v.data)); err != nil {
		// The old bytes have room: a disk that is full takes them.
		return errors.Join(err, fill(f, v.data, len(data)))
	}
	if err := os.Remove(path + copySuffix); err != nil && !errors.Is(err, fs.ErrNotExist) && !unwritable(err) {
		return err
	}
	return nil
}

// complete writes what the copy beside the file at path holds into it, if a crash has
// left it half-written, and removes the copy.
func (f *file) complete(path string) error {
	v, err := f.readLocked(path)
	if err != nil {
		return err
	}
	if data := v.Bytes(); mountPoint(path) && !bytes.Equal(data, v.data) {
		return overwrite(path, data, v)
	}
	return os.Remove(path + copySuffix)
}

// fill replaces what f holds, which is at most size bytes. A shorter content is filled
// up with blank lines, which readers skip, and cut off afterwards: a crash between the
// two leaves nothing of the old one behind it.
func fill(f *os.File, data []byte, size int) error {
	if _, err := f.WriteAt(pad(data, size), 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	return f.Sync()
}

// writeCopy writes the copy beside the file at path, if the directory permits. What has
// its name is whole.
func writeCopy(path string, data []byte, old fs.FileInfo) error {
	temp, err := writeBeside(path, data, old)
	if err == nil {
		if err = os.Rename(temp, path+copySuffix); err != nil {
			_ = os.Remove(temp)
		}
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if unwritable(err) {
		return nil
	}
	return err
}

// unwritable reports whether err is that of a directory that may not be written.
func unwritable(err error) bool { return readOnly(err) || errors.Is(err, fs.ErrPermission) }
