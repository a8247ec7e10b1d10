package tokenfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
)

// This file handles input that no SDK writes: token files that spreadsheets, shells and other
// programs have changed, and files of other kinds.

// A foreignForm describes one kind of file that is not a token file. Such a file matches the
// pattern in begins. The field text holds the error for the file.
type foreignForm struct {
	begins *regexp.Regexp
	text   string
}

var foreignForms = sync.OnceValue(func() []foreignForm {
	return []foreignForm{
		{regexp.MustCompile(`^\s*\{\s*"tokens"`), "it is the zcrm_oauthtokens.txt of the first SDK for Node, which is JSON and has no client: save each of its refresh tokens as a record"},
		{regexp.MustCompile(`^a:[0-9]+:\{`), "it is the zcrm_oauthtokens.txt of the first SDK for PHP, which is the output of serialize and has no client: save each of its refresh tokens as a record"},
		{regexp.MustCompile(`^\s*[\[{]`), "it is JSON: save each of its tokens as a record"},
		{regexp.MustCompile(`^SQLite format 3\x00`), "it is a SQLite database: open it as one"},
		{regexp.MustCompile(`^(PK\x03\x04|\xd0\xcf\x11\xe0)`), "it is a spreadsheet or an archive: save the table as CSV with commas, in UTF-8"},
		{regexp.MustCompile(`^\s*<`), "it is XML or HTML"},
		{regexp.MustCompile(`(?s)^.{0,15}\x00`), "it is a binary file, or text in UTF-16 without a byte order mark: save it in UTF-8"},
	}
})

// decode returns the text of a token file. If the file has a known form that is not a token
// file, the error names that form. The error matches codec.ErrFormat.
func decode(data []byte) (string, error) {
	text, err := utf16Text(data)
	if err == nil {
		text = strings.TrimLeft(text, "\ufeff")
		for _, form := range foreignForms() {
			if form.begins.MatchString(text) {
				err = errors.New(form.text)
				break
			}
		}
	}
	if err == nil {
		err = separators(text)
	}
	if err != nil {
		return "", fmt.Errorf("tokenfile: %w: line 1: %w", codec.ErrFormat, err)
	}
	return text, nil
}

// utf16Text returns data as text. It converts UTF-16 with a byte order mark to UTF-8. It returns
// an error for damaged UTF-16 and for UTF-32.
func utf16Text(data []byte) (string, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe, 0, 0}), bytes.HasPrefix(data, []byte{0, 0, 0xfe, 0xff}):
		return "", errors.New("it is in UTF-32: save it in UTF-8")
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return string(data), nil
	}
	if len(data)%2 != 0 {
		return "", errors.New("it is truncated UTF-16")
	}
	units := make([]uint16, 0, len(data)/2)
	for ; len(data) > 0; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	text := string(utf16.Decode(units))
	if strings.ContainsRune(text, utf8.RuneError) {
		return "", errors.New("it is damaged UTF-16")
	}
	return text, nil
}

// separators returns an error if the first line is a header whose names are separated by semicolons
// or tabs, or by commas with blanks around the commas.
func separators(text string) error {
	first, _, _ := strings.Cut(text, "\n")
	first = strings.TrimSpace(first)
	named := func(fields []string) bool {
		known := 0
		for _, f := range fields {
			if column(strings.Trim(f, "\" \t")) >= 0 {
				known++
			}
		}
		return known > len(columns)/2
	}
	switch {
	case line{fields: strings.Split(first, ",")}.header():
		return nil
	case named(strings.Split(first, ";")):
		return errors.New("its columns are separated by semicolons, as some spreadsheets do: save it with commas")
	case named(strings.Split(first, "\t")):
		return errors.New("its columns are separated by tabs: save it with commas")
	case named(strings.Split(first, ",")) && !strings.Contains(first, `"`):
		return errors.New("there are blanks around its commas, which would become part of the tokens: remove them")
	}
	return nil
}

// trim removes the empty columns without a name that a spreadsheet adds to all lines. It returns
// an error that matches codec.ErrFormat if a line has other fields after the last column.
func trim(lines []line) ([]line, error) {
	extra := 0
	if len(lines) > 0 && lines[0].header() {
		for extra < len(lines[0].fields)-len(columns) && lines[0].fields[len(columns)+extra] == "" {
			extra++
		}
	}
	for i, l := range lines {
		if len(l.fields) <= len(columns) {
			continue
		}
		more := l.fields[len(columns):]
		if len(more) > extra || strings.Join(more, "") != "" {
			return nil, fmt.Errorf("tokenfile: %w: line %d has more than %d columns", codec.ErrFormat, l.number, len(columns))
		}
		lines[i].fields = l.fields[:len(columns)]
	}
	return lines, nil
}
