package filestore

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A view is a token file that is being changed. It implements rowstore.Writer for the rows.
type view struct {
	*tokenfile.File
	info fs.FileInfo // describes the file when it was read; nil if the file did not exist
	data []byte      // the content that was read
	gone []int       // rows that were removed but are still in the File

	beside   *extensions           // the second file as it was read
	puts     map[string]*extension // extensions of rows that were put, by rowDigest; nil for a row without one
	extended []string              // names of the fields that need an extension

	used    int64 // largest ID of records deleted in earlier changes
	removed int64 // largest ID of records deleted in this change
}

func (v *view) rows() *rowstore.Rows {
	rows := rowsOf(v.File, v.extensionOf)
	rows.Writer = v
	return rows
}

// rowsOf returns the rows of file with the extensions that the function beside returns for the
// rows. The SDKs append rows, so the later of two rows is the newer row.
func rowsOf(file *tokenfile.File, beside func(codec.Fields) *extension) *rowstore.Rows {
	rows := &rowstore.Rows{Place: func(i int) string { return fmt.Sprintf("line %d", file.Line(i)) }}
	rows.Grow(file.Len())
	for i := range file.Len() {
		f, damage := file.Row(i)
		if e := beside(f); e != nil {
			damage = cmp.Or(damage, e.Apply(&f))
		}
		rows.Add(f, damage)
	}
	return rows
}

// NextID implements rowstore.Writer.
func (v *view) NextID(context.Context) (string, error) {
	id, err := v.File.NextID(v.used)
	if err != nil {
		return "", fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
	}
	return id, nil
}

// Put implements rowstore.Writer.
func (v *view) Put(_ context.Context, i int, f codec.Fields) error {
	if err := rowstore.Check(f, i < 0 && v.AnyID); err != nil {
		return err
	}
	row, err := codec.ParseColumns(f.Columns())
	if err == nil && i < 0 {
		err = v.Append(row)
	} else if err == nil {
		err = v.Set(i, row)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
	}
	v.extended = append(v.extended, f.Extended()...)
	return v.extend(f)
}

// Remove implements rowstore.Writer.
func (v *view) Remove(_ context.Context, rows []int, _ bool) error {
	for _, i := range rows {
		f, _ := v.Row(i)
		if n, ok := codec.IDNumber(f.ID); ok {
			v.removed = max(v.removed, n)
		}
	}
	v.gone = append(v.gone, rows...)
	return nil
}

// Reread implements rowstore.Writer.
func (v *view) Reread(context.Context) (*rowstore.Rows, error) {
	v.drop()
	return v.rows(), nil
}

// drop deletes the rows listed in v.gone from the File, and empties the list.
func (v *view) drop() {
	slices.Sort(v.gone)
	for _, i := range slices.Backward(v.gone) {
		v.Delete(i)
	}
	v.gone = nil
}

// Read implements rowstore.Source.
func (f *file) Read(ctx context.Context, _ *codec.Fields) (*rowstore.Rows, error) {
	is, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	return is.rows(), nil
}

// Update implements rowstore.Source.
func (f *file) Update(ctx context.Context, _ *codec.Fields, change rowstore.Change) error {
	return f.update(ctx, func(v *view) (bool, error) { return change(ctx, v.rows()) })
}

// Precheck implements rowstore.Table. It accepts every plan. Put checks the fields instead,
// because another program may change the dialect of the file before the lock is taken.
func (f *file) Precheck(context.Context, rules.Plan) error { return nil }

// Fits implements rowstore.Table.
func (f *file) Fits(ctx context.Context) (func(codec.Fields) error, error) {
	is, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	v := is.change()
	return func(fields codec.Fields) error {
		fields.ID = cmp.Or(fields.ID, "1")
		err := v.Put(ctx, -1, fields)
		if err == nil {
			v.Delete(v.Len() - 1)
		}
		return err
	}, nil
}

// Erased implements rowstore.Table.
func (f *file) Erased(_ context.Context, ids []string, _ bool) error {
	for _, id := range ids {
		f.forgetRefusal(id)
	}
	return nil
}
