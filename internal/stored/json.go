package stored

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/members"
)

// Versions of the format. Decode reads both versions. Version 2 adds the fields that
// codec.Fields.Extended names. Encode writes a record without these fields in version 1, so that
// programs that read only version 1 can read the record.
const (
	firstVersion = 1
	version      = 2
)

func versionOf(r Record) int {
	if len(r.Extended()) > 0 {
		return version
	}
	return firstVersion
}

// A member is one member of the JSON object. Decode sets the members separately, by their exact
// names. Package encoding/json would accept "ID" for "id", and would drop unknown members.
type member struct {
	name string
	of   func(*Record) any // returns a pointer to the field
}

// table lists the members for the fields of the token, followed by the other members of a record.
var table = func() []member {
	var all []member
	for d := range (codec.Fields{}).All() {
		all = append(all, member{d.Column, func(r *Record) any { return d.In(&r.Fields) }})
	}
	return append(all, ofRecord...)
}()

var ofRecord = []member{
	{"born", func(r *Record) any { return &r.Born }},
	{"nonces", func(r *Record) any { return &r.Nonces }},
	{"updated", func(r *Record) any { return &r.Updated }},
	{"writes", func(r *Record) any { return &r.Writes }},
	{"labels", func(r *Record) any { return &r.Labels }},
	{"earlier", func(r *Record) any { return &r.Earlier }},
	{"joining", func(r *Record) any { return &r.Joining }},
	{"absorbed", func(r *Record) any { return &r.Absorbed }},
	{"ids", func(r *Record) any { return &r.IDs }},
	{"redirects", func(r *Record) any { return &r.Redirects }},
	{"moved", func(r *Record) any { return &r.Moved }},
	{"alias", func(r *Record) any { return &r.Alias }},
	{"lease", func(r *Record) any { return &r.Lease }},
	{"failure", func(r *Record) any { return &r.Failure }},
	{"no_access", func(r *Record) any { return &r.NoAccess }},
	{"former", func(r *Record) any { return &r.Former }},
	{"took", func(r *Record) any { return &r.Took }},
}

// places maps the name of each member to its index in table.
var places = sync.OnceValue(func() map[string]int {
	all := make(map[string]int, len(table))
	for i, m := range table {
		all[m.name] = i
	}
	return all
})

// Encode returns the JSON text of r. The version comes first, then the known members in the order
// in which the variable table lists them, and then the unknown members, sorted by name. Encode
// leaves out empty members.
func Encode(r Record) ([]byte, error) {
	b := make([]byte, 0, r.Size()+sizeOfRest+sizeOfLabel*len(r.Labels))
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(versionOf(r)), 10)
	for _, m := range table {
		var err error
		if b, err = appendMember(b, m.name, m.of(&r)); err != nil {
			return nil, err
		}
	}
	for _, name := range r.Unknown() {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("stored: the name of a member cannot be written")
		}
		b = append(b, ',')
		b = append(b, key...)
		b = append(b, ':')
		b = append(b, r.unknown[name]...)
	}
	return append(b, '}'), nil
}

// Estimated sizes of JSON texts, in bytes: of a record without its fields and labels, and of one
// label. The estimates let Encode allocate the text of most records at once.
const (
	sizeOfRest  = 512
	sizeOfLabel = 96
)

func appendMember(b []byte, name string, value any) ([]byte, error) {
	if isEmpty(value) {
		return b, nil
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	switch v := value.(type) {
	case *string:
		return appendString(b, *v), nil
	case *int64:
		return strconv.AppendInt(b, *v, 10), nil
	case *[]string:
		return appendList(b, *v, appendString), nil
	case *[]Label:
		return appendList(b, *v, appendLabel), nil
	}
	text, err := encode(value)
	if err != nil {
		return nil, fmt.Errorf("stored: member %q cannot be written", name)
	}
	return append(b, text...), nil
}

// isEmpty reports whether value, a pointer to the field of a member, points to an empty value.
func isEmpty(value any) bool {
	switch v := value.(type) {
	case *string:
		return *v == ""
	case *int64:
		return *v == 0
	case *bool:
		return !*v
	case *[]string:
		return len(*v) == 0
	case *[]int:
		return len(*v) == 0
	case *[]Label:
		return len(*v) == 0
	case *[]Ref:
		return len(*v) == 0
	case *[]Redirect:
		return len(*v) == 0
	case **Ref:
		return *v == nil
	case **Lease:
		return *v == nil
	case **Failure:
		return *v == nil
	}
	return false
}

func appendList[T any](b []byte, all []T, one func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, v)
	}
	return append(b, ']')
}

func appendLabel(b []byte, l Label) []byte {
	b = appendString(append(b, `{"k":`...), l.Key)
	b = appendString(append(b, `,"v":`...), l.Value)
	b = appendString(append(b, `,"n":`...), l.Nonce)
	return append(b, '}')
}

// appendString appends the JSON text of s, as encode returns it.
func appendString(b []byte, s string) []byte {
	start := len(b)
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c >= utf8.RuneSelf:
			text, _ := encode(s) // encoding a string cannot fail
			return append(b[:start], text...)
		case c == '"' || c == '\\':
			b = append(append(b, s[from:i]...), '\\')
			from = i
		}
	}
	return append(append(b, s[from:]...), '"')
}

// encode returns the JSON text of v as package encoding/json writes it, without HTML escapes.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// Decode returns the record whose JSON text is data. It keeps unknown members, which Encode writes
// again. The error matches codec.ErrFormat if data is not a record, is encrypted, or is a record of
// a later version. The error names a member of the wrong type, but does not quote values.
func Decode(data []byte) (Record, error) {
	if !utf8.Valid(data) {
		return Record{}, fmt.Errorf("%w: not valid UTF-8", codec.ErrFormat)
	}
	p, err := split(data)
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", codec.ErrFormat, err)
	}
	if err := p.readable(); err != nil {
		return Record{}, err
	}
	r := &Record{unknown: p.unknown}
	for i, m := range table {
		if p.known[i] != nil && !set(m.of(r), p.known[i]) {
			return Record{}, fmt.Errorf("%w: member %q has another type", codec.ErrFormat, m.name)
		}
	}
	return *r, nil
}

// parts holds the raw members of a record.
type parts struct {
	version []byte
	known   [maxTable][]byte // the known members by their index in table
	sealed  bool
	unknown map[string]json.RawMessage
}

// maxTable is an upper bound for the length of table.
const maxTable = 64

func split(data []byte) (p parts, err error) {
	places := places()
	err = members.Each(data, func(name, value []byte) error {
		if i, ok := places[string(name)]; ok {
			if p.known[i] != nil {
				return members.ErrTwice
			}
			p.known[i] = value
			return nil
		}
		if string(name) == "v" {
			if p.version != nil {
				return members.ErrTwice
			}
			p.version = value
			return nil
		}
		p.sealed = p.sealed || string(name) == "aead"
		if _, twice := p.unknown[string(name)]; twice {
			return members.ErrTwice
		}
		if p.unknown == nil {
			p.unknown = map[string]json.RawMessage{}
		}
		p.unknown[string(name)] = bytes.Clone(value)
		return nil
	})
	return p, err
}

// readable returns an error if the record is encrypted, has no version, or has a later version.
func (p parts) readable() error {
	v, err := strconv.Atoi(string(p.version))
	switch {
	case err != nil || v < 1:
		return fmt.Errorf("%w: no version", codec.ErrFormat)
	case v > version:
		return fmt.Errorf("%w: version %d, this program reads up to %d", codec.ErrFormat, v, version)
	case p.sealed:
		// If the member "aead" counted as unknown, Decode would return a record without a token,
		// and the next save would overwrite the encrypted token.
		return fmt.Errorf("%w: it is encrypted", codec.ErrFormat)
	}
	return nil
}

// set decodes value, a JSON text, into the field to which member points. It reports whether value
// has the type of the field.
func set(member any, value []byte) bool {
	switch m := member.(type) {
	case *string:
		if text, ok := members.Text(value); ok {
			*m = string(text)
			return true
		}
	case *int64:
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			*m = n
			return true
		}
	case *[]string:
		if setTexts(m, value) {
			return true
		}
	case *[]Label:
		if setLabels(m, value) {
			return true
		}
	}
	return json.Unmarshal(value, member) == nil
}

// setTexts decodes value into *list if value is a list of strings without escapes. It reports
// whether value is such a list.
func setTexts(list *[]string, value []byte) bool {
	all := make([]string, 0, bytes.Count(value, []byte(`,`))+1)
	ok := members.Elements(value, func(element []byte) bool {
		text, ok := members.Text(element)
		all = append(all, string(text))
		return ok
	})
	if ok {
		*list = all
	}
	return ok
}

// setLabels decodes value into *list if value is a list of labels in the form that Encode writes.
// It reports whether value has that form.
func setLabels(list *[]Label, value []byte) bool {
	all := make([]Label, 0, bytes.Count(value, []byte(`{`)))
	ok := members.Elements(value, func(element []byte) bool {
		var l Label
		n := 0
		err := members.Each(element, func(name, value []byte) error {
			text, ok := members.Text(value)
			n++
			switch {
			case !ok || n > 3:
				return errForm
			case n == 1 && string(name) == "k":
				l.Key = string(text)
			case n == 2 && string(name) == "v":
				l.Value = string(text)
			case n == 3 && string(name) == "n":
				l.Nonce = string(text)
			default:
				return errForm
			}
			return nil
		})
		all = append(all, l)
		return err == nil && n == 3
	})
	if ok {
		*list = all
	}
	return ok
}

// errForm means that a value is not in the form that Encode writes.
var errForm = errors.New("another form")
