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

// A File holds the content of a Zoho SDK's token file. Unchanged rows keep their bytes, including
// quotes and line breaks. New and Parse return Files; the zero File is not usable.
//
// The methods of a File are not safe for concurrent use. Rows are numbered from 0. Methods panic if
// a row does not exist.
type File struct {
	// AnyID makes Set and Append accept every ID and value that this package can read back. Set
	// AnyID if no SDK reads the file. Without AnyID, Set and Append refuse values that an SDK would
	// misread, and new IDs that are not numbers from 1 to the limit of the SDKs. The limit is
	// 9,999,999,999, or 2^31-2 for SDKs that cannot increment a larger number.
	AnyID bool

	dialects  []dialect // the possible dialects of the file; new and changed rows are written in the first
	header    string    // text of the header without its line break; empty if the file has no header
	headerEOL string    // line break of the header
	old       bool      // the header has no api_domain
	rows      []row
	eol       string // line break for rows that have none, such as new rows
	final     bool   // the last line also ends with a line break
}

// Format prints "tokenfile.File{redacted}" for every verb.
func (f File) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "tokenfile.File{redacted}") }

// LogValue returns "tokenfile.File{redacted}".
func (f File) LogValue() slog.Value { return slog.StringValue("tokenfile.File{redacted}") }

// A row holds the fields of one row, and its position and text in the parsed file.
type row struct {
	codec.Fields
	damage error  // why the expiry time cannot be read, or nil
	line   int    // 0 for a row that was not in the file
	raw    string // text in the file without its line break; empty if the row must be written
	eol    string
	old    bool // the row has no api_domain
}

// New returns an empty file. If d is empty, the file is in the dialect Python. New returns an
// error if d is unknown.
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

// Parse reads a token file in the dialect d. If d is empty, Parse determines the dialects in which
// SDKs might have written the file; see File.Dialects. In that case, Set and Append accept only
// rows that the SDKs of all these dialects would read unchanged, unless File.AnyID is set.
//
// The C# SDK writes expiry times ten minutes early. Parse adds the ten minutes only if d is
// CSharp, because a guess might mistake the file of another SDK for a file of the C# SDK.
//
// Parse reads the files of all SDKs and versions, except a file in which the SDK for Scala joined
// lines when it deleted a token. A row has nine or ten columns, which Parse reads by position. The
// header can be missing. For a column that has two names, the header can have either name. Parse
// accepts any kind of line break, and allows blank lines and a byte order mark. The text "null" is
// an absent value unless the text is quoted.
//
// Parse also reads files that other programs have changed unambiguously. Examples are UTF-16
// with a byte order mark, and empty columns without a name at the ends of all lines. Parse
// reads expiry times as codec.ParseColumns does. If the data is in another known form, the
// error names that form.
//
// Parse returns an error for a file that ends before the last column of a row, or without the
// final line break that its SDK writes. Errors about the data match codec.ErrFormat, name the
// line, and do not quote values. If d is unknown, the error does not match codec.ErrFormat.
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
		// An SDK that does not quote values may have written the file. In the files of such an SDK,
		// a value can begin with a quote.
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

// A line is one row of text, split into its fields.
type line struct {
	number int // the number of its first line in the file, from 1
	fields []string
	quoted []bool // whether each field is quoted; nil means that no field is quoted
	raw    string
	eol    string
}

// header reports whether l is a header: a line in which at least six fields are column names.
func (l line) header() bool {
	known := 0
	for i, f := range l.fields {
		if column(f) >= 0 {
			known++
		}
		if known+len(l.fields)-i-1 <= len(columns)/2 {
			return false
		}
	}
	return known > len(columns)/2
}

// cut is like scan, but also removes the columns that a spreadsheet adds. See trim.
func cut(text string, quotes bool) ([]line, error) {
	lines, err := scan(text, quotes)
	if err != nil {
		return nil, err
	}
	return trim(lines)
}

// scan splits text into lines and lines into fields. If quotes is set, a quoted field can
// contain commas and line breaks. scan omits blank lines.
func scan(text string, quotes bool) ([]line, error) {
	lines := make([]line, 0, strings.Count(text, "\n")+1)
	var room cells
	for at, number := 0, 1; at < len(text); {
		l, plain := plainLine(text[at:], quotes, &room)
		l.number = number
		end := at + len(l.raw) + len(l.eol)
		if !plain {
			var err error
			if l, end, err = scanLine(text, at, number, quotes); err != nil {
				return nil, err
			}
		}
		if len(l.eol) == 1 {
			number++
		} else {
			number += breaks(text[at:end])
		}
		at = end
		if !l.blank() {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// blank reports whether l consists only of commas, spaces and tabs.
func (l line) blank() bool {
	if l.raw != "" && l.raw[0] > ',' {
		return false
	}
	return strings.Trim(l.raw, ", \t") == ""
}

// cells is memory for the fields of many lines. Allocating memory for each line would take longer
// than splitting the line.
type cells []string

func (c *cells) take(n int) []string {
	if len(*c) < n {
		*c = make(cells, max(n, 1000*len(columns)))
	}
	taken := (*c)[:n:n]
	*c = (*c)[n:]
	return taken
}

// plainLine is a fast path of scanLine for the first line of text. ok is false if the line has a
// CR that does not belong to its line break or, if quotes is set, a quote.
func plainLine(text string, quotes bool, room *cells) (l line, ok bool) {
	end, next := len(text), len(text)
	if n := strings.IndexByte(text, '\n'); n >= 0 {
		end, next = n, n+1
	}
	for end > 0 && text[end-1] == '\r' {
		end--
	}
	l.raw, l.eol = text[:end], text[end:next]
	if strings.IndexByte(l.raw, '\r') >= 0 || quotes && strings.IndexByte(l.raw, '"') >= 0 {
		return l, false
	}
	l.fields = room.take(strings.Count(l.raw, ",") + 1)
	rest := l.raw
	for i := range len(l.fields) - 1 {
		n := strings.IndexByte(rest, ',')
		l.fields[i], rest = rest[:n], rest[n+1:]
	}
	l.fields[len(l.fields)-1] = rest
	return l, true
}

// scanLine returns the line that begins at text[at], and the index at which the next line
// begins.
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
	// Python on Windows writes CR CR LF. Blank lines are skipped, so the loop can treat
	// consecutive CRs as one line break.
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

// quotedField returns the value of the quoted field that begins at text[at], and the index after
// the closing quote.
func quotedField(text string, at int) (field string, end int, err error) {
	var b strings.Builder
	for at++; ; {
		i := strings.IndexByte(text[at:], '"')
		if i < 0 {
			return "", 0, errors.New("a quoted field is not closed")
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

// A specimen describes a file by the features in which dialects differ.
type specimen struct {
	first, last line
	rows        []line // without the header
	quoted      bool   // at least one field is quoted
	null, empty bool   // null: a field is the text null; empty: a field is empty
}

// named reports whether the header uses the name for the i-th column. It also returns true if
// the file has no header, or the header has no known name for the column.
func (s specimen) named(i int, name string) bool {
	fields := s.first.fields
	return !s.first.header() || len(fields) <= i || column(fields[i]) != i || fields[i] == name
}

// Each function in traits reports whether one feature of the file s is possible in the dialect d.
// The most significant feature comes first.
var traits = []func(s specimen, d dialect) bool{
	func(s specimen, d dialect) bool { return d.quotes || !s.quoted },
	func(s specimen, d dialect) bool { return (d.null == "") == !(s.null && !s.empty) },
	func(s specimen, d dialect) bool { return s.named(redirectColumn, d.redirect) },
	// The C# SDK writes a header without a line break when it removes the last row.
	func(s specimen, d dialect) bool {
		return (s.last.eol != "") == d.final || len(s.rows) == 0 && d.name == codec.CSharp
	},
	func(s specimen, d dialect) bool { return s.named(userColumn, d.user) },
	func(s specimen, d dialect) bool { return s.first.eol == "" || slices.Contains(d.eols, s.first.eol) },
}

// detect returns the possible dialects of the lines, the most likely first. If no dialect has all
// traits, for example because an editor has changed the file, detect ignores the least significant
// traits.
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
				found[i].early = 0 // if the guess is wrong, a later expiry time would make an expired token look valid
			}
			return found
		}
	}
}

// assemble returns a File with the given lines. The possible dialects of the File are candidates.
func assemble(lines []line, candidates []dialect) (*File, error) {
	f := &File{dialects: candidates, eol: candidates[0].eols[0], final: candidates[0].final, rows: make([]row, 0, len(lines))}
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
		f.rows = append(f.rows, row{})
		l.read(&f.rows[len(f.rows)-1], candidates[0].early)
	}
	return f, nil
}

// begin sets the fields of f that describe the header. It returns an error if the columns are
// in another order, or if the file is truncated in the header.
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

// end sets f.final from the last line. It returns an error if the last line is truncated.
func (f *File) end(last line) error {
	f.final = last.eol != ""
	cutRow := len(last.fields) < len(columns) && f.header != "" && !f.old
	cutFile := !slices.ContainsFunc(f.dialects, func(d dialect) bool { return !d.final })
	if !f.final && (cutRow || cutFile) {
		return cutOff(last)
	}
	return nil
}

// cutOff returns the error for a file that is truncated in l.
func cutOff(l line) error {
	return fmt.Errorf("tokenfile: %w: line %d: the file is truncated: the last line has no line break", codec.ErrFormat, l.number)
}

// complete returns an error if l has too few columns for a row.
func (l line) complete() error {
	if n := len(l.fields); n < oldColumns {
		return fmt.Errorf("tokenfile: %w: line %d has %d of %d or %d columns", codec.ErrFormat, l.number, n, oldColumns, len(columns))
	}
	return nil
}

// read sets r to the row in l. If the row has an expiry time, read adds the parameter early, in
// milliseconds, to the expiry time.
func (l line) read(r *row, early int64) {
	r.line, r.raw, r.eol, r.old = l.number, l.raw, l.eol, len(l.fields) < len(columns)
	text := l.fields
	if r.old || slices.Contains(text, "null") {
		text = make([]string, len(columns))
		for i, value := range l.fields {
			if value != "null" || l.quoted != nil && l.quoted[i] {
				text[i] = value
			}
		}
	}
	r.damage = r.SetColumns(text)
	if r.ExpiryTime != 0 {
		r.ExpiryTime += early
	}
}
