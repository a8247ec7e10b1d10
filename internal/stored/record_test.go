package stored

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
)

const (
	letters  = "abcdefghijklmnopqrstuvwxyz234567"
	srettel  = "765432zyxwvutsrqponmlkjihgfedcba"
	nonceA   = "aaaabbbbccccdddd"
	nonceE   = "eeeeffffgggghhhh"
	annsName = "ann@example.com:6001"
)

// plainRecord returns the record that most golden files contain, as changed by alter.
func plainRecord(alter func(r *Record)) Record {
	r := Record{Fields: codec.Fields{UserName: annsName, RefreshToken: "1000.rt"}, Born: nonceA, Nonces: []string{nonceA}, Updated: 1767225600123}
	alter(&r)
	return r
}

// goldenRecords maps the golden files to their records. The files are never edited, because
// users have stored records in the same form.
var goldenRecords = map[string]Record{
	"v1-bare.json": {},
	"v1-minimal.json": {
		Fields: codec.Fields{AccessToken: "1000.at"}, Born: nonceA, Nonces: []string{nonceA}, Updated: 1767225600123,
		Labels: []Label{{Key: "access", Value: letters, Nonce: nonceA}},
	},
	"v1-full.json": {
		Fields: codec.Fields{
			ID: "1", UserName: annsName, ClientID: "1000.CLIENT", ClientSecret: `cs<&>"\/é王`,
			RefreshToken: "1000.rt", AccessToken: "1000.at", GrantToken: "1000.gt", ExpiryTime: 4000000000123,
			RedirectURL: "https://example.com/cb?a=1&b=2", APIDomain: "https://www.zohoapis.eu",
		},
		Born: nonceA, Nonces: []string{nonceE, nonceA}, Updated: 1767225600123,
		Labels:   []Label{{Key: "client", Value: letters, Nonce: nonceA}, {Key: "user", Value: srettel, Nonce: nonceE}},
		Earlier:  []string{"g" + letters, "r" + srettel},
		Joining:  []Ref{{Name: "g" + strings.Repeat("j", 32), Born: strings.Repeat("j", 16)}},
		Absorbed: []Ref{{Name: "g" + strings.Repeat("k", 32), Born: strings.Repeat("k", 16)}, {Name: "r" + strings.Repeat("l", 32), Born: strings.Repeat("l", 16)}},
		Lease:    &Lease{ID: strings.Repeat("m", 16), Until: 1767225630123},
		Failure:  &Failure{Code: "Access Denied", At: 1767225500000, Retry: 1767226100000, Count: 3, Of: letters},
	},
	"v1-moved.json": plainRecord(func(r *Record) {
		r.UserName, r.RefreshToken, r.ClientID, r.GrantToken = "", "", "1000.CLIENT", "1000.gt"
		r.Moved = &Ref{Name: "u" + strings.Repeat("n", 32), Born: strings.Repeat("n", 16)}
	}),
	"v1-alias.json": plainRecord(func(r *Record) {
		r.UserName, r.RefreshToken, r.Nonces = "", "", []string{nonceE}
		r.Alias = &Ref{Name: "u" + strings.Repeat("n", 32), Born: strings.Repeat("n", 16)}
	}),
	"v1-joining.json": plainRecord(func(r *Record) {
		r.RefreshToken = ""
		r.Joining = []Ref{{Name: "g" + strings.Repeat("j", 32), Born: strings.Repeat("j", 16)}}
	}),
	"v1-lease.json": plainRecord(func(r *Record) {
		r.Lease = &Lease{ID: strings.Repeat("m", 16), Until: 1767225630123}
	}),
	"v1-lease-seen.json": plainRecord(func(r *Record) {
		r.Lease = &Lease{ID: strings.Repeat("m", 16), Until: 1767225630123, For: 30000, Seen: 2750}
	}),
	"v1-failure.json": plainRecord(func(r *Record) {
		r.Failure = &Failure{Code: "invalid_grant", Permanent: true, At: 1767225500000, Retry: 1767225501000, Of: letters}
	}),
	"v1-former.json": plainRecord(func(r *Record) {
		r.Former = []Label{{Key: "access", Value: letters, Nonce: nonceA}, {Key: "access", Value: srettel, Nonce: nonceE}}
	}),
	"v1-no-access.json": plainRecord(func(r *Record) { r.NoAccess = true }),
	"v1-took.json":      plainRecord(func(r *Record) { r.Took = 5012 }),
	"v1-unknown.json": plainRecord(func(r *Record) {
		r.unknown = map[string]json.RawMessage{
			"ID": json.RawMessage(`"not the id"`), `"`: json.RawMessage("null"),
			"scopes": json.RawMessage(`[ "a", "b" ]`), "tier": json.RawMessage(`{"name":"gold","since":1.50}`),
		}
	}),
	"v1-redirects.json": plainRecord(func(r *Record) {
		r.IDs = []string{"g" + strings.Repeat("p", 32), "i" + strings.Repeat("q", 32)}
		r.Redirects = []Redirect{{Ref: Ref{Name: "g" + strings.Repeat("p", 32), Born: strings.Repeat("p", 16)}, Since: 1767225500000}}
	}),
	"v1-writes.json": plainRecord(func(r *Record) { r.Writes = []int{3, 0, 1} }),
	"v2-full.json": {
		Fields: codec.Fields{
			ID: "1", UserName: annsName, ClientID: "https://app.example/client.json", ClientSecret: `cs<&>"\/é王`,
			RefreshToken: "1000.rt", AccessToken: "1000.at", GrantToken: "1000.gt", ExpiryTime: 4000000000123,
			RedirectURL: "https://example.com/cb?a=1&b=2", APIDomain: "https://www.zohoapis.eu",
			Issuer: "https://as.example", Resource: "https://mcp.example/a?b=c&d", Scope: "openid offline_access", TokenType: "DPoP",
			IDToken: "eyJh.eyJz.c2ln", Extra: `{"<&>":"\"\\é王","ext_expires_in":3599.0,"refresh_token_expires_in":[1,{"a":null}]}`,
		},
		Born: nonceA, Nonces: []string{nonceE, nonceA}, Updated: 1767225600123,
		Labels: []Label{{Key: "client", Value: letters, Nonce: nonceA}, {Key: "user", Value: srettel, Nonce: nonceE}},
	},
	"v2-issuer.json":   plainRecord(func(r *Record) { r.Issuer = "https://as.example" }),
	"v2-resource.json": plainRecord(func(r *Record) { r.Resource = "https://mcp.example" }),
	"v2-unknown.json": plainRecord(func(r *Record) {
		r.TokenType = "Bearer"
		r.unknown = map[string]json.RawMessage{"TOKEN_TYPE": json.RawMessage(`"x"`), "tier": json.RawMessage(`{"name":"gold","since":1.50}`)}
	}),
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "codec", "testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// unequal returns the names of the fields in which two records differ.
func unequal(got, want Record) []string {
	var names []string
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		field := g.Type().Field(i)
		if field.IsExported() && !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			names = append(names, field.Name)
		}
	}
	same := func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }
	if !maps.EqualFunc(got.unknown, want.unknown, same) {
		names = append(names, "unknown")
	}
	return names
}

func TestGoldenRecordsAreReadFieldByField(t *testing.T) {
	t.Parallel()
	for name, want := range goldenRecords {
		got, err := Decode(golden(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, field := range unequal(got, want) {
			t.Errorf("%s: %s is not what the file holds", name, field)
		}
	}
}

func TestGoldenRecordsAreWrittenAsTheyAre(t *testing.T) {
	t.Parallel()
	for name, r := range goldenRecords {
		data, err := Encode(r)
		if want := golden(t, name); err != nil || !bytes.Equal(data, want) {
			t.Errorf("%s is written as\n%s\nerror %v, want\n%s", name, data, err, want)
		}
	}
}

func TestEveryGoldenRecordIsTested(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("..", "..", "codec", "testdata", "golden", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, ok := goldenRecords[filepath.Base(file)]; !ok {
			t.Errorf("no test says what %s holds", file)
		}
	}
	if len(files) != len(goldenRecords) {
		t.Errorf("%d golden files, %d golden records", len(files), len(goldenRecords))
	}
	covered := map[string]bool{}
	for _, r := range goldenRecords {
		v := reflect.ValueOf(r)
		for i := range v.NumField() {
			covered[v.Type().Field(i).Name] = covered[v.Type().Field(i).Name] || !v.Field(i).IsZero()
		}
	}
	for field, ok := range covered {
		if !ok {
			t.Errorf("no golden record has the field %s", field)
		}
	}
}

func TestUnknownMembersAreKeptThroughAChange(t *testing.T) {
	t.Parallel()
	r, err := Decode(golden(t, "v1-unknown.json"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`"`, "ID", "scopes", "tier"}; !slices.Equal(r.Unknown(), want) {
		t.Errorf("unknown members %q, want %q", r.Unknown(), want)
	}
	r.AccessToken = "1000.new"
	data, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{`"ID":"not the id"`, `"\"":null`, `"scopes":[ "a", "b" ]`, `"tier":{"name":"gold","since":1.50}`} {
		if !strings.Contains(string(data), member) {
			t.Errorf("%s is lost: %s", member, data)
		}
	}
}

func TestMembersOfARecordMayStandInAnyOrder(t *testing.T) {
	t.Parallel()
	r, err := Decode([]byte(" {\n\t\"refresh_token\" : \"1000.rt\", \"nonces\": [\"" + nonceA + "\"], \"x\":1,\r\n \"v\": 1 } "))
	want := Record{Fields: codec.Fields{RefreshToken: "1000.rt"}, Nonces: []string{nonceA}, unknown: map[string]json.RawMessage{"x": json.RawMessage("1")}}
	if diff := unequal(r, want); err != nil || len(diff) > 0 {
		t.Errorf("fields %v are different, error %v", diff, err)
	}
}

// secretText is a secret in the data that Decode refuses in these tests.
const secretText = "s3cr3t-value"

// notRecords lists data that Decode refuses, by the reason.
var notRecords = map[string]string{
	"nothing":                    ``,
	"a space":                    ` `,
	"text":                       secretText,
	"a string":                   `"` + secretText + `"`,
	"an array":                   `[{"v":1,"refresh_token":"` + secretText + `"}]`,
	"null":                       `null`,
	"a number":                   `1`,
	"an empty object":            `{}`,
	"a truncated record":         `{"v":1,"refresh_token":"` + secretText,
	"a record and more":          `{"v":1,"refresh_token":"` + secretText + `"}}`,
	"two records":                `{"v":1}{"v":1,"refresh_token":"` + secretText + `"}`,
	"no version":                 `{"refresh_token":"` + secretText + `"}`,
	"a later version":            `{"v":3,"refresh_token":"` + secretText + `"}`,
	"version 0":                  `{"v":0,"refresh_token":"` + secretText + `"}`,
	"a negative version":         `{"v":-1,"refresh_token":"` + secretText + `"}`,
	"a version in text":          `{"v":"` + secretText + `"}`,
	"a version that is null":     `{"v":null,"refresh_token":"` + secretText + `"}`,
	"a broken version":           `{"v":1.5,"refresh_token":"` + secretText + `"}`,
	"a token of another type":    `{"v":1,"refresh_token":["` + secretText + `"]}`,
	"a time in text":             `{"v":1,"expiry_time":"` + secretText + `"}`,
	"a broken time":              `{"v":1,"expiry_time":1.5,"refresh_token":"` + secretText + `"}`,
	"a time that is too large":   `{"v":1,"expiry_time":99999999999999999999,"refresh_token":"` + secretText + `"}`,
	"nonces that are no list":    `{"v":1,"nonces":"` + secretText + `"}`,
	"labels that are no objects": `{"v":1,"labels":["` + secretText + `"]}`,
	"a lease that is text":       `{"v":1,"lease":"` + secretText + `"}`,
	"a member twice":             `{"v":1,"refresh_token":"` + secretText + `","refresh_token":"b"}`,
	"an unknown member twice":    `{"v":1,"` + secretText + `":1,"` + secretText + `":2}`,
	"the version twice":          `{"v":1,"v":1,"refresh_token":"` + secretText + `"}`,
	"a member twice, escaped":    `{"v":1,"refresh_token":"` + secretText + `","refresh\u005ftoken":"b"}`,
	"invalid UTF-8":              "{\"v\":1,\"refresh_token\":\"" + secretText + "\xff\"}",
	"invalid UTF-8 in a name":    "{\"v\":1,\"x\xff\":\"" + secretText + "\"}",
	"a control character":        "{\"v\":1,\"refresh_token\":\"" + secretText + "\n\"}",
	// If Decode accepted "aead" as an unknown member, the record would have no token, and a save
	// would overwrite the encrypted token.
	"an encrypted record": `{"v":1,"aead":"` + secretText + `"}`,
	"depth without end":   `{"v":1,"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
}

// refused checks that r and err are results of a failed Decode: err matches codec.ErrFormat
// and quotes no secrets, and r is empty.
func refused(t *testing.T, what string, r Record, err error, secrets ...string) {
	t.Helper()
	if !errors.Is(err, codec.ErrFormat) {
		t.Errorf("%s: error %v, want ErrFormat", what, err)
		return
	}
	for _, secret := range append(secrets, secretText) {
		if strings.Contains(fmt.Sprintf("%v %+v %#v %q", err, err, err, err), secret) {
			t.Errorf("%s: the error quotes what it is about", what)
		}
	}
	if len(unequal(r, Record{})) > 0 {
		t.Errorf("%s: a record is returned with the error", what)
	}
}

func TestDecodeNotARecord(t *testing.T) {
	t.Parallel()
	for what, data := range notRecords {
		r, err := Decode([]byte(data))
		refused(t, what, r, err)
	}
}

func TestDecodeTruncated(t *testing.T) {
	t.Parallel()
	data := golden(t, "v1-full.json")
	for n := range data {
		r, err := Decode(data[:n])
		refused(t, fmt.Sprintf("the first %d bytes", n), r, err, "1000.rt", "1000.at", "1000.gt")
	}
}

func TestDecodeKeepsNothingOfItsInput(t *testing.T) {
	t.Parallel()
	for name, want := range goldenRecords {
		data := golden(t, name)
		r, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			data[i] = '#'
		}
		if diff := unequal(r, want); len(diff) > 0 {
			t.Errorf("%s: %v changed with the bytes that were decoded", name, diff)
		}
	}
}

// printed returns the output of printing, logging and marshaling v.
func printed(v any) string {
	var b bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%10.3v", "%o", "%t", "%e", "%U", "%c", "%b"} {
		_, _ = fmt.Fprintf(&b, format+"\n", v)
	}
	_, _ = fmt.Fprintln(&b, fmt.Sprint(v), fmt.Errorf("about %v", v))
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).With("with", v).Info("text", "value", v, slog.Group("group", "value", v))
	}
	if text, err := json.Marshal(v); err != nil {
		b.WriteString(err.Error())
	} else {
		b.Write(text)
	}
	return b.String()
}

func TestRecordPrinting(t *testing.T) {
	t.Parallel()
	r := Record{
		Fields: codec.Fields{
			ID: "canary-1", UserName: "canary-2", ClientID: "canary-3", ClientSecret: "canary-4", RefreshToken: "canary-5",
			AccessToken: "canary-6", GrantToken: "canary-7", RedirectURL: "canary-8", APIDomain: "canary-9",
			Issuer: "canary-13", Resource: "canary-14", Scope: "canary-15", TokenType: "canary-16", IDToken: "canary-17", Extra: `{"a":"canary-18"}`,
		},
		Failure: &Failure{Code: "canary-10"}, unknown: map[string]json.RawMessage{"canary-11": json.RawMessage(`"canary-12"`)},
	}
	for what, v := range map[string]any{
		"a record": r, "a pointer": &r, "a list": []Record{r}, "a list of pointers": []*Record{&r},
		"a map": map[string]Record{"a": r}, "a struct around one": struct{ Record Record }{r}, "an any": []any{r},
	} {
		text := printed(v)
		for _, canary := range []string{"canary", "63616e617279", "63616E617279", "Y2FuYXJ5", "99 97 110 97 114 121"} {
			if strings.Contains(text, canary) {
				t.Errorf("%s shows %q", what, canary)
			}
		}
		if _, err := json.Marshal(v); err == nil {
			t.Errorf("%s is marshaled by another than Encode", what)
		}
	}
}

// FuzzDecode checks that Decode does not panic, and that its errors are short. It also checks that
// a decoded record is encoded and decoded again without a change.
func FuzzDecode(f *testing.F) {
	for name := range goldenRecords {
		f.Add(golden(f, name))
	}
	for _, data := range notRecords {
		f.Add([]byte(data[:min(len(data), 1000)]))
	}
	f.Add([]byte(`{"v":1,"lease":null,"labels":[],"nonces":[null],"moved":{},"failure":{"count":-1},"\ud800":"\udc00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			if !errors.Is(err, codec.ErrFormat) {
				t.Fatalf("error %v, want ErrFormat", err)
			}
			if len(err.Error()) > 100 {
				t.Fatalf("the error of %d bytes has %d", len(data), len(err.Error()))
			}
			return
		}
		written, err := Encode(r)
		if err != nil {
			t.Fatalf("%q is read and cannot be written: %v", data, err)
		}
		if !utf8.Valid(written) || !json.Valid(written) {
			t.Fatalf("%q is written as %q", data, written)
		}
		again, err := Decode(written)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", data, written, err)
		}
		if !slices.Equal(again.Unknown(), r.Unknown()) {
			t.Fatalf("%q has the unknown members %q, and then %q", data, r.Unknown(), again.Unknown())
		}
		if twice, err := Encode(again); err != nil || !bytes.Equal(twice, written) {
			t.Fatalf("%q is written as %q, and then as %q, error %v", data, written, twice, err)
		}
	})
}

// FuzzRoundTrip checks that Decode returns the record that was encoded, plain and encrypted.
func FuzzRoundTrip(f *testing.F) {
	f.Add("1", annsName, "1000.CLIENT", "cs", "1000.rt", "1000.at", "1000.gt", int64(4000000000123), "https://a/b", nonceA, uint16(0xffff))
	f.Add("", "", "", "", "", "<>&\u2028\u2029", "\\\"\x00\x1f\x7f", int64(-1), "", "", uint16(0))
	f.Add("王", "é", "\ufffd", "\U0001f511", " ", "null", "{}", int64(1)<<62, "[]", "0", uint16(0b0101_0101))
	key, err := codec.AESGCM(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	box, err := codec.Encrypted(codec.JSON, key, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, user, client, secret, refresh, access, grant string, expiry int64, url, nonce string, parts uint16) {
		r := Record{
			Fields: codec.Fields{
				ID: id, UserName: user, ClientID: client, ClientSecret: secret, RefreshToken: refresh, AccessToken: access,
				GrantToken: grant, ExpiryTime: expiry, RedirectURL: url, APIDomain: url,
			},
			Born: nonce, Updated: expiry,
		}
		for i, add := range []func(){
			func() { r.Nonces = []string{nonce, id} },
			func() { r.Labels = []Label{{user, id, nonce}, {}} },
			func() { r.Earlier = []string{id, ""} },
			func() { r.Joining = []Ref{{id, nonce}} },
			func() { r.Absorbed = []Ref{{nonce, id}, {}} },
			func() { r.Moved = &Ref{id, nonce} },
			func() { r.Alias = &Ref{} },
			func() { r.Lease = &Lease{ID: nonce, Until: expiry, For: expiry, Seen: expiry} },
			func() { r.IDs = []string{nonce, "", id} },
			func() { r.Redirects = []Redirect{{Ref{id, nonce}, expiry}, {}} },
			func() { r.Failure = &Failure{user, parts&1 == 0, expiry, -expiry, int(parts), id} },
		} {
			if parts>>i&1 != 0 {
				add()
			}
		}
		data, err := Encode(r)
		if err != nil {
			t.Fatalf("it cannot be written: %v", err)
		}
		for _, s := range []string{id, user, client, secret, refresh, access, grant, url, nonce} {
			if !utf8.ValidString(s) {
				return // stores refuse invalid text, which JSON would change
			}
		}
		got, err := Decode(data)
		if diff := unequal(got, r); err != nil || len(diff) > 0 {
			t.Fatalf("%s is read with other fields %v, error %v", data, diff, err)
		}
		sealed, err := box.Seal("name", r.Born, data)
		if err != nil {
			t.Fatalf("it cannot be encrypted: %v", err)
		}
		if text, err := box.Open("name", sealed); err != nil || !bytes.Equal(text, data) {
			t.Fatalf("it is decrypted as %q, error %v", text, err)
		}
	})
}
