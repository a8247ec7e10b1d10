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

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A token file that is a mount point cannot be replaced. Writers write such a file in place, as
// the SDKs do, and readers take a shared lock. Before the write, the writer copies the old and
// the new content to a file with this suffix. After a crash, readers recover the content from
// the copy. A program that mounts the token file elsewhere does not see the copy.
const copySuffix = ".in-place"

// readMounted is like the method read, but for a token file that is a mount point. If writers lock
// the file for longer than f.lockTimeout, the error matches tokenstore.ErrUnavailable. If the file
// cannot be locked, readMounted reads the file without a lock.
func (f *file) readMounted(ctx context.Context, path string) (*snapshot, error) {
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

// readLocked returns a snapshot of the file at path. The caller must hold the lock, if there is
// one. If a crash left a partial file, readLocked returns the new content from the copy. The next
// write completes the file.
func (f *file) readLocked(path string) (*snapshot, error) {
	is, err := f.readAt(path)
	copied, copyErr := os.ReadFile(path + copySuffix)
	if copyErr != nil || !mountPoint(path) {
		return is, err
	}
	broken, info, slurpErr := slurp(path)
	old, data, ok := cutCopy(copied)
	if slurpErr != nil || !ok || !errors.Is(err, tokenstore.ErrCorrupt) && !halfWritten(broken, old, data) {
		return is, err
	}
	beside, besideErr := readExtensions(path)
	whole := &snapshot{path: path, info: info, data: data, beside: beside}
	if besideErr != nil || f.parse(whole) != nil {
		return is, err
	}
	whole.data = broken
	return whole, nil
}

// halfWritten reports whether an interrupted write of data over old can leave the content that is
// in the parameter now.
func halfWritten(now, old, data []byte) bool {
	padded := pad(data, len(old))
	if bytes.Equal(now, old) || bytes.Equal(now, data) || bytes.Equal(now, padded) {
		return false
	}
	n := 0
	for n < len(now) && n < len(padded) && now[n] == padded[n] {
		n++
	}
	// An interrupted write leaves the rest of old unchanged, because the file is truncated only after
	// the write. If the rest differs, another program wrote the file later.
	return bytes.Equal(now[n:], old[min(n, len(old)):])
}

// joinCopy returns the content of the copy for a write of data over old. cutCopy splits this
// content into old and data.
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

// pad returns a copy of data, extended with line breaks to at least size bytes.
func pad(data []byte, size int) []byte {
	return append(bytes.Clone(data), bytes.Repeat([]byte("\n"), max(0, size-len(data)))...)
}

// overwrite writes data into the file at path, from which v was read. If the file has changed since
// that read, overwrite returns errOverwritten. If the write fails, overwrite writes the previous
// content back.
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
		// The old content fits even if the disk is full.
		return errors.Join(err, fill(f, v.data, len(data)))
	}
	if err := os.Remove(path + copySuffix); err != nil && !errors.Is(err, fs.ErrNotExist) && !unwritable(err) {
		return err
	}
	return nil
}

// complete completes the file at path from the copy if a crash left a partial file. It then removes
// the copy, even if the file was complete.
func (f *file) complete(path string) error {
	is, err := f.readLocked(path)
	if err != nil {
		return err
	}
	v := is.change()
	if data := v.Bytes(); mountPoint(path) && !bytes.Equal(data, v.data) {
		return overwrite(path, data, v)
	}
	return os.Remove(path + copySuffix)
}

// fill replaces the content of f with data. The content of f must have at most size bytes. fill
// pads shorter data with blank lines, which readers skip, and then truncates the file. A crash
// before the truncation therefore leaves no old content after data.
func fill(f *os.File, data []byte, size int) error {
	if _, err := f.WriteAt(pad(data, size), 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	return f.Sync()
}

// writeCopy writes data to the copy beside the file at path. It renames the copy to its final
// name only when the copy is complete. If the directory is not writable, writeCopy writes no
// copy and returns nil.
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

// unwritable reports whether err means that the process may not write to a directory.
func unwritable(err error) bool { return readOnly(err) || errors.Is(err, fs.ErrPermission) }
