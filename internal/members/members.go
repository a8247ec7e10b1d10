// Package members splits JSON objects into their members.
package members

import (
	"bytes"
	"encoding/json"
	"errors"
)

var errNoObject = errors.New("not a JSON object")

// ErrTwice is the error that Split returns for an object that repeats a name.
var ErrTwice = errors.New("a member is repeated")

// Split returns the members of the JSON object in data, by their exact names. If a name appears
// twice, Split returns ErrTwice, because readers could choose different values. If data is not a
// JSON object, Split returns an error that does not quote data. The values are copies, and do not
// share memory with data.
func Split(data []byte) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	err := Each(data, func(name, value []byte) error {
		if _, twice := members[string(name)]; twice {
			return ErrTwice
		}
		members[string(name)] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return members, nil
}

// Each calls f with the name and value of each member of the JSON object in data, in order. The
// slices name and value are parts of data, but name is a new slice if it has escapes or is not
// ASCII. A value is valid JSON without surrounding spaces. A name may be repeated. If f returns an
// error, Each returns the error. If data is not a JSON object, Each returns an error that does not
// quote data, possibly after calls of f.
func Each(data []byte, f func(name, value []byte) error) error {
	s := scanner{data: data}
	s.space()
	if !s.take('{') {
		return errNoObject
	}
	err := s.members(1, f)
	if err != nil {
		return err
	}
	s.space()
	if s.i != len(data) {
		return errNoObject
	}
	return nil
}

// Elements calls f with each element of the JSON array in value, until f returns false. value must
// be valid JSON. Elements reports whether value is an array and f returned true for every element.
func Elements(value []byte, f func(element []byte) bool) bool {
	s := scanner{data: value}
	if !s.take('[') {
		return false
	}
	s.space()
	if s.take(']') {
		return true
	}
	for {
		s.space()
		from := s.i
		if !s.value(1) || !f(value[from:s.i]) {
			return false
		}
		s.space()
		if !s.take(',') {
			return s.take(']')
		}
	}
}

// Text returns the content of a JSON string. If value is not a string or has escapes, plain is
// false. value must be valid JSON.
func Text(value []byte) (text []byte, plain bool) {
	if len(value) < 2 || value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return nil, false
	}
	return value[1 : len(value)-1], true
}

// maxDepth is the maximum depth of nested objects and arrays, as in package encoding/json.
const maxDepth = 10_000

type scanner struct {
	data []byte
	i    int
}

func (s *scanner) space() {
	for s.i < len(s.data) {
		switch s.data[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.data) && s.data[s.i] == c {
		s.i++
		return true
	}
	return false
}

// members scans the remainder of an object after its opening brace, including its closing brace.
// Unless f is nil, members calls f for each member.
func (s *scanner) members(depth int, f func(name, value []byte) error) error {
	s.space()
	if s.take('}') {
		return nil
	}
	for {
		s.space()
		from := s.i
		if !s.text() {
			return errNoObject
		}
		name := s.data[from:s.i]
		s.space()
		if !s.take(':') {
			return errNoObject
		}
		s.space()
		from = s.i
		if !s.value(depth) {
			return errNoObject
		}
		if f != nil {
			if err := f(unquote(name), s.data[from:s.i]); err != nil {
				return err
			}
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return errNoObject
		}
	}
}

// unquote returns the text of a quoted JSON string.
func unquote(quoted []byte) []byte {
	for _, c := range quoted {
		if c == '\\' || c >= 0x80 {
			var text string
			_ = json.Unmarshal(quoted, &text) // quoted is a JSON string
			return []byte(text)
		}
	}
	return quoted[1 : len(quoted)-1]
}

// value scans a value, and reports whether the value is valid. The parameter depth is the number of
// objects and arrays that enclose the value.
func (s *scanner) value(depth int) bool {
	if s.i == len(s.data) {
		return false
	}
	switch c := s.data[s.i]; c {
	case '"':
		return s.text()
	case '{':
		s.i++
		return depth < maxDepth && s.members(depth+1, nil) == nil
	case '[':
		s.i++
		return depth < maxDepth && s.array(depth+1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *scanner) array(depth int) bool {
	s.space()
	if s.take(']') {
		return true
	}
	for {
		s.space()
		if !s.value(depth) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) literal(text string) bool {
	if !bytes.HasPrefix(s.data[s.i:], []byte(text)) {
		return false
	}
	s.i += len(text)
	return true
}

// text scans a string, and reports whether the string is valid.
func (s *scanner) text() bool {
	if !s.take('"') {
		return false
	}
	for s.i < len(s.data) {
		c := s.data[s.i]
		s.i++
		switch {
		case c == '"':
			return true
		case c < ' ':
			return false
		case c == '\\' && !s.escape():
			return false
		}
	}
	return false
}

// escape scans the remainder of an escape sequence after its backslash, and reports whether
// the sequence is valid.
func (s *scanner) escape() bool {
	if s.i == len(s.data) {
		return false
	}
	c := s.data[s.i]
	s.i++
	if c != 'u' {
		return bytes.IndexByte([]byte(`"\/bfnrt`), c) >= 0
	}
	for range 4 {
		if s.i == len(s.data) || !hex(s.data[s.i]) {
			return false
		}
		s.i++
	}
	return true
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

// digits scans digits, and reports whether there is at least one digit.
func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.data) && '0' <= s.data[s.i] && s.data[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}
