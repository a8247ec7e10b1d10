package codec

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Fields holds the fields of a token in their stored form. The zero value of a field means that
// the field is unknown. Credentials are plain strings, but a Fields prints and logs only the name
// of its type.
type Fields struct {
	ID           string
	UserName     string
	ClientID     string
	ClientSecret string
	RefreshToken string
	AccessToken  string
	GrantToken   string
	ExpiryTime   int64 // when AccessToken expires: milliseconds since the epoch
	RedirectURL  string
	APIDomain    string
	Issuer       string
	Resource     string
	Scope        string
	TokenType    string
	IDToken      string
	Extra        string // a JSON object: see CanonicalExtra
}

// A Field describes one of the fields of a token.
type Field struct {
	Name   string // name of the field in Fields
	Column string // name as a JSON member, and as a column of the Zoho SDKs if the SDKs have the field
	Secret bool   // whether the value is a credential

	of func(*Fields) any // returns a pointer to a string, or to an int64 of milliseconds
}

// fields lists all fields, in the order in which records store the fields.
var fields = slices.Concat(sdkFields, ownFields)

// sdkFields lists the fields for which the token files and tables of the Zoho SDKs have a
// column, in the order of the columns.
var sdkFields = []Field{
	{"ID", "id", false, func(f *Fields) any { return &f.ID }},
	{"UserName", "user_name", false, func(f *Fields) any { return &f.UserName }},
	{"ClientID", "client_id", false, func(f *Fields) any { return &f.ClientID }},
	{"ClientSecret", "client_secret", true, func(f *Fields) any { return &f.ClientSecret }},
	{"RefreshToken", "refresh_token", true, func(f *Fields) any { return &f.RefreshToken }},
	{"AccessToken", "access_token", true, func(f *Fields) any { return &f.AccessToken }},
	{"GrantToken", "grant_token", true, func(f *Fields) any { return &f.GrantToken }},
	{"ExpiryTime", "expiry_time", false, func(f *Fields) any { return &f.ExpiryTime }},
	{"RedirectURL", "redirect_url", false, func(f *Fields) any { return &f.RedirectURL }},
	{"APIDomain", "api_domain", false, func(f *Fields) any { return &f.APIDomain }},
}

// ownFields lists the fields for which the Zoho SDKs have no column.
var ownFields = []Field{
	{"Issuer", "issuer", false, func(f *Fields) any { return &f.Issuer }},
	{"Resource", "resource", false, func(f *Fields) any { return &f.Resource }},
	{"Scope", "scope", false, func(f *Fields) any { return &f.Scope }},
	{"TokenType", "token_type", false, func(f *Fields) any { return &f.TokenType }},
	{"IDToken", "id_token", true, func(f *Fields) any { return &f.IDToken }},
	{"Extra", "extra", true, func(f *Fields) any { return &f.Extra }},
}

// Extended returns the names of the fields that are set in f but have no column in the token files
// and tables of the Zoho SDKs.
func (f Fields) Extended() (names []string) {
	for _, d := range ownFields {
		if d.text(&f) != "" {
			names = append(names, d.Name)
		}
	}
	return names
}

// All yields each field with its value as text, in the order in which records store the
// fields.
func (f Fields) All() iter.Seq2[Field, string] {
	return func(yield func(Field, string) bool) {
		for _, d := range fields {
			if !yield(d, d.text(&f)) { // a pointer, so that f is not copied for each field
				return
			}
		}
	}
}

// Or returns f with each unknown field set to the value in other.
func (f Fields) Or(other Fields) Fields {
	for _, d := range fields {
		switch v := d.of(&f).(type) {
		case *string:
			*v = cmp.Or(*v, *d.of(&other).(*string))
		case *int64:
			*v = cmp.Or(*v, *d.of(&other).(*int64))
		}
	}
	return f
}

// ValidUTF8 reports whether all text fields of f are valid UTF-8.
func (f *Fields) ValidUTF8() bool {
	for i := range fields {
		if text, ok := fields[i].of(f).(*string); ok && !utf8.ValidString(*text) {
			return false
		}
	}
	return true
}

// Size returns the total length of the text fields of f, in bytes.
func (f Fields) Size() int {
	size := 0
	for _, d := range fields {
		if text, ok := d.of(&f).(*string); ok {
			size += len(*text)
		}
	}
	return size
}

// Value returns the field's value in f: an int64 for ExpiryTime, and otherwise a string.
func (d Field) Value(f Fields) any {
	if v, ok := d.of(&f).(*int64); ok {
		return *v
	}
	return *d.of(&f).(*string)
}

// In returns a pointer to the field in f: an *int64 for ExpiryTime, and otherwise a *string.
func (d Field) In(f *Fields) any { return d.of(f) }

// Text returns the field's value in f as text. The text of ExpiryTime is its milliseconds in
// decimal. The text of an unknown field is empty.
func (d Field) Text(f Fields) string { return d.text(&f) }

func (d Field) text(f *Fields) string {
	switch v := d.of(f).(type) {
	case *string:
		return *v
	case *int64:
		if *v != 0 {
			return strconv.FormatInt(*v, 10)
		}
	}
	return ""
}

// Set sets the field in f from text. Empty text makes the field unknown. If d is ExpiryTime and
// text is not an expiry time, Set makes the field unknown and returns an error that does not
// quote text.
func (d Field) Set(f *Fields, text string) (err error) {
	switch v := d.of(f).(type) {
	case *string:
		*v = text
	case *int64:
		*v, err = parseExpiry(text)
	}
	return err
}

// Format prints "codec.Fields{redacted}" for every verb.
func (f Fields) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "codec.Fields{redacted}") }

// LogValue returns "codec.Fields{redacted}".
func (f Fields) LogValue() slog.Value { return slog.StringValue("codec.Fields{redacted}") }

// MarshalJSON returns an error, so that credentials are not marshaled by accident.
func (f Fields) MarshalJSON() ([]byte, error) {
	return nil, errors.New("codec: Fields are written as part of a record")
}
