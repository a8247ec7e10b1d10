package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// A snapshot is the content of the token file and the second file at a single point in time.
// Later reads share a snapshot while the files are unchanged, so a snapshot must not be
// modified.
type snapshot struct {
	file    *tokenfile.File
	path    string      // resolved
	info    fs.FileInfo // of the token file; nil if it did not exist
	data    []byte      // content of the token file
	beside  *extensions
	settled bool // see settling

	rows func() *rowstore.Rows // created on first use
}

// Format prints only the type of s, so that package fmt does not print tokens.
func (s *snapshot) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*filestore.snapshot") }

// settling is the period after a change to a file in which unchanged times do not prove that the
// file is unchanged. File systems round times, some to two seconds, so another change within the
// period may leave size and times unchanged. During the period, a read compares the bytes.
const settling = 3 * time.Second

// readAt returns a snapshot of the file at path. path must be resolved.
func (f *file) readAt(path string) (*snapshot, error) {
	last := f.last.Load()
	if last != nil && last.path == path && last.settled && last.current() {
		return last, nil
	}
	before := time.Now()
	s, err := take(path)
	if err != nil {
		return nil, err
	}
	s.settled = s.info != nil && before.Sub(changed(s.info)) > f.settling &&
		(s.beside.info == nil || before.Sub(changed(s.beside.info)) > f.settling)
	if last != nil && s.sameBytes(last) {
		s.file, s.rows, s.data, s.beside = last.file, last.rows, last.data, s.beside.with(last.beside)
	} else if err := f.parse(s); err != nil {
		return nil, err
	}
	f.last.Store(s)
	return s, nil
}

// takes is the maximum number of times that take reads the files while another process keeps
// replacing the token file.
const takes = 100

// take reads the token file and the second file. A writer replaces the second file before the token
// file. The two contents therefore belong together if the token file is still unchanged after the
// second file was read. Otherwise take reads both files again. After the maximum number of
// attempts, the error matches tokenstore.ErrUnavailable.
func take(path string) (*snapshot, error) {
	for range takes {
		pin, _ := os.Open(path) // while pin is open, no other file gets its inode number
		s, err := takeOnce(path)
		if pin != nil {
			_ = pin.Close()
		}
		if s != nil || err != nil {
			return s, err
		}
	}
	return nil, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, errOverwritten)
}

// takeOnce reads the token file and the second file. It returns a nil snapshot and a nil error
// if the token file was changed meanwhile.
func takeOnce(path string) (s *snapshot, err error) {
	s = &snapshot{path: path}
	s.data, s.info, err = slurp(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := checkDir(path); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, classed(err)
	}
	if s.beside, err = readExtensions(path); err != nil {
		return nil, classed(err)
	}
	if info, err := os.Stat(path); err == nil != (s.info != nil) || err == nil && !sameVersion(info, s.info) {
		return nil, nil
	}
	return s, nil
}

// current reports whether the token file and the second file have the same times and sizes as in
// s.
func (s *snapshot) current() bool {
	info, err := os.Stat(s.path)
	if err != nil || !sameVersion(info, s.info) {
		return false
	}
	beside, err := os.Lstat(s.path + Beside)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) && s.beside.info == nil
	}
	return s.beside.info != nil && sameVersion(beside, s.beside.info)
}

func (s *snapshot) sameBytes(other *snapshot) bool {
	return s.info != nil && other.info != nil && bytes.Equal(s.data, other.data) && bytes.Equal(s.beside.data, other.beside.data) &&
		(s.beside.info == nil) == (other.beside.info == nil)
}

// with gives x the parsed content of another value, the parameter parsed, and returns x. Both
// values must have the same data.
func (x *extensions) with(parsed *extensions) *extensions {
	x.data, x.all, x.byRecord = parsed.data, parsed.all, parsed.byRecord
	return x
}

func (f *file) parse(s *snapshot) (err error) {
	if s.info == nil {
		s.file, err = tokenfile.New(f.dialect)
	} else {
		f.parses.Add(1)
		s.file, err = tokenfile.Parse(s.data, f.dialect)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrCorrupt, err)
	}
	if err := s.beside.parse(); err != nil {
		return err
	}
	s.file.AnyID = f.anyID
	file, beside := s.file, s.beside
	s.rows = sync.OnceValue(func() *rowstore.Rows { return rowsOf(file, beside.of) })
	return nil
}

// change returns a copy of the snapshot that may be modified.
func (s *snapshot) change() *view {
	return &view{File: s.file.Clone(), info: s.info, data: s.data, beside: s.beside}
}

// sameVersion reports whether a and b describe the same file with the same size and times. See
// settling.
func sameVersion(a, b fs.FileInfo) bool {
	return sameState(a, b) && changed(a).Equal(changed(b))
}

// changed returns the time of the last change to a file: the later of the modification time and the
// status change time. A program that sets the modification time back updates the status change
// time.
func changed(info fs.FileInfo) time.Time {
	at := info.ModTime()
	if t := statusTime(info); t.After(at) {
		at = t
	}
	return at
}
