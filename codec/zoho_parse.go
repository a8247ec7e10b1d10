package codec

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// A TokenFile is the token file of a Zoho SDK. Rows that are not changed stay as
// they are, byte for byte, whatever their quoting, line break and spelling.
//
// It has no methods that are safe to be called at once.
type TokenFile struct {
	// AnyID permits every ID, because no SDK reads the file. Otherwise a new ID
	// must be one that all the SDKs that may read the file can count with: a
	// decimal number of up to ten digits, or below 2^31 where an SDK needs that.
	AnyID bool

	dialects  []dialect // the one it is in; or those that it may be in, of which the first is written
	header    string    // as it stands there, without its line break; empty: there is none
	headerEOL string    // its line break
	old       bool      // the header has no api_domain
	rows      []row
	eol       string // of rows that have none of their own
	final     bool   // the last line ends with a line break too
}

// Format keeps credentials out of whatever prints a TokenFile.
func (f TokenFile) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "codec.TokenFile{redacted}") }

// LogValue keeps credentials out of logs.
func (f TokenFile) LogValue() slog.Value { return slog.StringValue("codec.TokenFile{redacted}") }

// A row is a Row and where it comes from.
type row struct {
	Row
	line int    // 0: a row that was not in the file
	raw  string // as it stands in the file, without its line break; empty: it has to be written anew
	eol  string
	old  bool // it has no api_domain
}

// NewTokenFile returns an empty file. If d is empty, it is in the dialect Python.
func NewTokenFile(d Dialect) (*TokenFile, error) {
	if d == "" {
		d = Python
	}
	known, err := d.lookup()
	if err != nil {
		return nil, err
	}
	return &TokenFile{dialects: []dialect{known}, eol: known.eols[0], final: known.final}, nil
}

// ParseTokenFile reads a token file. If d is empty, the dialect is found out as
// well as the bytes allow: where several SDKs write the same ones, what is put
// into the file has to suit all of them, and expiry_time is not taken for that
// of CSharp.
//
// It reads what any of the SDKs has written, in any of their versions: columns
// by their position, nine or ten of them, both names of those that have two,
// all line breaks, blank lines, a byte order mark; and a file without a header.
// The text "null" is an absent value, unless it is quoted. It reads what other programs
// make of such a file where that leaves no doubt: text in UTF-16 with a byte order mark,
// columns without a name and content at the ends of all lines, and expiry times as
// ParseExpiry does. Other forms that are known are named in the error.
//
// A file that does not end as the SDK ends it, or in the middle of a row, is cut
// off. The error then matches ErrFormat, as with all others, and names the line.
func ParseTokenFile(data []byte, d Dialect) (*TokenFile, error) {
	text, err := decode(data)
	if err != nil {
		return nil, err
	}
	if d != "" {
		known, err := d.lookup()
		if err != nil {
			return nil, err
		}
		lines, err := cut(text, !known.splits)
		if err != nil {
			return nil, err
		}
		return assemble(lines, []dialect{known})
	}
	lines, err := cut(text, true)
	if err != nil {
		// What is no quoted field may be a value that begins with a quote, in
		// the file of an SDK that knows no quoting.
		raw, rawErr := cut(text, false)
		if rawErr != nil {
			return nil, err
		}
		candidates := slices.DeleteFunc(detect(raw), func(d dialect) bool { return !d.splits })
		if len(candidates) == 0 {
			return nil, err
		}
		return assemble(raw, candidates)
	}
	return assemble(lines, detect(lines))
}

// A line is one row of text, cut into its fields.
type line struct {
	number int // of its first line in the file, from 1
	fields []string
	quoted []bool // the fields that are
	raw    string
	eol    string
}

// header reports whether l is a header: whether most of its fields are names of
// columns.
func (l line) header() bool {
	known := 0
	for _, f := range l.fields {
		if column(f) >= 0 {
			known++
		}
	}
	return known > len(columns)/2
}

// column returns the column that has the name, or -1.
func column(name string) int {
	for i, c := range columns {
		if slices.Contains(c.names, name) {
			return i
		}
	}
	return -1
}

// cut is scan, without the columns that a spreadsheet adds.
func cut(text string, quotes bool) ([]line, error) {
	lines, err := scan(text, quotes)
	if err != nil {
		return nil, err
	}
	return trim(lines)
}

// scan cuts text into lines and those into fields. If quotes is set a field may
// be quoted, and have commas and line breaks in it. Lines without any content are
// left out.
func scan(text string, quotes bool) ([]line, error) {
	var lines []line
	for at, number := 0, 1; at < len(text); {
		l := line{number: number}
		begin := at
		for {
			var field string
			var err error
			quoted := quotes && at < len(text) && text[at] == '"'
			if quoted {
				begin := at
				if field, at, err = quotedField(text, at); err != nil {
					return nil, fmt.Errorf("codec: %w: line %d, column %d: %w", ErrFormat, number, len(l.fields)+1, err)
				}
				number += breaks(text[begin:at])
			} else {
				end := len(text)
				if n := strings.IndexAny(text[at:], ",\r\n"); n >= 0 {
					end = at + n
				}
				field, at = text[at:end], end
			}
			l.fields, l.quoted = append(l.fields, field), append(l.quoted, quoted)
			if at == len(text) || text[at] != ',' {
				break
			}
			at++
		}
		l.raw = text[begin:at]
		// Python on Windows writes CR CR LF. Line breaks that follow each other
		// are blank lines anyhow, so that all CRs can be taken together.
		begin = at
		for at < len(text) && text[at] == '\r' {
			at++
		}
		if at < len(text) && text[at] == '\n' {
			at++
		}
		l.eol = text[begin:at]
		number += breaks(l.eol)
		if strings.Trim(l.raw, ", \t") != "" {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// quotedField reads the quoted field that begins at text[at], and returns where
// it ends.
func quotedField(text string, at int) (field string, end int, err error) {
	var b strings.Builder
	for at++; ; {
		i := strings.IndexByte(text[at:], '"')
		if i < 0 {
			return "", 0, errors.New("a quoted field does not end")
		}
		b.WriteString(text[at : at+i])
		at += i + 1
		switch {
		case at < len(text) && text[at] == '"':
			b.WriteByte('"')
			at++
		case at == len(text) || strings.ContainsRune(",\r\n", rune(text[at])):
			return b.String(), at, nil
		default:
			return "", 0, errors.New("there is text after a quoted field")
		}
	}
}

// breaks counts the line breaks in text: LF, CR LF, and CR.
func breaks(text string) int {
	return strings.Count(text, "\n") + strings.Count(text, "\r") - strings.Count(text, "\r\n")
}

// detect returns the dialects that the lines may be in, the likeliest first. What
// is true of no dialect (a file that an editor has changed, or an older SDK has
// written) is left out of account, the least telling first.
func detect(lines []line) []dialect {
	if len(lines) == 0 {
		return []dialect{dialects[0]}
	}
	first, last := lines[0], lines[len(lines)-1]
	rows := lines
	if first.header() {
		rows = lines[1:]
	}
	quoted, null, empty := false, false, false
	for _, l := range rows {
		quoted = quoted || slices.Contains(l.quoted, true)
		null = null || slices.Contains(l.fields, "null")
		empty = empty || slices.Contains(l.fields, "")
	}
	named := func(i int, name string) bool {
		return !first.header() || len(first.fields) <= i || column(first.fields[i]) != i || first.fields[i] == name
	}
	fits := []func(d dialect) bool{
		func(d dialect) bool { return d.quotes || !quoted },
		func(d dialect) bool { return (d.null == "") == !(null && !empty) },
		func(d dialect) bool { return named(redirectColumn, d.redirect) },
		// Where there are no rows left, C# leaves a header without a line break.
		func(d dialect) bool { return (last.eol != "") == d.final || len(rows) == 0 && d.name == CSharp },
		func(d dialect) bool { return named(userColumn, d.user) },
		func(d dialect) bool { return first.eol == "" || slices.Contains(d.eols, first.eol) },
	}
	for {
		found := slices.DeleteFunc(slices.Clone(dialects), func(d dialect) bool {
			return slices.ContainsFunc(fits, func(fit func(dialect) bool) bool { return !fit(d) })
		})
		if len(found) > 0 {
			for i := range found {
				found[i].early = 0 // a guess too late would have an expired token used
			}
			return found
		}
		fits = fits[:len(fits)-1]
	}
}

// assemble makes a file of lines.
func assemble(lines []line, candidates []dialect) (*TokenFile, error) {
	f := &TokenFile{dialects: candidates, eol: candidates[0].eols[0], final: candidates[0].final}
	if len(lines) == 0 {
		return f, nil
	}
	switch eol := lines[0].eol; {
	case strings.HasSuffix(eol, "\r\n"):
		f.eol = "\r\n"
	case eol != "":
		f.eol = eol[:1]
	}
	if first := lines[0]; first.header() {
		f.header, f.headerEOL = first.raw, first.eol
		f.final = f.final || first.eol != ""
		f.old = len(first.fields) < len(columns)
		for i, name := range first.fields {
			if at := column(name); at >= 0 && at != i {
				return nil, fmt.Errorf("codec: %w: line %d: the columns are in another order", ErrFormat, first.number)
			}
		}
		if err := first.complete(); err != nil {
			return nil, err
		}
		if first.eol == "" && column(first.fields[len(first.fields)-1]) < 0 {
			return nil, cutOff(first)
		}
		lines = lines[1:]
	}
	for i, l := range lines {
		if l.header() {
			return nil, fmt.Errorf("codec: %w: line %d: a second header", ErrFormat, l.number)
		}
		if err := l.complete(); err != nil {
			return nil, err
		}
		if last := i == len(lines)-1; last {
			f.final = l.eol != ""
			cutRow := len(l.fields) < len(columns) && f.header != "" && !f.old
			cutFile := !slices.ContainsFunc(candidates, func(d dialect) bool { return !d.final })
			if !f.final && (cutRow || cutFile) {
				return nil, cutOff(l)
			}
		}
		f.rows = append(f.rows, l.row(candidates[0].early))
	}
	return f, nil
}

// cutOff returns the error of a file whose last line is l.
func cutOff(l line) error {
	return fmt.Errorf("codec: %w: line %d: the file is cut off: the last line has no line break", ErrFormat, l.number)
}

// complete returns an error if l does not have as many columns as a row has.
func (l line) complete() error {
	if n := len(l.fields); n < oldColumns {
		return fmt.Errorf("codec: %w: line %d has %d of %d or %d columns", ErrFormat, l.number, n, oldColumns, len(columns))
	}
	return nil
}

// row returns the row that l is.
func (l line) row(early int64) row {
	r := row{line: l.number, raw: l.raw, eol: l.eol, old: len(l.fields) < len(columns)}
	for i, value := range l.fields {
		if value != "null" || l.quoted[i] {
			*columns[i].of(&r.Row) = value
		}
	}
	if ms, err := ParseExpiry(r.ExpiryTime); err == nil && r.ExpiryTime != "" {
		r.ExpiryTime = strconv.FormatInt(ms+early, 10)
	}
	return r
}
