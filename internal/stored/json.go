package stored

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/members"
)

// version is the version of the format that this package writes. A program reads only
// records of this version, and keeps members that it does not know.
const version = 1

// A member is one member of the JSON object. Members are decoded one by one and by
// their exact names. Package encoding/json would take "ID" for "id", and drop members
// that it does not know.
type member struct {
	name string
	of   func(*Record) any // a pointer to the field
}

// table has the fields of the token, then those of the record.
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
}

// Encode returns the JSON text of r: the version, the members in the order of the
// table, and then the unknown ones by name. It leaves out empty members.
func Encode(r Record) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"v":%d`, version)
	put := func(name string, value any) error {
		var v bytes.Buffer
		e := json.NewEncoder(&v)
		e.SetEscapeHTML(false)
		if err := e.Encode(value); err != nil {
			return fmt.Errorf("stored: member %q cannot be written", name)
		}
		text := bytes.TrimRight(v.Bytes(), "\n")
		switch string(text) {
		case `""`, `0`, `null`, `[]`:
			return nil
		}
		fmt.Fprintf(&b, ",%q:%s", name, text)
		return nil
	}
	for _, m := range table {
		if err := put(m.name, m.of(&r)); err != nil {
			return nil, err
		}
	}
	for _, name := range r.Unknown() {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("stored: the name of a member cannot be written")
		}
		fmt.Fprintf(&b, ",%s:%s", key, r.unknown[name])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Decode reads what Encode wrote. The error matches codec.ErrFormat if data is not a
// record. It names the member, and quotes nothing of its value as encoding/json would.
func Decode(data []byte) (Record, error) {
	if !utf8.Valid(data) {
		return Record{}, fmt.Errorf("%w: not valid UTF-8", codec.ErrFormat)
	}
	object, err := members.Split(data)
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", codec.ErrFormat, err)
	}
	var v int
	if json.Unmarshal(object["v"], &v) != nil || v < 1 {
		return Record{}, fmt.Errorf("%w: no version", codec.ErrFormat)
	}
	if v > version {
		return Record{}, fmt.Errorf("%w: version %d, this program reads up to %d", codec.ErrFormat, v, version)
	}
	if _, sealed := object["aead"]; sealed {
		// If it were taken for an unknown member, the record would have no token, and
		// the next save would write over it.
		return Record{}, fmt.Errorf("%w: it is encrypted", codec.ErrFormat)
	}
	delete(object, "v")
	var r Record
	for _, m := range table {
		raw, ok := object[m.name]
		if !ok {
			continue
		}
		if json.Unmarshal(raw, m.of(&r)) != nil {
			return Record{}, fmt.Errorf("%w: member %q has another type", codec.ErrFormat, m.name)
		}
		delete(object, m.name)
	}
	if len(object) > 0 {
		r.unknown = maps.Clone(object)
	}
	return r, nil
}
