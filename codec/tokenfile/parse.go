package tokenfile

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
)

// A File is the token file of a Zoho SDK. Rows that are not changed stay as they are,
// byte for byte, whatever their quoting, line break and spelling.
//
// Its methods are not safe for concurrent use.
type File struct {
	// AnyID permits every ID, because no SDK reads the file. Otherwise all SDKs that
	// may read the file must be able to count with a new ID. It is a decimal number of
	// up to ten digits, or below 2^31 where an SDK needs that.
	AnyID bool

	dialects  []dialect // the dialect of the file, or those that it may be in; the first is written
	header    string    // as it stands there, without its line break; empty: there is none
	headerEOL string    // its line break
	old       bool      // the header has no api_domain
	rows      []row
	eol       string // of rows that have none of their own
	final     bool   // the last line ends with a line break too
}

// Format keeps credentials out of whatever prints a File.
func (f File) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "tokenfile.File{redacted}") }

// LogValue keeps credentials out of logs.
func (f File) LogValue() slog.Value { return slog.StringValue("tokenfile.File{redacted}") }

// A row is the fields of one row and where they come from.
type row struct {
	codec.Fields
	damage error  // why the expiry time cannot be read
	line   int    // 0: a row that was not in the file
	raw    string // the text in the file, without its line break; empty: it has to be written
	eol    string
	old    bool // it has no api_domain
}

// New returns an empty file. If d is empty, it is in the dialect Python.
func New(d codec.Dialect) (*File, error) {
	if d == "" {
		d = codec.Python
	}
	known, err := lookup(d)
	if err != nil {
		return nil, err
	}
	return &File{dialects: []dialect{known}, eol: known.eols[0], final: known.final}, nil
}

// Parse reads a token file. If d is empty, Parse determines the dialect as well as the
// bytes allow. If several SDKs write the same bytes, new values have to suit all of
// them, and expiry_time is not read as that of CSharp.
//
// Parse reads the output of every SDK in every version: nine or ten columns by their
// position, both names of those columns that have two, all line breaks, blank lines, a
// byte order mark, and a file without a header. The text "null" is an absent value,
// unless it is quoted.
//
// Parse also reads unambiguous changes by other programs: text in UTF-16 with a byte
// order mark, columns without a name and content at the ends of all lines, and expiry
// times as codec.ParseColumns reads them. The error names other forms that are known.
//
// A file that does not end as the SDK ends it, or that ends in the middle of a row, is
// cut off. The error then matches codec.ErrFormat, as all other errors do, and names
// the line.
func Parse(data []byte, d codec.Dialect) (*File, error) {
	text, err := decode(data)
	if err != nil {
		return nil, err
	}
	if d != "" {
		known, err := lookup(d)
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
		// The quote may begin an unquoted value, in the file of an SDK that does not
		// know quoting.
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

// cut is scan, without the columns that a spreadsheet adds.
func cut(text string, quotes bool) ([]line, error) {
	lines, err := scan(text, quotes)
	if err != nil {
		return nil, err
	}
	return trim(lines)
}

// scan cuts text into lines and lines into fields. If quotes is set, a field may be
// quoted, and may contain commas and line breaks. Lines without content are left out.
func scan(text string, quotes bool) ([]line, error) {
	var lines []line
	for at, number := 0, 1; at < len(text); {
		l, end, err := scanLine(text, at, number, quotes)
		if err != nil {
			return nil, err
		}
		number += breaks(text[at:end])
		at = end
		if strings.Trim(l.raw, ", \t") != "" {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// scanLine returns the line that begins at text[at], and where the next one begins.
func scanLine(text string, at, number int, quotes bool) (l line, end int, err error) {
	l.number = number
	for begin := at; ; at++ {
		var field string
		quoted := quotes && at < len(text) && text[at] == '"'
		if quoted {
			on := number + breaks(text[begin:at])
			if field, at, err = quotedField(text, at); err != nil {
				return l, 0, fmt.Errorf("tokenfile: %w: line %d, column %d: %w", codec.ErrFormat, on, len(l.fields)+1, err)
			}
		} else {
			end := len(text)
			if n := strings.IndexAny(text[at:], ",\r\n"); n >= 0 {
				end = at + n
			}
			field, at = text[at:end], end
		}
		l.fields, l.quoted = append(l.fields, field), append(l.quoted, quoted)
		if at == len(text) || text[at] != ',' {
			l.raw = text[begin:at]
			break
		}
	}
	// Python on Windows writes CR CR LF. Consecutive line breaks are blank lines in any
	// case, so all CRs can be taken together.
	end = at
	for end < len(text) && text[end] == '\r' {
		end++
	}
	if end < len(text) && text[end] == '\n' {
		end++
	}
	l.eol = text[at:end]
	return l, end, nil
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

// A specimen has the features of a file that tell the dialects apart.
type specimen struct {
	first, last line
	rows        []line // without the header
	quoted      bool   // a field is
	null, empty bool   // a field has the text null, or none
}

// named reports whether the header uses the name for the column, or has no name for it.
func (s specimen) named(i int, name string) bool {
	fields := s.first.fields
	return !s.first.header() || len(fields) <= i || column(fields[i]) != i || fields[i] == name
}

// traits are the properties of a file in a dialect, the most telling first.
var traits = []func(s specimen, d dialect) bool{
	func(s specimen, d dialect) bool { return d.quotes || !s.quoted },
	func(s specimen, d dialect) bool { return (d.null == "") == !(s.null && !s.empty) },
	func(s specimen, d dialect) bool { return s.named(redirectColumn, d.redirect) },
	// If no rows are left, C# leaves a header without a line break.
	func(s specimen, d dialect) bool {
		return (s.last.eol != "") == d.final || len(s.rows) == 0 && d.name == codec.CSharp
	},
	func(s specimen, d dialect) bool { return s.named(userColumn, d.user) },
	func(s specimen, d dialect) bool { return s.first.eol == "" || slices.Contains(d.eols, s.first.eol) },
}

// detect returns the dialects that the lines may be in, the likeliest first. If no
// dialect has all traits, because an editor has changed the file or an older SDK has
// written it, the least telling traits do not count.
func detect(lines []line) []dialect {
	if len(lines) == 0 {
		return []dialect{dialects[0]}
	}
	s := specimen{first: lines[0], last: lines[len(lines)-1], rows: lines}
	if s.first.header() {
		s.rows = lines[1:]
	}
	for _, l := range s.rows {
		s.quoted = s.quoted || slices.Contains(l.quoted, true)
		s.null = s.null || slices.Contains(l.fields, "null")
		s.empty = s.empty || slices.Contains(l.fields, "")
	}
	for count := len(traits); ; count-- {
		found := slices.DeleteFunc(slices.Clone(dialects), func(d dialect) bool {
			return slices.ContainsFunc(traits[:count], func(has func(specimen, dialect) bool) bool { return !has(s, d) })
		})
		if len(found) > 0 {
			for i := range found {
				found[i].early = 0 // a guess that is too late would keep an expired token in use
			}
			return found
		}
	}
}

// assemble makes a file of lines.
func assemble(lines []line, candidates []dialect) (*File, error) {
	f := &File{dialects: candidates, eol: candidates[0].eols[0], final: candidates[0].final}
	if len(lines) == 0 {
		return f, nil
	}
	switch eol := lines[0].eol; {
	case strings.HasSuffix(eol, "\r\n"):
		f.eol = "\r\n"
	case eol != "":
		f.eol = eol[:1]
	}
	if lines[0].header() {
		if err := f.begin(lines[0]); err != nil {
			return nil, err
		}
		lines = lines[1:]
	}
	for i, l := range lines {
		if l.header() {
			return nil, fmt.Errorf("tokenfile: %w: line %d: a second header", codec.ErrFormat, l.number)
		}
		if err := l.complete(); err != nil {
			return nil, err
		}
		if i == len(lines)-1 {
			if err := f.end(l); err != nil {
				return nil, err
			}
		}
		f.rows = append(f.rows, l.row(candidates[0].early))
	}
	return f, nil
}

// begin notes the header.
func (f *File) begin(header line) error {
	f.header, f.headerEOL = header.raw, header.eol
	f.final = f.final || header.eol != ""
	f.old = len(header.fields) < len(columns)
	for i, name := range header.fields {
		if at := column(name); at >= 0 && at != i {
			return fmt.Errorf("tokenfile: %w: line %d: the columns are in another order", codec.ErrFormat, header.number)
		}
	}
	if err := header.complete(); err != nil {
		return err
	}
	if header.eol == "" && column(header.fields[len(header.fields)-1]) < 0 {
		return cutOff(header)
	}
	return nil
}

// end notes how the last line ends. It returns an error if the file is cut off there.
func (f *File) end(last line) error {
	f.final = last.eol != ""
	cutRow := len(last.fields) < len(columns) && f.header != "" && !f.old
	cutFile := !slices.ContainsFunc(f.dialects, func(d dialect) bool { return !d.final })
	if !f.final && (cutRow || cutFile) {
		return cutOff(last)
	}
	return nil
}

// cutOff returns the error of a file whose last line is l.
func cutOff(l line) error {
	return fmt.Errorf("tokenfile: %w: line %d: the file is cut off: the last line has no line break", codec.ErrFormat, l.number)
}

// complete returns an error if l has too few columns for a row.
func (l line) complete() error {
	if n := len(l.fields); n < oldColumns {
		return fmt.Errorf("tokenfile: %w: line %d has %d of %d or %d columns", codec.ErrFormat, l.number, n, oldColumns, len(columns))
	}
	return nil
}

// row returns the row in l.
func (l line) row(early int64) row {
	r := row{line: l.number, raw: l.raw, eol: l.eol, old: len(l.fields) < len(columns)}
	text := make([]string, len(columns))
	for i, value := range l.fields {
		if value != "null" || l.quoted[i] {
			text[i] = value
		}
	}
	r.Fields, r.damage = codec.ParseColumns(text)
	if r.ExpiryTime != 0 {
		r.ExpiryTime += early
	}
	return r
}
