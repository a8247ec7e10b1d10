package codec

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Dialects returns the dialects that the file may be in. What is written has the
// form of the first one, and suits all.
func (f *TokenFile) Dialects() []Dialect {
	names := make([]Dialect, 0, len(f.dialects))
	for _, d := range f.dialects {
		names = append(names, d.name)
	}
	return names
}

// Len returns the number of rows.
func (f *TokenFile) Len() int { return len(f.rows) }

// Row returns the i-th row, from 0.
func (f *TokenFile) Row(i int) Row { return f.rows[i].Row }

// Line returns the line of the file that the i-th row began at when it was read,
// from 1; 0 if it was not.
func (f *TokenFile) Line(i int) int { return f.rows[i].line }

// Set puts r in the place of the i-th row. The error matches ErrDialect if an SDK
// that reads the file could not read it back; then nothing is changed.
func (f *TokenFile) Set(i int, r Row) error {
	if f.rows[i].Row == r {
		return nil
	}
	if err := f.check(r, r.ID != f.rows[i].ID); err != nil {
		return err
	}
	f.rows[i].Row, f.rows[i].raw, f.rows[i].old = r, "", false
	return nil
}

// Append adds a row at the end. The error matches ErrDialect if an SDK that reads
// the file could not read it back; then nothing is changed.
func (f *TokenFile) Append(r Row) error {
	if err := f.check(r, true); err != nil {
		return err
	}
	f.rows = append(f.rows, row{Row: r})
	return nil
}

// Delete removes the i-th row.
func (f *TokenFile) Delete(i int) { f.rows = slices.Delete(f.rows, i, i+1) }

// NextID returns the ID for a new row: the number after the biggest ID there is.
// IDs up to the given one have been used before, and are not used again if that
// can be avoided. The error matches ErrDialect if there is no such number.
func (f *TokenFile) NextID(used int64) (string, error) {
	var biggest int64
	for _, r := range f.rows {
		if n, ok := IDNumber(r.ID); ok {
			biggest = max(biggest, n)
		}
	}
	limit := f.biggestID()
	if biggest >= limit {
		return "", fmt.Errorf("codec: %w: there is no ID after %d", ErrDialect, biggest)
	}
	if used < limit {
		biggest = max(biggest, used)
	}
	return strconv.FormatInt(biggest+1, 10), nil
}

// IDNumber returns the number that an ID is, if it is one that the SDKs count
// with.
func IDNumber(id string) (n int64, ok bool) {
	if len(id) == 0 || len(id) > 10 || strings.Trim(id, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil
}

// biggestID returns the biggest ID that all SDKs which may read the file can
// count with.
func (f *TokenFile) biggestID() int64 {
	limit := int64(tenDigits)
	for _, d := range f.dialects {
		limit = min(limit, d.biggestID)
	}
	return limit
}

// Bytes returns the file. It begins with a header, of ten columns: if there was
// none, the SDKs would have taken the first row for it. Rows of nine columns get
// the tenth, as the SDKs do it, because they fail where a row lacks it.
func (f *TokenFile) Bytes() []byte {
	var b strings.Builder
	b.WriteString(f.header)
	switch {
	case f.header == "":
		b.WriteString(strings.Join(f.dialects[0].headerNames(), ","))
	case f.old:
		b.WriteString("," + columns[len(columns)-1].names[0])
	}
	eol := cmp.Or(f.headerEOL, f.eol)
	for _, r := range f.rows {
		b.WriteString(eol)
		if r.raw == "" {
			b.WriteString(f.dialects[0].line(r.Row))
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
func (d dialect) line(r Row) string {
	if ms, err := strconv.ParseInt(r.ExpiryTime, 10, 64); err == nil && d.early != 0 {
		r.ExpiryTime = strconv.FormatInt(ms-d.early, 10)
	}
	fields := make([]string, 0, len(columns))
	for _, c := range columns {
		value := *c.of(&r)
		switch {
		case value == "":
			value = d.null
		case d.quotes && (value == "null" || strings.ContainsAny(value, ",\"\r\n")):
			value = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
		}
		fields = append(fields, value)
	}
	return strings.Join(fields, ",")
}

// check returns an error if one of the SDKs that may read the file could not
// read r back.
func (f *TokenFile) check(r Row, newID bool) error {
	var fields []string
	for i, c := range columns {
		name, value := c.names[0], *c.of(&r)
		switch {
		case value == "null" && !f.AnyID:
			return fmt.Errorf("codec: %w: %s is the text that stands for an absent value", ErrDialect, name)
		case !utf8.ValidString(value):
			return fmt.Errorf("codec: %w: %s is not valid UTF-8", ErrDialect, name)
		case strings.ContainsAny(value, "\r\x00"):
			return fmt.Errorf("codec: %w: %s has a control character", ErrDialect, name)
		case i == expiryColumn && value != "" && strings.Trim(value, "0123456789") != "":
			return fmt.Errorf("codec: %w: %s is not a number", ErrDialect, name)
		}
		fields = append(fields, value)
		for _, d := range f.dialects {
			if err := d.check(i, value, !f.AnyID); err != nil {
				return err
			}
		}
	}
	switch {
	case r.ID == "":
		return fmt.Errorf("codec: %w: it has no ID", ErrDialect)
	case line{fields: fields}.header():
		return fmt.Errorf("codec: %w: it looks like a header", ErrDialect)
	}
	if newID && !f.AnyID {
		n, ok := IDNumber(r.ID)
		if limit := f.biggestID(); !ok || n == 0 || n > limit || r.ID[0] == '0' {
			return fmt.Errorf("codec: %w: an ID is a number from 1 to %d", ErrDialect, limit)
		}
	}
	return nil
}

// check returns an error if value could not be read back from the i-th column, by
// the SDK in particular if that reads the file.
func (d dialect) check(i int, value string, sdk bool) error {
	name := columns[i].names[0]
	switch {
	case !d.quotes && value == "null":
		return fmt.Errorf("codec: %w: %s is the text that stands for an absent value", ErrDialect, name)
	case !d.quotes && strings.ContainsAny(value, ",\"\n"):
		return fmt.Errorf("codec: %w: %s has a comma, quote or line break, and the dialect %s no quoting", ErrDialect, name, d.name)
	case !sdk:
		return nil
	case strings.ContainsAny(value, d.loses):
		return fmt.Errorf("codec: %w: %s has one of the characters %q, which the dialect %s loses", ErrDialect, name, d.loses, d.name)
	case slices.Contains(d.absent, value):
		return fmt.Errorf("codec: %w: %s is a text that stands for an absent value in the dialect %s", ErrDialect, name, d.name)
	case d.header && i < expiryColumn && slices.Contains(columns[i].names, value):
		return fmt.Errorf("codec: %w: %s is the name of its column, which the dialect %s takes for a record", ErrDialect, name, d.name)
	}
	return nil
}
