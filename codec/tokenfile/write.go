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

// Dialects returns the dialects that the file may be in. Values are written in the form
// of the first one, and suit all.
func (f *File) Dialects() []codec.Dialect {
	names := make([]codec.Dialect, 0, len(f.dialects))
	for _, d := range f.dialects {
		names = append(names, d.name)
	}
	return names
}

// Len returns the number of rows.
func (f *File) Len() int { return len(f.rows) }

// Row returns the fields of the i-th row, from 0. If the expiry time cannot be read,
// the other fields are returned with the error.
func (f *File) Row(i int) (codec.Fields, error) { return f.rows[i].Fields, f.rows[i].damage }

// Line returns the line of the file, from 1, at which the i-th row began when it was
// read. It returns 0 for a new row.
func (f *File) Line(i int) int { return f.rows[i].line }

// Set replaces the i-th row with r. The error matches ErrDialect if an SDK that reads
// the file could not read r back; nothing is changed then.
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

// Append adds a row at the end. The error matches ErrDialect if an SDK that reads the
// file could not read the row back; nothing is changed then.
func (f *File) Append(r codec.Fields) error {
	if err := f.check(r, true); err != nil {
		return err
	}
	f.rows = append(f.rows, row{Fields: r})
	return nil
}

// Delete removes the i-th row.
func (f *File) Delete(i int) { f.rows = slices.Delete(f.rows, i, i+1) }

// NextID returns the ID for a new row: the number after the biggest ID in the file. IDs
// up to used were in use before, and are not used again if that can be avoided. The
// error matches ErrDialect if there is no such number.
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

// biggestID returns the biggest ID that all SDKs which may read the file can
// count with.
func (f *File) biggestID() int64 {
	limit := int64(tenDigits)
	for _, d := range f.dialects {
		limit = min(limit, d.biggestID)
	}
	return limit
}

// Bytes returns the file. It begins with a header of ten columns. Without a header the
// SDKs would take the first row for one. Rows of nine columns get the tenth, as the
// SDKs do it, because they fail if a row lacks it.
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

// line returns r as d writes it, without a line break.
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

// check returns an error if one of the SDKs that may read the file could not
// read r back.
func (f *File) check(r codec.Fields, newID bool) error {
	text := r.Columns()
	for i, value := range text {
		if err := f.checkColumn(i, value); err != nil {
			return err
		}
	}
	switch {
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
			return fmt.Errorf("tokenfile: %w: an ID is a number from 1 to %d", ErrDialect, limit)
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

// check returns an error if value could not be read back from the i-th column. If sdk
// is set, the SDK itself must be able to read it.
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
