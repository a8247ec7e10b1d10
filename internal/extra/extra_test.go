package extra_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestForm checks that Form and Values together return the same value for a form member as
// x/oauth2.
func TestForm(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "7", "-7", "+7", " 7 ", "007", "9223372036854775808", "1.5", "1.", ".5", "1e5", "1.e5", "1.0e999", "1.2.3", "0x1.8p1", "text", "a\nb", "null", "nan.", "\u00e9"} {
		want := (&oauth2.Token{}).WithExtra(url.Values{"x": {value}}).Extra("x")
		text := extra.Join(map[string]json.RawMessage{"x": extra.Form(value)})
		if got := extra.Values(text)["x"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %T(%v), and with x/oauth2 %T(%v)", value, got, got, want, want)
		}
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	deep := json.RawMessage(strings.Repeat("[", 100) + strings.Repeat("]", 100))
	got := extra.Join(map[string]json.RawMessage{
		"b": json.RawMessage(` [1, 2.50]`), "a": json.RawMessage(`{"x":1,"x":2}`), "deep": deep, "bad": json.RawMessage("\"\xff\""), "half": json.RawMessage(`"\ud800"`), "c\"": json.RawMessage("null"),
	})
	want := `{"a":{"x":2},"b":[1,2.50],"bad":"` + "\ufffd" + `","c\"":null,"half":"` + "\ufffd" + `"}`
	if got != want {
		t.Errorf("joined is %s, not %s", got, want)
	}
	if canonical, err := codec.CanonicalExtra(got); err != nil || canonical != got {
		t.Errorf("its canonical form is %s: %v", canonical, err)
	}
}

func TestValuesOfOtherText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[]", "{", "null", "1", `"x"`} {
		if got := extra.Values(text); got == nil || len(got) != 0 {
			t.Errorf("%q has the members %v", text, got)
		}
	}
	got := extra.Values(`{"int":7e0,"float":7,"far":1e999,"near":12e1}`)
	if want := map[string]any{"int": int64(7), "float": 7.0, "far": nil, "near": 120.0}; !reflect.DeepEqual(got, want) {
		t.Errorf("the members are %v", got)
	}
	if got := string(extra.JSON(json.RawMessage("7e0"))); got != "7" {
		t.Errorf("7e0 of a server is written %s", got)
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	member := func(name string, n int) string { return `{"` + name + `":"` + strings.Repeat("x", n) + `"}` }
	for what, c := range map[string]struct {
		record, text string
		left         int
		want         string
	}{
		"there is room":                    {member("a", 8000), member("b", 8000), 0, member("b", 8000)},
		"it replaces what is there":        {member("a", 16000), member("a", 15999), 0, member("a", 15999)},
		"there is none":                    {member("a", 8000), member("b", 9000), 1, ""},
		"the largest goes first":           {"", codec.MergeExtra(codec.MergeExtra(member("a", 9000), member("b", 9001)), member("c", 5)), 1, codec.MergeExtra(member("a", 9000), member("c", 5))},
		"what is there does not stay":      {member("a", 10), member("a", 17000), 1, `{"a":null}`},
		"even if another member goes too":  {member("a", 10), codec.MergeExtra(member("a", 17000), member("b", 16999)), 2, `{"a":null}`},
		"the record is as large as it can": {member("a", codec.MaxExtra-8), member("b", 1), 1, ""},
	} {
		got, left := extra.Fit(c.record, c.text)
		if got != c.want || left != c.left {
			t.Errorf("%s: %d members are left out, and %.40s stays", what, left, got)
		}
		if n := len(codec.MergeExtra(c.record, got)); n > codec.MaxExtra {
			t.Errorf("%s: merged it has %d bytes", what, n)
		}
	}
}

// TestGiven checks that Given returns the members that WithExtra added to a token.
func TestGiven(t *testing.T) {
	t.Parallel()
	for what, raw := range map[string]any{"JSON": map[string]any{"x": "1"}, "a form": url.Values{"x": {"one"}}} {
		got, err := extra.Given((&oauth2.Token{AccessToken: "a"}).WithExtra(raw))
		if err != nil || got.AccessToken != "a" || !strings.HasPrefix(string(got.Extra), `{"x":"`) {
			t.Errorf("%s: the record has the Extra %s: %v", what, string(got.Extra), err)
		}
	}
	_, err := extra.Given((&oauth2.Token{}).WithExtra(map[string]any{"x": func() {}}))
	if !errors.Is(err, tokenstore.ErrInvalidToken) {
		t.Errorf("the error is %v", err)
	}
}
