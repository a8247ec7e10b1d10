package tokenstore_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const canary = "canary-0123456789"

// shown returns the texts that package fmt, loggers and an encoder produce for v.
func shown(v any) string {
	var b bytes.Buffer
	for _, verb := range []string{
		"%v", "%+v", "%#v", "%d", "%q", "%x", "%s", "%X", "%+q", "%#q", "% x", "%#x", "%t", "%e", "%o", "%b", "%c", "%U", "%5.1v", "%-40s", "%z",
	} {
		_, _ = fmt.Fprintf(&b, verb+"\n", v)
	}
	_, _ = fmt.Fprintln(&b, v, fmt.Sprint(v), fmt.Errorf("about %v", v))
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		log := slog.New(h)
		log.Info("text", "value", v, slog.Group("group", "value", v))
		log.With("value", v).WithGroup("group").Info("text", slog.Any("value", v))
	}
	if text, err := json.Marshal(v); err != nil {
		b.WriteString(err.Error())
	} else {
		b.Write(text)
	}
	return b.String()
}

// leaks reports whether text contains the beginning of the canary in one of the forms that
// verbs and encoders produce.
func leaks(text string) bool {
	for _, form := range []string{"canary", "63616e617279", "63 61 6e 61 72 79", "99 97 110 97 114 121", "Y2FuYXJ5"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			return true
		}
	}
	return false
}

func TestSecretPrinting(t *testing.T) {
	t.Parallel()
	s := tokenstore.Secret(canary)
	token := tokenstore.Token{
		ID: "1", UserName: "ann", ClientID: "c1", RedirectURL: "https://example.com", APIDomain: "https://api.example.com",
		ClientSecret: s + "1", RefreshToken: s + "2", AccessToken: s + "3", GrantToken: s + "4",
	}
	for what, v := range map[string]any{
		"a secret":                s,
		"a pointer to one":        &s,
		"a list of secrets":       []tokenstore.Secret{s, s},
		"an array of them":        [2]tokenstore.Secret{s, s},
		"a map of them":           map[string]tokenstore.Secret{"a": s},
		"a struct around one":     struct{ Secret tokenstore.Secret }{s},
		"a struct around a token": struct{ Token tokenstore.Token }{token},
		"a token":                 token,
		"a pointer to a token":    &token,
		"a list of tokens":        []tokenstore.Token{token},
		"a map of tokens":         map[string]tokenstore.Token{"a": token},
		"an any":                  []any{s, token},
		"a candidate":             tokenstore.Candidate{Token: token},
		"a plan":                  tokenstore.Plan{Token: token},
	} {
		if text := shown(v); leaks(text) {
			t.Errorf("%s can be seen:\n%s", what, text)
		}
	}
}

func TestSecretMapKey(t *testing.T) {
	t.Parallel()
	m := map[tokenstore.Secret]int{canary: 1}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb, m); leaks(text) {
			t.Errorf("%s shows it: %s", verb, text)
		}
	}
}

func TestSecretFormats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, secret, empty string }{
		{"%v", "[redacted]", ""},
		{"%+v", "[redacted]", ""},
		{"%s", "[redacted]", ""},
		{"%d", "[redacted]", ""},
		{"%x", "[redacted]", ""},
		{"%q", `"[redacted]"`, `""`},
		{"%#v", `tokenstore.Secret("[redacted]")`, `tokenstore.Secret("")`},
	} {
		if got := fmt.Sprintf(c.format, tokenstore.Secret(canary)); got != c.secret {
			t.Errorf("%s prints %s, want %s", c.format, got, c.secret)
		}
		if got := fmt.Sprintf(c.format, tokenstore.Secret("")); got != c.empty {
			t.Errorf("%s of no secret prints %q, want %q", c.format, got, c.empty)
		}
	}
	s := tokenstore.Secret(canary)
	if got := s.String() + s.GoString() + s.LogValue().String(); got != `[redacted]tokenstore.Secret("[redacted]")[redacted]` {
		t.Errorf("the methods return %s", got)
	}
}

func TestTokenPrinting(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf("%+v", tokenstore.Token{ID: "1", UserName: "ann", ClientID: "c1", RefreshToken: canary})
	for _, want := range []string{"ID:1", "UserName:ann", "ClientID:c1", "RefreshToken:[redacted]", "AccessToken: "} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}

func TestTokenMarshal(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(tokenstore.Token{ID: "1", RefreshToken: canary})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	if fields["RefreshToken"] != "[redacted]" || fields["AccessToken"] != "" || fields["ID"] != "1" {
		t.Errorf("it is marshaled as %s", data)
	}
	data, err = xml.Marshal(tokenstore.Token{ID: "1", RefreshToken: canary})
	if err != nil || leaks(string(data)) || !strings.Contains(string(data), "[redacted]") {
		t.Errorf("it is marshaled as %s, error %v", data, err)
	}
}

func TestSecretUnmarshalRedacted(t *testing.T) {
	t.Parallel()
	s := tokenstore.Secret("before")
	if err := s.UnmarshalText([]byte("[redacted]")); !errors.Is(err, tokenstore.ErrInvalidToken) || s != "before" {
		t.Errorf("UnmarshalText set %q, error %v, want ErrInvalidToken", string(s), err)
	}
	logged, err := json.Marshal(tokenstore.Token{ID: "1", RefreshToken: canary})
	if err != nil {
		t.Fatal(err)
	}
	var back tokenstore.Token
	if err := json.Unmarshal(logged, &back); !errors.Is(err, tokenstore.ErrInvalidToken) {
		t.Errorf("a token that was marshaled is read back: error %v, want ErrInvalidToken", err)
	}
}

func TestSecretUnmarshal(t *testing.T) {
	t.Parallel()
	var token tokenstore.Token
	if err := json.Unmarshal([]byte(`{"RefreshToken":"`+canary+`","AccessToken":""}`), &token); err != nil {
		t.Fatal(err)
	}
	if token.RefreshToken != canary || token.AccessToken != "" {
		t.Error("it is not what the text says")
	}
}

func TestSecretsAreEqualIfTheyAre(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b tokenstore.Secret
		want bool
	}{
		{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "", false}, {"", "a", false}, {"a", "a\x00", false}, {"ab", "a", false},
		{canary, canary, true}, {canary, canary + "x", false}, {"[redacted]", canary, false},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("Equal of secrets of %d and %d bytes is not %v", len(c.a), len(c.b), c.want)
		}
	}
}
