package filestore

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A view is the file at one moment, and the Writer of its rows.
type view struct {
	*tokenfile.File
	info fs.FileInfo // of the file; nil: there was none
	data []byte      // what it holds
	gone []int       // rows that were removed, and are still in the File

	used    int64 // the biggest ID of the records that were deleted before
	removed int64 // and of those that are removed now
}

// rows returns the rows of the view. The SDKs append: of two records the one further
// down is the newer one.
func (v *view) rows() *rowstore.Rows {
	rows := &rowstore.Rows{Writer: v}
	for i := range v.Len() {
		f, damage := v.Row(i)
		rows.Add(f, damage, fmt.Sprintf("line %d", v.Line(i)))
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
	err := rowstore.Check(f, i < 0 && v.AnyID)
	switch {
	case err != nil:
		return err
	case i < 0:
		err = v.Append(f)
	default:
		err = v.Set(i, f)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
	}
	return nil
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

// drop takes the rows that were removed out of the File.
func (v *view) drop() {
	slices.Sort(v.gone)
	for _, i := range slices.Backward(v.gone) {
		v.Delete(i)
	}
	v.gone = nil
}

// Read implements rowstore.Source.
func (f *file) Read(ctx context.Context, _ *codec.Fields) (*rowstore.Rows, error) {
	v, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	rows := v.rows()
	rows.Current = func() bool {
		info, err := os.Stat(f.path)
		return err == nil && sameState(info, v.info)
	}
	return rows, nil
}

// Update implements rowstore.Source.
func (f *file) Update(ctx context.Context, _ *codec.Fields, change rowstore.Change) error {
	return f.update(ctx, func(v *view) (bool, error) { return change(ctx, v.rows()) })
}

// Precheck implements rowstore.Table. What the file can hold depends on its dialect,
// which another program may change: only a writer knows.
func (f *file) Precheck(context.Context, rules.Plan) error { return nil }

// Fits implements rowstore.Table.
func (f *file) Fits(ctx context.Context) (func(codec.Fields) error, error) {
	v, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
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
