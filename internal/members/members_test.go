package members

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// split implements Split with package encoding/json.
func split(data []byte) (map[string]string, error) {
	if !json.Valid(data) {
		return nil, errNoObject
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errNoObject
	}
	members := map[string]string{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		var raw json.RawMessage
		if err != nil || !ok || d.Decode(&raw) != nil {
			return nil, errNoObject
		}
		if _, twice := members[name]; twice {
			return nil, ErrTwice
		}
		members[name] = string(raw)
	}
	return members, nil
}

// texts lists JSON objects, and texts that are similar to JSON objects.
var texts = []string{
	`{}`, ` { } `, `{"a":1}`, " {\t\"a\" :\r\n [ 1 , {} , \"x\" ] } ", `{"a":1,"b":"c","d":null,"e":true,"f":false}`, `{"a":{"b":{"c":[[[]]]}}}`,
	`{"a":-0.5e+10,"b":0,"c":1E9,"d":-1}`, `{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\udd11\ud800"}`, `{"\u0061":1,"é":2,"":3}`, "{\"\xff\":\"\xff\"}",
	`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, "{\"\xff\":1,\"\xfe\":2}", `{"a":1,"b":2,"a":}`,
	``, ` `, `{`, `}`, `[]`, `[{"a":1}]`, `"a"`, `null`, `1`, `{}}`, `{} {}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a" 1}`, `{a:1}`, `{"a":1 "b":2}`,
	`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":1e+}`, `{"a":-}`, `{"a":0x1}`, `{"a":tru}`, `{"a":nulll}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[}`, `{"a":[1}`,
	`{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\u12"}`, `{"a":"\`, `{"a":"`, "{\"a\":\"\n\"}", "{\"a\":\"\x7f\"}", "{\"a\":\x00}", "\ufeff{}", "{\"a\":1}\v",
}

// compare checks that Split and split return the same members, and fail for the same data. It
// also checks that Split does not change data, and that the members do not refer to data.
func compare(t *testing.T, data []byte) {
	t.Helper()
	kept := bytes.Clone(data)
	got, err := Split(data)
	want, wrong := split(data)
	// If data repeats a name before a syntax error, Split returns ErrTwice, and split does not.
	if (err == nil) != (wrong == nil) || wrong != nil && errors.Is(wrong, ErrTwice) && !errors.Is(err, ErrTwice) {
		t.Fatalf("%q: error %v, want %v", data, err, wrong)
	}
	if !bytes.Equal(data, kept) {
		t.Fatalf("%q was changed", kept)
	}
	clear(data) // the members must not refer to data
	if len(got) != len(want) {
		t.Fatalf("%q has %d members, want %d", kept, len(got), len(want))
	}
	for name, value := range want {
		if string(got[name]) != value {
			t.Fatalf("%q: the member %q is %q, want %q", kept, name, got[name], value)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, text := range texts {
		compare(t, []byte(text))
	}
	for _, depth := range []int{9_998, 9_999, 10_000, 10_001, 100_000} {
		compare(t, []byte(`{"a":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+`}`))
		compare(t, []byte(strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth)))
	}
}

func TestElements(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ value, want string }{
		{`[]`, ""}, {`[ ]`, ""}, {`[1]`, "1;"}, {`[ 1 , "a,]" , [2,3] , {"b":[4]} ]`, `1;"a,]";[2,3];{"b":[4]};`},
	} {
		var got strings.Builder
		if !Elements([]byte(c.value), func(e []byte) bool { got.Write(append(e[:len(e):len(e)], ';')); return true }) || got.String() != c.want {
			t.Errorf("the elements of %s are %s", c.value, got.String())
		}
	}
	for _, value := range []string{``, `{}`, `"a"`, `null`, `1`} {
		if Elements([]byte(value), func([]byte) bool { return true }) {
			t.Errorf("%s is an array", value)
		}
	}
	if Elements([]byte(`[1,2]`), func(e []byte) bool { return string(e) == "1" }) {
		t.Error("an element that f refuses is taken")
	}
}

func FuzzSplit(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, data) })
}
