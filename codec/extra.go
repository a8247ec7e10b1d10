package codec

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/internal/members"
)

// MaxExtra is the maximum size of a stored Extra in canonical form, in bytes.
const MaxExtra = 16 << 10

// maxNesting is the maximum depth of nested objects and arrays in an Extra.
const maxNesting = 64

// errExtra means that text is not one JSON object, or that an object in text repeats a member.
var errExtra = errors.New("it is not a JSON object with each member once")

// CanonicalExtra returns the canonical form of text, which must be empty or one JSON object. In
// canonical form, members are sorted by name, number literals are unchanged, and there are no
// spaces outside strings. Only quotes, backslashes and control characters are escaped. The
// canonical form of an empty text or of an empty object is the empty string.
//
// CanonicalExtra returns an error if text is neither empty nor an object, or if an object in text
// repeats a member. It also returns an error if a string in text is not valid Unicode, or if text
// is nested deeper than 64 levels. The error does not quote text. CanonicalExtra does not limit the
// size of text.
func CanonicalExtra(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if !utf8.ValidString(text) || loneSurrogate(text) {
		return "", errors.New("it is not valid Unicode")
	}
	if !json.Valid([]byte(text)) {
		return "", errExtra
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var b strings.Builder
	t, err := d.Token()
	if err != nil || t != json.Delim('{') {
		return "", errExtra
	}
	if err := canonicalObject(&b, d, 1); err != nil {
		return "", err
	}
	if b.String() == "{}" {
		return "", nil
	}
	return b.String(), nil
}

// canonicalObject writes the canonical form of the object whose opening brace was just read
// from d.
func canonicalObject(b *strings.Builder, d *json.Decoder, depth int) error {
	values := map[string]string{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return errExtra
		}
		if _, twice := values[name]; twice {
			return errExtra
		}
		var v strings.Builder
		if err := canonicalValue(&v, d, depth); err != nil {
			return err
		}
		values[name] = v.String()
	}
	writeObject(b, values)
	_, err := d.Token()
	return err
}

// writeObject writes an object with sorted members. values maps the name of each member to its
// JSON text.
func writeObject(b *strings.Builder, values map[string]string) {
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			b.WriteByte(',')
		}
		writeString(b, name)
		b.WriteByte(':')
		b.WriteString(values[name])
	}
	b.WriteByte('}')
}

// canonicalValue writes the canonical form of the next value of d. depth is the number of
// objects and arrays that enclose the value.
func canonicalValue(b *strings.Builder, d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return errExtra
	}
	switch v := t.(type) {
	case json.Delim:
		if depth == maxNesting {
			return errors.New("it is nested too deep")
		}
		if v == '{' {
			return canonicalObject(b, d, depth+1)
		}
		b.WriteByte('[')
		for first := true; d.More(); first = false {
			if !first {
				b.WriteByte(',')
			}
			if err := canonicalValue(b, d, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		_, err = d.Token()
	case string:
		writeString(b, v)
	case json.Number:
		b.WriteString(v.String())
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case nil:
		b.WriteString("null")
	}
	return err
}

func writeString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case unicode.IsControl(c):
			fmt.Fprintf(b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
}

// loneSurrogate reports whether text contains a JSON escape for an unpaired surrogate.
func loneSurrogate(text string) bool {
	high := false // the preceding character was an escaped high surrogate
	for i := 0; i < len(text); i++ {
		escape := 0
		if text[i] == '\\' {
			i++
			if i+4 < len(text) && text[i] == 'u' {
				n, _ := strconv.ParseUint(text[i+1:i+5], 16, 32)
				escape = int(n)
				i += 4
			}
		}
		if low := escape >= 0xdc00 && escape < 0xe000; low != high {
			return true
		}
		high = escape >= 0xd800 && escape < 0xdc00
	}
	return high
}

// ExtraSince compares an earlier object, was, with a later object, now. The result is an object
// with the members of the later object that are missing from the earlier object or have another
// value in the earlier object. ExtraSince compares values byte by byte, so both objects should be
// in canonical form. The result is empty if there are no such members, or if the later text is not
// a JSON object or repeats a member. If the earlier text is not a JSON object or repeats a member,
// the result has all members of the later object.
func ExtraSince(was, now string) string {
	before, err := members.Split([]byte(was))
	after, wrong := members.Split([]byte(now))
	if now == "" || was == now || wrong != nil {
		return ""
	}
	values := make(map[string]string, len(after))
	for name, value := range after {
		if old, ok := before[name]; err != nil || !ok || string(old) != string(value) {
			values[name] = string(value)
		}
	}
	if len(values) == 0 {
		return ""
	}
	var b strings.Builder
	writeObject(&b, values)
	return b.String()
}

// MergeExtra merges two objects, the parameters record and laid. The result has the members of both
// objects. If both have a member, the result has the value from the second object. MergeExtra sorts
// the members by name, but does not change their values. The result may be larger than MaxExtra.
//
// If the second text is empty, MergeExtra returns the first. If the first text is empty, or if
// either text is not a JSON object or repeats a member, MergeExtra returns the second text
// unchanged.
func MergeExtra(record, laid string) string {
	if record == "" || laid == "" || record == laid {
		return cmp.Or(laid, record)
	}
	all, err := members.Split([]byte(record))
	more, wrong := members.Split([]byte(laid))
	if err != nil || wrong != nil {
		return laid
	}
	maps.Copy(all, more)
	values := make(map[string]string, len(all))
	for name, value := range all {
		values[name] = string(value)
	}
	var b strings.Builder
	writeObject(&b, values)
	return b.String()
}
