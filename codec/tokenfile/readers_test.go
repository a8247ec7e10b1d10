package tokenfile

import (
	"encoding/csv"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
)

// This file imitates how the official SDKs read token files: how the SDKs find lines and fields,
// which row the SDKs skip, and which values the SDKs consider absent. The code follows the
// behavior of the SDKs, not their source.

// readers maps a dialect to its reader. A reader returns an error for a file at which the SDK
// fails.
var readers = map[codec.Dialect]func(file string) ([]codec.Fields, error){
	codec.Python: readPython, codec.Java: readJava, codec.Node: readNode, codec.TypeScript: readNode, codec.Deno: readNode,
	codec.PHP: readPHP, codec.CSharp: readCSharp, codec.Ruby: readRuby, codec.Scala: readScala,
}

// rowsOf converts the records of a reader to rows. Each value in absent becomes empty. rowsOf
// skips the first record, which the SDKs always consider the header. It returns an error if
// there is no record or if a row is incomplete or invalid.
func rowsOf(records [][]string, absent ...string) ([]codec.Fields, error) {
	if len(records) == 0 {
		return nil, errors.New("there is no header")
	}
	var rows []codec.Fields
	for _, fields := range records[1:] {
		text := make([]string, len(columns))
		if len(fields) < len(columns) {
			return nil, errors.New("index out of range") // each SDK fails with an error of its own language
		}
		for i := range columns {
			if !slices.Contains(absent, fields[i]) {
				text[i] = fields[i]
			}
		}
		r, err := codec.ParseColumns(text)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// A tokenizer splits a file or a line into records and fields, as the CSV readers of Python,
// Java and PHP do.
type tokenizer struct {
	backslash bool // a backslash escapes a quote or backslash in a quoted field; any other backslash is dropped
}

func (z tokenizer) records(text string) [][]string {
	var records [][]string
	var record []string
	var field strings.Builder
	quoted, any := false, false
	end := func() {
		record = append(record, field.String())
		field.Reset()
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case z.backslash && c == '\\':
			if quoted && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\') {
				i++
				field.WriteByte(text[i])
			}
		case quoted && c == '"' && i+1 < len(text) && text[i+1] == '"':
			field.WriteByte('"')
			i++
		case quoted && c == '"':
			quoted = false
		case quoted:
			field.WriteByte(c)
		case c == '"' && field.Len() == 0:
			quoted, any = true, true
		case c == ',':
			end()
			any = true
		case c == '\n':
			if any {
				end()
				records = append(records, record)
			}
			record, any = nil, false
		default:
			field.WriteByte(c)
			any = true
		}
	}
	if any {
		end()
		records = append(records, record)
	}
	return records
}

// universal replaces all line breaks with LF, as Python, Java, Scala and .NET do before they
// split lines.
var universal = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func readPython(file string) ([]codec.Fields, error) {
	return rowsOf(tokenizer{}.records(universal.Replace(file)))
}

func readJava(file string) ([]codec.Fields, error) {
	records := tokenizer{backslash: true}.records(universal.Replace(file))
	records = slices.DeleteFunc(records, func(r []string) bool { return len(r) == 1 })
	for _, r := range records[min(1, len(records)):] {
		if err := countable(r[0]); err != nil {
			return nil, err
		}
	}
	return rowsOf(records)
}

// countable returns an error for an ID that SDKs cannot increment as a 32-bit integer.
func countable(id string) error {
	var n int32
	if _, err := fmt.Sscan(id, &n); err != nil || n+1 <= 0 || !regexp.MustCompile(`^\d+$`).MatchString(id) {
		return errors.New("not an int")
	}
	return nil
}

func readNode(file string) ([]codec.Fields, error) {
	var records [][]string
	for _, line := range strings.Split(file, "\n") {
		if fields := strings.Split(line, ","); len(fields) > 1 {
			records = append(records, fields)
		}
	}
	return rowsOf(records)
}

func readPHP(file string) ([]codec.Fields, error) {
	var records [][]string
	eol := "\n"
	if i := strings.Index(file, "\n"); i > 0 && file[i-1] == '\r' {
		eol = "\r\n"
	}
	for _, line := range strings.Split(file, eol) {
		if r := (tokenizer{}).records(line); len(r) > 0 && len(r[0]) > 1 {
			records = append(records, r[0])
		}
	}
	return rowsOf(records, "0")
}

func readCSharp(file string) ([]codec.Fields, error) {
	records, err := splitLines(file)
	if err != nil {
		return nil, err
	}
	rows, err := rowsOf(records)
	// The C# SDK also searches the header: a search for one of these values finds the header.
	for _, r := range rows {
		if r.UserName == "user_name" || r.RefreshToken == "refresh_token" || r.AccessToken == "access_token" || r.GrantToken == "grant_token" {
			return nil, errors.New("the header was found instead")
		}
	}
	return rows, err
}

func readScala(file string) ([]codec.Fields, error) {
	records, err := splitLines(file)
	if err != nil {
		return nil, err
	}
	for i, r := range records {
		for len(r) > 0 && r[len(r)-1] == "" { // Scala's split function drops trailing empty strings
			r = r[:len(r)-1]
		}
		records[i] = r
	}
	return rowsOf(records, "null")
}

// splitLines splits a file at line breaks of all kinds, and lines at commas. It returns the
// error of countable for the first field of a line after the header.
func splitLines(file string) ([][]string, error) {
	var records [][]string
	for i, line := range strings.Split(universal.Replace(file), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		fields := strings.Split(line, ",")
		if i > 0 {
			if err := countable(fields[0]); err != nil {
				return nil, err
			}
		}
		records = append(records, fields)
	}
	return records, nil
}

// readRuby imitates the CSV reader of Ruby, which requires that all line breaks equal the first
// line break. That reader also fails on misplaced quotes.
func readRuby(file string) ([]codec.Fields, error) {
	eol := regexp.MustCompile(`\r\n|\n|\r`).FindString(file)
	if rest := strings.ReplaceAll(file, eol, ""); strings.Contains(rest, "\r") {
		return nil, errors.New("malformed CSV")
	}
	c := csv.NewReader(strings.NewReader(strings.ReplaceAll(file, eol, "\n")))
	c.FieldsPerRecord = -1
	records, err := c.ReadAll()
	if err != nil {
		return nil, err
	}
	for _, r := range records[1:] {
		if r[0] == "id" || r[1] == "user_name" {
			return nil, errors.New("the header was found instead")
		}
	}
	return rowsOf(records)
}
