package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// Beside is the suffix of the second file: the token file at path has its second file at path +
// Beside. The second file holds the fields for which the SDKs have no column.
const Beside = ".tokenkeep"

// A process cannot replace two files in one step. commit therefore first writes the extensions of
// both the old and the new rows to the second file, and then writes the token file. Finally, commit
// writes the second file again, with the extensions of the new rows only. Each extension identifies
// the state of its row by a digest.

const extensionsVersion = 1

// An extension holds the fields of one record that have no column in the token file.
type extension struct {
	Row string `json:"row"` // a digest of all columns, which identifies the state of the row
	rowstore.Extension
}

// extensions is the content of the second file.
type extensions struct {
	info     fs.FileInfo // nil if the file does not exist
	data     []byte
	all      []extension
	byRecord map[string][]int // indices of all extensions of a record
}

// Format prints only the type of x, so that package fmt does not print tokens.
func (x *extensions) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*filestore.extensions") }

// readExtensions reads the second file of the token file at path, without parsing the second file.
// If the second file does not exist, the result is empty.
func readExtensions(path string) (*extensions, error) {
	x := &extensions{}
	err := persist(func() (err error) {
		if x.info, err = lstatRegular(path + Beside); err == nil {
			x.data, err = os.ReadFile(path + Beside)
		}
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &extensions{}, nil
	case err != nil:
		return nil, err
	}
	return x, nil
}

func (x *extensions) parse() error {
	if x.info == nil {
		return nil
	}
	var file struct {
		Version int         `json:"v"`
		Rows    []extension `json:"rows"`
	}
	if json.Unmarshal(x.data, &file) != nil || file.Version < 1 {
		return fmt.Errorf("%w: the file %s beside it cannot be read", tokenstore.ErrCorrupt, Beside)
	}
	if file.Version > extensionsVersion {
		return fmt.Errorf("%w: the file %s beside it has version %d, this program reads up to %d", tokenstore.ErrCorrupt, Beside, file.Version, extensionsVersion)
	}
	x.all = file.Rows
	x.byRecord = make(map[string][]int, len(x.all))
	for i, e := range x.all {
		x.byRecord[e.Record] = append(x.byRecord[e.Record], i)
	}
	return nil
}

// of returns the extension for the row of f, or nil. It prefers the extension of the row's current
// state, then the last extension with the row's access token, then the record's last extension.
func (x *extensions) of(f codec.Fields) *extension {
	if len(x.all) == 0 {
		return nil
	}
	record, token := rowstore.Digests(f)
	row := rowDigest(f)
	var found *extension
	for _, i := range x.byRecord[record] {
		switch e := &x.all[i]; {
		case e.Row == row:
			return e
		case found == nil || e.Token == token || found.Token != token:
			found = e
		}
	}
	return found
}

func rowDigest(f codec.Fields) string {
	return rowstore.Digest(append([]string{"row"}, f.Columns()...)...)
}

// encodeExtensions returns the content of the second file, or nil if there are no extensions.
func encodeExtensions(all []extension) ([]byte, error) {
	if len(all) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"v\":%d,\"rows\":[", extensionsVersion)
	for i, e := range all {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes(), nil
}

// extend stores in v.puts the extension for the row of f, or nil if the row needs none. f must have
// all fields of the record.
func (v *view) extend(f codec.Fields) error {
	e, needs, err := rowstore.Extend(f)
	if err != nil {
		return err
	}
	if v.puts == nil {
		v.puts = map[string]*extension{}
	}
	row := rowDigest(f)
	v.puts[row] = nil
	if needs {
		v.puts[row] = &extension{row, e}
	}
	return nil
}

// extensionOf returns the extension for the row of f, or nil.
func (v *view) extensionOf(f codec.Fields) *extension {
	if len(v.puts) > 0 {
		if e, put := v.puts[rowDigest(f)]; put {
			return e
		}
	}
	return v.beside.of(f)
}

// after returns the extensions of all rows in v, including the changed rows.
func (v *view) after() (all []extension) {
	if len(v.puts) == 0 && len(v.beside.all) == 0 {
		return nil
	}
	for i := range v.Len() {
		f, _ := v.Row(i)
		if e := v.extensionOf(f); e != nil {
			all = append(all, *e)
		}
	}
	return all
}

// commit writes the second file and, if the rows of v have changed, the token file at path. erase
// reports whether rows were removed. If erase is true, commit fails if it cannot remove the
// extensions of the removed rows.
func (v *view) commit(path string, erase bool) error {
	after := v.after()
	exact, err := encodeExtensions(after)
	if err != nil {
		return err
	}
	data := v.Bytes()
	if v.info != nil && bytes.Equal(data, v.data) {
		return v.writeExtensions(path, exact)
	}
	added := slices.DeleteFunc(slices.Clone(after), func(e extension) bool {
		return slices.ContainsFunc(v.beside.all, func(was extension) bool { return was.Row == e.Row && bytes.Equal(was.Fields, e.Fields) })
	})
	if len(added) > 0 {
		both, err := encodeExtensions(slices.Concat(v.beside.all, added))
		if err == nil {
			err = v.writeExtensions(path, both)
		}
		if err != nil {
			return v.noPlace(path, err)
		}
	}
	if mountPoint(path) {
		err = overwrite(path, data, v)
	} else {
		err = replace(path, data, v.info)
	}
	if err != nil {
		return err
	}
	if err := v.writeExtensions(path, exact); err != nil && erase {
		return fmt.Errorf("the records are removed, but fields of them are still in the file %s: %w", Beside, err)
	}
	return nil // after a failed last write, entries without a row remain until the next write
}

// noPlace returns the error to report after a write of the second file failed with err. If the
// token file is a mount point in a directory that is not writable, the error matches
// tokenstore.ErrInvalidToken. The error then also names the fields that cannot be stored.
func (v *view) noPlace(path string, err error) error {
	if !mountPoint(path) || !unwritable(err) {
		return err
	}
	slices.Sort(v.extended)
	return fmt.Errorf("%w: the file alone is mounted, and nothing can be written beside it: there is no place for %s",
		tokenstore.ErrInvalidToken, strings.Join(slices.Compact(v.extended), ", "))
}

// writeExtensions replaces the content of the second file with data, or removes the file if data
// is nil.
func (v *view) writeExtensions(path string, data []byte) error {
	name := path + Beside
	is, err := readExtensions(path)
	if err != nil {
		return err
	}
	if bytes.Equal(is.data, data) && (is.info == nil) == (data == nil) {
		return nil
	}
	if data == nil {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	old := v.info
	if is.info != nil {
		old = is.info
	}
	temp, err := writeBeside(name, data, old)
	if err != nil {
		return err
	}
	if err := persist(func() error { return os.Rename(temp, name) }); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}
