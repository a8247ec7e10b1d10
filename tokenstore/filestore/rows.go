package filestore

import (
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// A view is the file at one moment.
type view struct {
	rowset.View
	file *codec.TokenFile
	info fs.FileInfo // of the file; nil: there was none
	data []byte      // what it holds

	used    int64 // the biggest ID of the records that were deleted before
	removed int64 // and of those that are removed now
}

// look makes a view of a parsed file. Of two records the one further down is
// taken for the newer one: the SDKs append.
func look(file *codec.TokenFile, info fs.FileInfo) *view {
	v := &view{file: file, info: info}
	for i := range file.Len() {
		v.Add(file.Row(i), fmt.Sprintf("line %d", file.Line(i)), time.Unix(int64(i), 0))
	}
	return v
}

// apply does what the plan says, and returns what is stored.
func (v *view) apply(p tokenstore.Plan, anyID bool) (tokenstore.Token, error) {
	t := p.Token
	if p.Record < 0 {
		if anyID {
			if err := rowset.CheckNewID(t.ID); err != nil {
				return t, err
			}
		}
		if t.ID == "" {
			id, err := v.file.NextID(v.used)
			if err != nil {
				return t, fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
			}
			t.ID = id
		}
	}
	if err := v.put(p.Record, t); err != nil {
		return t, err
	}
	for _, i := range slices.Backward(slices.Sorted(slices.Values(p.Absorb))) {
		v.remove(i)
	}
	return t, nil
}

// put stores t in the i-th row, or in a new one if i is negative.
func (v *view) put(i int, t tokenstore.Token) error {
	if err := rowset.CheckSize(t); err != nil {
		return err
	}
	var err error
	if i < 0 {
		err = v.file.Append(rowset.Row(t))
	} else {
		err = v.file.Set(i, rowset.Row(t))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
	}
	return nil
}

// remove removes the i-th row from the file. The records of the view stay as
// they were read.
func (v *view) remove(i int) {
	if n, ok := codec.IDNumber(v.Records[i].Token.ID); ok {
		v.removed = max(v.removed, n)
	}
	v.file.Delete(i)
}
