package conformance

import (
	"bytes"
	"crypto/rand"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

var createCases = []testCase[*driverEnv]{
	{"DR-01", "what Create stores is read back", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		e.is(d, name, e.create(d, name, payload(label("user"))))
	}},
	{"DR-01", "what Update stores is read back", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		for range 3 {
			s = e.update(d, name, s, payload(label("user")))
			e.is(d, name, s)
		}
	}},
	{"DR-01", "data of every kind is kept byte for byte", func(e *driverEnv) {
		d := e.open()
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		for kind, data := range map[string][]byte{
			"one byte":         {0},
			"every byte":       every,
			"not UTF-8":        []byte("\xff\xfe\xc3\x28" + text(8)),
			"white space":      []byte(" \t\r\n" + text(8) + "\r\n \n"),
			"a quoted string":  []byte(`"` + text(8) + `"`),
			"markup":           []byte(`<a href="?b&c">` + text(8) + `</a>`),
			"base64":           []byte("aGVsbG8" + text(8) + "=="),
			"a number":         []byte("12345678901234567890.10"),
			"null":             []byte("null"),
			"line separators":  []byte("\u2028\u2029\ufeff" + text(8)),
			"what JSON alters": []byte(`{"a":1.0,"a":2,"é":"\u00e9"}` + text(8)),
		} {
			name := e.name()
			e.TB.Logf("%s", kind)
			e.is(d, name, e.create(d, name, payloadOf(data, label("user"))))
		}
	}},
	{"DR-01", "the version that Get returns is accepted as a base", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		s = e.update(d, name, e.get(d, name, s), payload(label("user")))
		s = e.get(d, name, s)
		e.remove(d, name, s)
		e.absent(d, name, s)
	}},
	{"DR-01", "what Get returns without labels is accepted as a base", func(e *driverEnv) {
		// A driver need not return labels, because package tokenstore takes the labels from the
		// record in Data.
		d := e.open()
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		got, err := d.Fresh(e.ctx, name, s)
		if err != nil {
			e.Fatalf("Fresh: %v", err)
		}
		got.Labels = s.Labels
		s = e.update(d, name, got, payload(l))
		e.is(d, name, s)
		e.found(d, name, s, l)
	}},
	{"DR-01", "names of every legal form are different names", func(e *driverEnv) {
		d := e.open()
		long := strings.Repeat("z", 60)
		names := []string{"a", "0", "aa", "a0", "0a", long, long + "a", long + "aaaa", long + "aaab", long + "baaa", "index", "tokens", "list", "current"}
		states := map[string]driver.Secret{}
		for _, name := range names {
			states[name] = e.create(d, e.use(name), payload(label("user")))
		}
		for _, name := range names {
			e.is(d, name, states[name])
		}
		e.remove(d, "a", states["a"])
		e.absent(d, "a", states["a"])
		for _, name := range names[1:] {
			e.is(d, name, states[name])
		}
	}},
	{"DR-02", "a name that was never created is not found", func(e *driverEnv) {
		d := e.open()
		e.absent(d, e.name(), driver.Secret{})
		e.create(d, e.name(), payload(label("user")))
		e.absent(d, e.name(), driver.Secret{})
	}},
	{"DR-02", "a deleted name is not found", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		s := e.create(d, name, payload(label("user")))
		s = e.update(d, name, s, payload(label("user")))
		e.remove(d, name, s)
		e.absent(d, name, s)
		e.absent(e.reopen(d), name, driver.Secret{})
	}},
	{"DR-03", "Create of a live name is refused and changes nothing", func(e *driverEnv) {
		d := e.open()
		name := e.name()
		l := label("user")
		s := e.create(d, name, payload(l))
		for range 2 {
			_, err := d.Create(e.ctx, name, payload(label("user")))
			e.wants("Create of a live name", err, driver.ErrExists)
			_, err = e.reopen(d).Create(e.ctx, name, payload(again(l)))
			e.wants("Create of a live name by another handle", err, driver.ErrExists)
			e.is(d, name, s)
			e.found(d, name, s, l)
		}
		s = e.update(d, name, s, payload(l))
		_, err := d.Create(e.ctx, name, payload())
		e.wants("Create of an updated name", err, driver.ErrExists)
		e.is(d, name, s)
		e.found(d, name, s, l)
	}},
	{"DR-13", "a deleted name can be created again", func(e *driverEnv) {
		d := e.open()
		other := e.reopen(d)
		name := e.name()
		l := label("user")
		for range 3 {
			s := e.create(d, name, payload(again(l)))
			e.is(d, name, s)
			e.found(d, name, s, l)
			e.remove(other, name, s)
			s = e.create(other, name, payload(again(l)))
			e.is(d, name, s)
			e.found(d, name, s, l)
			e.remove(d, name, s)
		}
	}},
	{"DR-23", "a payload of MaxSize bytes of any value is kept", func(e *driverEnv) {
		d := e.open()
		size := d.Properties().MaxSize
		if size < 16<<10 {
			e.Fatalf("Properties.MaxSize is %d, want at least 16 KiB", size)
		}
		size = min(size, largest)
		random := make([]byte, size)
		_, _ = rand.Read(random)
		for _, fill := range [][]byte{random, {0}, {0xff}, {'"'}, {'\\'}, {'<'}, {'\n'}, []byte("é")} {
			name := e.name()
			s := e.create(d, name, payload(label("user")))
			e.is(d, name, s)
			s = e.update(d, name, s, payloadOf(filled(size, fill), label("user")))
			e.is(d, name, s)
			name = e.name()
			e.is(d, name, e.create(d, name, payloadOf(filled(size, fill), label("user"))))
		}
	}},
}

// largest limits the size, in bytes, of the payloads that the suite sends. Package tokenstore
// writes no record of that size, even if the driver's MaxSize is larger.
const largest = 4 << 20

// filled returns size bytes: 16 random characters, and then repetitions of fill.
func filled(size int, fill []byte) []byte {
	data := append([]byte(text(16)), bytes.Repeat(fill, size/len(fill)+1)...)
	return data[:size]
}
