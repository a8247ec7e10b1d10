package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"unicode/utf8"
)

// version is the version of the format that this package writes. A program
// reads records of this version only; members that it does not know it keeps.
const version = 1

// JSON is the plain codec: a JSON object with a version, whose members are named
// as in the token files and tables of the Zoho SDKs.
var JSON Codec = plain{}

type plain struct{}

// A member is one member of the JSON object. Members are decoded one by one and
// by their exact names: encoding/json would take "ID" for "id", and forget what
// it does not know.
type member struct {
	name string
	of   func(*Record) any // a pointer to the field
}

// members are the fields of the token, then those of the record.
var members = func() []member {
	all := make([]member, 0, len(fields)+len(ofRecord))
	for _, d := range fields {
		all = append(all, member{d.Column, func(r *Record) any { return d.of(&r.Fields) }})
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

// Encode writes the version first, then the members in the order of the table,
// then those it does not know, by name. Empty members are left out.
func (plain) Encode(_ string, r Record) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"v":%d`, version)
	put := func(name string, value any) error {
		var v bytes.Buffer
		e := json.NewEncoder(&v)
		e.SetEscapeHTML(false)
		if err := e.Encode(value); err != nil {
			return fmt.Errorf("codec: member %q cannot be written", name)
		}
		text := bytes.TrimRight(v.Bytes(), "\n")
		switch string(text) {
		case `""`, `0`, `null`, `[]`:
			return nil
		}
		fmt.Fprintf(&b, ",%q:%s", name, text)
		return nil
	}
	for _, m := range members {
		if err := put(m.name, m.of(&r)); err != nil {
			return nil, err
		}
	}
	for _, name := range r.Unknown() {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("codec: the name of a member cannot be written")
		}
		fmt.Fprintf(&b, ",%s:%s", key, r.unknown[name])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Decode reads what Encode wrote. Errors name the member, and quote nothing of
// its value as those of encoding/json would.
func (plain) Decode(_ string, data []byte) (Record, error) {
	if !utf8.Valid(data) {
		return Record{}, fmt.Errorf("codec: %w: not valid UTF-8", ErrFormat)
	}
	object, err := object(data)
	if err != nil {
		return Record{}, err
	}
	var v int
	if json.Unmarshal(object["v"], &v) != nil || v < 1 {
		return Record{}, fmt.Errorf("codec: %w: no version", ErrFormat)
	}
	if v > version {
		return Record{}, fmt.Errorf("codec: %w: version %d, this program reads up to %d", ErrFormat, v, version)
	}
	if _, sealed := object["aead"]; sealed {
		// Taken for an unknown member it would make a record without a token, which
		// the next save would write over.
		return Record{}, fmt.Errorf("codec: %w: it is encrypted", ErrFormat)
	}
	delete(object, "v")
	var r Record
	for _, m := range members {
		raw, ok := object[m.name]
		if !ok {
			continue
		}
		if json.Unmarshal(raw, m.of(&r)) != nil {
			return Record{}, fmt.Errorf("codec: %w: member %q has another type", ErrFormat, m.name)
		}
		delete(object, m.name)
	}
	if len(object) > 0 {
		r.unknown = maps.Clone(object)
	}
	return r, nil
}

// object splits a JSON object into its members. A name that stands twice is an
// error: two readers of the record could differ on which one holds.
func object(data []byte) (map[string]json.RawMessage, error) {
	bad := fmt.Errorf("codec: %w: not a JSON object", ErrFormat)
	if !json.Valid(data) {
		return nil, bad
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, bad
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, bad
		}
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("codec: %w: a member stands twice", ErrFormat)
		}
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return nil, bad
		}
		members[name] = raw
	}
	return members, nil
}
