package tokenfile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
)

// Dialects returns the possible dialects of the file, the most likely first. Bytes writes new
// and changed rows in the first dialect. Unless AnyID is set, the SDKs of all these dialects
// can read new and changed rows.
func (f *File) Dialects() []codec.Dialect {
	names := make([]codec.Dialect, 0, len(f.dialects))
	for _, d := range f.dialects {
		names = append(names, d.name)
	}
	return names
}

// Clone returns an independent copy of f.
func (f *File) Clone() *File {
	c := *f
	c.rows = slices.Clone(f.rows)
	return &c
}

// Len returns the number of rows.
func (f *File) Len() int { return len(f.rows) }

// Row returns the fields of the i-th row. If the expiry time is unreadable, Row returns
// the other fields and an error that does not quote the value.
func (f *File) Row(i int) (codec.Fields, error) { return f.rows[i].Fields, f.rows[i].damage }

// Line returns the number, from 1, of the line at which the i-th row began in the parsed file.
// It returns 0 for a new row.
func (f *File) Line(i int) int { return f.rows[i].line }

// Set replaces the i-th row with r. If the file cannot represent r, Set does not change the file,
// and the error matches ErrDialect. The error also matches ErrDialect if r changes a row whose
// expiry time is unreadable.
func (f *File) Set(i int, r codec.Fields) error {
	was := &f.rows[i]
	if was.Fields == r {
		return nil
	}
	if was.damage != nil {
		return fmt.Errorf("tokenfile: %w: %w", ErrDialect, was.damage)
	}
	if err := f.check(r, r.ID != was.ID); err != nil {
		return err
	}
	was.Fields, was.raw, was.old = r, "", false
	return nil
}

// Append adds the row r at the end. If the file cannot represent r, Append does not change the
// file, and the error matches ErrDialect.
func (f *File) Append(r codec.Fields) error {
	if err := f.check(r, true); err != nil {
		return err
	}
	f.rows = append(f.rows, row{Fields: r})
	return nil
}

// Delete removes the i-th row. The indices of later rows decrease by one.
func (f *File) Delete(i int) { f.rows = slices.Delete(f.rows, i, i+1) }

// NextID returns the ID for a new row. The ID is one more than the larger of two numbers: the
// parameter used, and the largest ID in the file that codec.IDNumber accepts. NextID ignores the
// parameter used if the dialects allow no larger ID. The error matches ErrDialect if the dialects
// allow no ID larger than the largest ID in the file.
func (f *File) NextID(used int64) (string, error) {
	var biggest int64
	for _, r := range f.rows {
		if n, ok := codec.IDNumber(r.ID); ok {
			biggest = max(biggest, n)
		}
	}
	limit := f.biggestID()
	if biggest >= limit {
		return "", fmt.Errorf("tokenfile: %w: there is no ID after %d", ErrDialect, biggest)
	}
	if used < limit {
		biggest = max(biggest, used)
	}
	return strconv.FormatInt(biggest+1, 10), nil
}

// biggestID returns the largest ID that is within the limits of all dialects of f.
func (f *File) biggestID() int64 {
	limit := int64(tenDigits)
	for _, d := range f.dialects {
		limit = min(limit, d.biggestID)
	}
	return limit
}

// Bytes returns the content of the file. The content begins with a header of ten columns,
// because the SDKs skip the first row. Rows of nine columns get an empty tenth column, because the
// SDKs fail for a row of nine columns.
func (f *File) Bytes() []byte {
	var b strings.Builder
	b.WriteString(f.header)
	switch {
	case f.header == "":
		b.WriteString(strings.Join(f.dialects[0].headerNames(), ","))
	case f.old:
		b.WriteString("," + columns[oldColumns][0])
	}
	eol := cmp.Or(f.headerEOL, f.eol)
	for _, r := range f.rows {
		b.WriteString(eol)
		if r.raw == "" {
			b.WriteString(f.dialects[0].line(r.Fields))
		} else {
			b.WriteString(r.raw)
		}
		if r.old {
			b.WriteByte(',')
		}
		eol = cmp.Or(r.eol, f.eol)
	}
	if f.final {
		b.WriteString(eol)
	}
	return []byte(b.String())
}

// line returns r in the dialect d, without a line break.
func (d dialect) line(r codec.Fields) string {
	if r.ExpiryTime != 0 {
		r.ExpiryTime -= d.early
	}
	text := r.Columns()
	for i, value := range text {
		switch {
		case value == "":
			text[i] = d.null
		case d.quotes && (value == "null" || strings.ContainsAny(value, ",\"\r\n")):
			text[i] = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
		}
	}
	return strings.Join(text, ",")
}

// check returns an error that matches ErrDialect if the file cannot represent the row r. If newID
// is set, check also returns an error for an ID that the SDKs cannot increment.
func (f *File) check(r codec.Fields, newID bool) error {
	text := r.Columns()
	for i, value := range text {
		if err := f.checkColumn(i, value); err != nil {
			return err
		}
	}
	switch names := r.Extended(); {
	case len(names) > 0:
		return fmt.Errorf("tokenfile: %w: there is no column for %s", ErrDialect, strings.Join(names, ", "))
	case r.ID == "":
		return fmt.Errorf("tokenfile: %w: it has no ID", ErrDialect)
	case r.ExpiryTime < 0:
		return fmt.Errorf("tokenfile: %w: expiry_time is not a number", ErrDialect)
	case line{fields: text}.header():
		return fmt.Errorf("tokenfile: %w: it looks like a header", ErrDialect)
	}
	if newID && !f.AnyID {
		n, ok := codec.IDNumber(r.ID)
		if limit := f.biggestID(); !ok || n == 0 || n > limit || r.ID[0] == '0' {
			return fmt.Errorf("tokenfile: %w: an ID must be a number from 1 to %d", ErrDialect, limit)
		}
	}
	return nil
}

func (f *File) checkColumn(i int, value string) error {
	name := columns[i][0]
	switch {
	case value == "null" && !f.AnyID:
		return fmt.Errorf("tokenfile: %w: %s is the text that stands for an absent value", ErrDialect, name)
	case !utf8.ValidString(value):
		return fmt.Errorf("tokenfile: %w: %s is not valid UTF-8", ErrDialect, name)
	case strings.ContainsAny(value, "\r\x00"):
		return fmt.Errorf("tokenfile: %w: %s has a control character", ErrDialect, name)
	}
	for _, d := range f.dialects {
		if err := d.check(i, value, !f.AnyID); err != nil {
			return err
		}
	}
	return nil
}

// check returns an error if this package would read the value in the i-th column as a different
// value. If sdk is set, check also returns an error if the SDK would misread the value.
func (d dialect) check(i int, value string, sdk bool) error {
	name := columns[i][0]
	switch {
	case !d.quotes && value == "null":
		return fmt.Errorf("tokenfile: %w: %s is the text that stands for an absent value", ErrDialect, name)
	case !d.quotes && strings.ContainsAny(value, ",\"\n"):
		return fmt.Errorf("tokenfile: %w: %s has a comma, quote or line break, and the dialect %s no quoting", ErrDialect, name, d.name)
	case !sdk:
		return nil
	case strings.ContainsAny(value, d.loses):
		return fmt.Errorf("tokenfile: %w: %s has one of the characters %q, which the dialect %s loses", ErrDialect, name, d.loses, d.name)
	case slices.Contains(d.absent, value):
		return fmt.Errorf("tokenfile: %w: %s is a text that stands for an absent value in the dialect %s", ErrDialect, name, d.name)
	case d.header && i < expiryColumn && slices.Contains(columns[i], value):
		return fmt.Errorf("tokenfile: %w: %s is the name of its column, which the dialect %s takes for a record", ErrDialect, name, d.name)
	}
	return nil
}
