package codec

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestCanonicalExtra(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                               ``,
		`{}`:                             ``,
		" {\n\t} ":                       ``,
		`{"b":1,"a":2}`:                  `{"a":2,"b":1}`,
		`{ "a" : [ 1 , {} ] }`:           `{"a":[1,{}]}`,
		`{"a":{"z":1,"y":[]}}`:           `{"a":{"y":[],"z":1}}`,
		`{"n":1.0,"m":-1E+400}`:          `{"m":-1E+400,"n":1.0}`,
		`{"n":12345678901234567890123}`:  `{"n":12345678901234567890123}`,
		`{"a":null,"b":true,"c":false}`:  `{"a":null,"b":true,"c":false}`,
		`{"a":"<&>\u0026\/\"\\"}`:        `{"a":"<&>&/\"\\"}`,
		"{\"a\":\"\u2028é王\U0001f511\"}": "{\"a\":\"\u2028é王\U0001f511\"}",
		`{"a":"\ud83d\udd11\u738b"}`:     "{\"a\":\"\U0001f511王\"}",
		`{"a":"\\ud83d"}`:                `{"a":"\\ud83d"}`,
		`{"a":"\n\t\u0000"}`:             `{"a":"\u000a\u0009\u0000"}`,
		"{\"a\":\"\x7f\u0085\"}":         `{"a":"\u007f\u0085"}`,
		`{"":1}`:                         `{"":1}`,
		`{"A":1,"a":2}`:                  `{"A":1,"a":2}`,
	} {
		got, err := CanonicalExtra(text)
		if err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", text, got, err, want)
		}
		if again, err := CanonicalExtra(got); err != nil || again != got {
			t.Errorf("%q is %q, %v the second time", text, again, err)
		}
	}
	for what, text := range map[string]string{
		"an array": `["secret"]`, "a string": `"secret"`, "null": `null`, "text": `secret`, "two objects": `{"secret":1}{}`,
		"a member twice": `{"secret":1,"secret":2}`, "a member twice, escaped": `{"secret":1,"s\u0065cret":2}`,
		"a member twice within": `{"a":[{"secret":1,"secret":2}]}`, "half a character": `{"secret":"\ud83d"}`,
		"the other half": `{"secret":"\udd11"}`, "two first halves": `{"secret":"\ud83d\ud83d\udd11"}`, "half a character and text": `{"secret":"\ud83dx"}`,
		"half a character in a name": `{"secret\ud83d":1}`, "invalid UTF-8": "{\"secret\":\"\xff\"}", "a control character": "{\"secret\":\"\n\"}",
		"the redacted text": "[redacted]", "depth": `{"secret":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "more depth": strings.Repeat(`{"secret":`, 100_000),
	} {
		if got, err := CanonicalExtra(text); err == nil || got != "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %.40q, %v", what, got, err)
		}
	}
	if _, err := CanonicalExtra(`{"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`); err != nil {
		t.Errorf("depth 64: %v", err)
	}
}

func TestMergeExtra(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ record, laid, merged, since string }{
		{"", "", "", ""},
		{"", `{"a":1}`, `{"a":1}`, `{"a":1}`},
		{`{"a":1}`, "", `{"a":1}`, ""},
		{`{"a":1}`, `{"a":1}`, `{"a":1}`, ""},
		{`{"a":1,"c":1}`, `{"a":2,"b":2,"c":1}`, `{"a":2,"b":2,"c":1}`, `{"a":2,"b":2}`},
		{`{"a":{"x":1}}`, `{"a":{"y":1}}`, `{"a":{"y":1}}`, `{"a":{"y":1}}`},
		{`{"\"<&>é":1}`, `{"a":1}`, `{"\"<&>é":1,"a":1}`, `{"a":1}`},
		{`damaged`, `{"a":1}`, `{"a":1}`, `{"a":1}`},
	} {
		if got := MergeExtra(test.record, test.laid); got != test.merged {
			t.Errorf("%s and %s are %s, want %s", test.record, test.laid, got, test.merged)
		}
		if got := ExtraSince(test.record, test.laid); got != test.since {
			t.Errorf("since %s, %s has %s, want %s", test.record, test.laid, got, test.since)
		}
	}
}

// FuzzCanonicalExtra checks that the canonical form decodes to the same value as the text, contains
// no line break, tab, NUL or DEL, and is its own canonical form.
func FuzzCanonicalExtra(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":"\u0085\ud83d\udd11"}`, `{"b":[1,2.50,{"c":null}],"a":-0}`, `{"a":1,"a":1}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := CanonicalExtra(text)
		if err != nil || got == "" {
			return
		}
		if again, err := CanonicalExtra(got); err != nil || again != got {
			t.Fatalf("%q is %q, and then %q, %v", text, got, again, err)
		}
		decode := func(text string) (v map[string]any) {
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		if strings.ContainsAny(got, "\n\r\t\x00\x7f") || !reflect.DeepEqual(decode(got), decode(text)) {
			t.Fatalf("%q is %q", text, got)
		}
		if MergeExtra(got, got) != got || MergeExtra(`{"\u0000":1}`, got) == got || ExtraSince(got, got) != "" {
			t.Fatalf("%q does not merge with itself", got)
		}
	})
}
