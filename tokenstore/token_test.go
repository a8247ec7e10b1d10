package tokenstore_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// textFields are the fields of a token that hold text, except Extra.
var textFields = []struct {
	name string
	set  func(t *tokenstore.Token, v string)
}{
	{"ID", func(t *tokenstore.Token, v string) { t.ID = v }},
	{"UserName", func(t *tokenstore.Token, v string) { t.UserName = v }},
	{"ClientID", func(t *tokenstore.Token, v string) { t.ClientID = v }},
	{"ClientSecret", func(t *tokenstore.Token, v string) { t.ClientSecret = tokenstore.Secret(v) }},
	{"RefreshToken", func(t *tokenstore.Token, v string) { t.RefreshToken = tokenstore.Secret(v) }},
	{"AccessToken", func(t *tokenstore.Token, v string) { t.AccessToken = tokenstore.Secret(v) }},
	{"GrantToken", func(t *tokenstore.Token, v string) { t.GrantToken = tokenstore.Secret(v) }},
	{"RedirectURL", func(t *tokenstore.Token, v string) { t.RedirectURL = v }},
	{"APIDomain", func(t *tokenstore.Token, v string) { t.APIDomain = v }},
	{"Issuer", func(t *tokenstore.Token, v string) { t.Issuer = v }},
	{"Resource", func(t *tokenstore.Token, v string) { t.Resource = v }},
	{"Scope", func(t *tokenstore.Token, v string) { t.Scope = v }},
	{"TokenType", func(t *tokenstore.Token, v string) { t.TokenType = v }},
	{"IDToken", func(t *tokenstore.Token, v string) { t.IDToken = tokenstore.Secret(v) }},
}

func TestFieldsAndBack(t *testing.T) {
	t.Parallel()
	var token tokenstore.Token
	v := reflect.ValueOf(&token).Elem()
	for i := range v.NumField() {
		if field := v.Field(i); field.Kind() == reflect.String {
			field.SetString(v.Type().Field(i).Name)
		} else {
			field.Set(reflect.ValueOf(at(0).UTC()))
		}
	}
	f := token.Fields()
	for field, text := range f.All() {
		if text == "" {
			t.Errorf("%s is lost", field.Name)
		}
	}
	if back := tokenstore.FromFields(f); back != token {
		t.Errorf("%+v comes back as %+v", token, back)
	}
	if back := tokenstore.FromFields(tokenstore.Token{}.Fields()); back != (tokenstore.Token{}) {
		t.Errorf("the zero Token comes back as %+v", back)
	}
	token.ExpiresAt = at(0).Add(1_999_999).In(time.FixedZone("x", 3600))
	if back := tokenstore.FromFields(token.Fields()); back.ExpiresAt != at(0).Add(time.Millisecond).UTC() {
		t.Errorf("%v comes back as %v", token.ExpiresAt, back.ExpiresAt)
	}
}

func TestValidateText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, value string
		want        error // of Validate, for every field
	}{
		{"nothing", "", nil},
		{"text", "1000.abc", nil},
		{"text of many scripts", "Zoë 王 🔑 العربية", nil},
		{"a replacement character", "\ufffd", nil},
		{"a space at either end", " a ", nil},
		{"quotes and commas", "\"a\",'b'\\", nil},
		{"255 bytes", strings.Repeat("x", 255), nil},
		{"invalid UTF-8", canary + "\xff", tokenstore.ErrInvalidToken},
		{"half a character", canary + "\xc3", tokenstore.ErrInvalidToken},
		{"a surrogate", "\xed\xa0\x80" + canary, tokenstore.ErrInvalidToken},
		{"an overlong slash", canary + "\xc0\xaf", tokenstore.ErrInvalidToken},
		{"a NUL", canary + "\x00", tokenstore.ErrInvalidToken},
		{"a tab", canary + "\t", tokenstore.ErrInvalidToken},
		{"a line feed", "\n" + canary, tokenstore.ErrInvalidToken},
		{"a carriage return", canary + "\r" + canary, tokenstore.ErrInvalidToken},
		{"an escape", canary + "\x1b[2J", tokenstore.ErrInvalidToken},
		{"a DEL", canary + "\x7f", tokenstore.ErrInvalidToken},
		{"a C1 control", canary + "\u0085", tokenstore.ErrInvalidToken},
		{"the redacted text", "[redacted]", tokenstore.ErrInvalidToken},
	} {
		for _, f := range textFields {
			var token tokenstore.Token
			f.set(&token, c.value)
			err := tokenstore.Validate(token)
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("%s in %s: error %v, want %v", c.what, f.name, err, c.want)
			}
			if err != nil && (!strings.Contains(err.Error(), f.name) || leaks(fmt.Sprintf("%v %+v %#v", err, err, err))) {
				t.Errorf("%s in %s: the error does not name the field alone: %v", c.what, f.name, err)
			}
		}
	}
}

func TestValidateLengths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		length    int
		id, other error
	}{
		{255, nil, nil},
		{256, tokenstore.ErrInvalidToken, nil},
		{10_000, tokenstore.ErrInvalidToken, nil},
		{32 << 10, tokenstore.ErrInvalidToken, nil},
		{32<<10 + 1, tokenstore.ErrInvalidToken, tokenstore.ErrTooLarge},
		{1 << 20, tokenstore.ErrInvalidToken, tokenstore.ErrTooLarge},
	} {
		for _, f := range textFields {
			var token tokenstore.Token
			f.set(&token, strings.Repeat("x", c.length))
			want := c.other
			if f.name == "ID" {
				want = c.id
			}
			err := tokenstore.Validate(token)
			if want == nil && err != nil || !errors.Is(err, want) || err != nil && len(err.Error()) > 100 {
				t.Errorf("%d bytes of %s: error %v, want %v", c.length, f.name, err, want)
			}
		}
	}
	// The limit on the length of an ID is in bytes, not characters.
	if err := tokenstore.Validate(tokenstore.Token{ID: strings.Repeat("é", 128)}); !errors.Is(err, tokenstore.ErrInvalidToken) {
		t.Errorf("an ID of 128 characters in 256 bytes: error %v", err)
	}
}

func TestValidateTimes(t *testing.T) {
	t.Parallel()
	last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	for _, c := range []struct {
		at   time.Time
		want error
	}{
		{time.Time{}, nil},
		{time.UnixMilli(1), nil},
		{time.UnixMilli(1).Add(999_999), nil},
		{time.Unix(4_000_000_000, 0), nil},
		{last, nil},
		{last.In(time.FixedZone("west", -12*3600)), nil},
		{last.In(time.FixedZone("east", 14*3600)), nil},
		{last.Add(1), tokenstore.ErrInvalidToken},
		{last.Add(1).In(time.FixedZone("west", -12*3600)), tokenstore.ErrInvalidToken},
		{time.UnixMilli(0), tokenstore.ErrInvalidToken},
		{time.UnixMilli(0).Add(999_999), tokenstore.ErrInvalidToken},
		{time.UnixMilli(-1), tokenstore.ErrInvalidToken},
		{time.Time{}.Add(1), tokenstore.ErrInvalidToken},
		{time.Unix(math.MaxInt64, 0), tokenstore.ErrInvalidToken},
		{time.Unix(math.MinInt64, 0), tokenstore.ErrInvalidToken},
		{time.UnixMilli(math.MaxInt64), tokenstore.ErrInvalidToken},
	} {
		err := tokenstore.Validate(tokenstore.Token{ExpiresAt: c.at})
		if c.want == nil && err != nil || !errors.Is(err, c.want) {
			t.Errorf("%v: error %v, want %v", c.at, err, c.want)
		}
	}
}

// FuzzValidate checks that Validate accepts exactly the tokens within the documented limits.
func FuzzValidate(f *testing.F) {
	f.Add("1", "ann", "1000.rt", int64(4_000_000_000), int64(0))
	f.Add("", "\xff", "[redacted]", int64(math.MaxInt64), int64(999_999_999))
	f.Add(strings.Repeat("x", 256), "\u0085", "\x00", int64(math.MinInt64), int64(-1))
	f.Add("", "", "", int64(1)<<62, int64(0))
	f.Fuzz(func(t *testing.T, id, user, refresh string, sec, nsec int64) {
		at := time.Unix(sec, nsec)
		good := len(id) <= 255
		for _, v := range []string{id, user, refresh} {
			good = good && utf8.ValidString(v) && !strings.ContainsFunc(v, unicode.IsControl) && v != "[redacted]" && len(v) <= 32<<10
		}
		if !at.IsZero() {
			good = good && !at.Before(time.UnixMilli(1)) && at.Before(time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC))
		}
		err := tokenstore.Validate(tokenstore.Token{ID: id, UserName: user, RefreshToken: tokenstore.Secret(refresh), ExpiresAt: at})
		if good != (err == nil) {
			t.Fatalf("error %v, and it is good: %v", err, good)
		}
		if err != nil && !errors.Is(err, tokenstore.ErrInvalidToken) && !errors.Is(err, tokenstore.ErrTooLarge) {
			t.Fatalf("error %v matches neither class", err)
		}
	})
}
