package codec

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strconv"
)

// Fields are the fields of a token, in the form in which records keep them. The zero
// value of a field means that it is unknown. Credentials are plain strings; Fields
// print and log only the name of the type.
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
}

// A Field is one of the fields of a token.
type Field struct {
	Name   string // in Fields
	Column string // as a member of JSON, and in the files and tables of the Zoho SDKs
	Secret bool   // it is a credential

	of func(*Fields) any // a pointer to a string, or to milliseconds
}

// fields has the fields in the order in which records, files and tables have them. All
// code that treats the fields alike uses this table.
var fields = []Field{
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

// All returns the fields with their values as text.
func (f Fields) All() iter.Seq2[Field, string] {
	return func(yield func(Field, string) bool) {
		for _, d := range fields {
			if !yield(d, d.Text(f)) {
				return
			}
		}
	}
}

// Or returns f with the values of other for the fields that f lacks.
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

// Size returns how many bytes the text fields of f have.
func (f Fields) Size() int {
	size := 0
	for _, d := range fields {
		if text, ok := d.Value(f).(string); ok {
			size += len(text)
		}
	}
	return size
}

// Value returns the value of the field in f: an int64 for a time, else a string.
func (d Field) Value(f Fields) any {
	if v, ok := d.of(&f).(*int64); ok {
		return *v
	}
	return *d.of(&f).(*string)
}

// In returns a pointer to the field in f: an *int64 for a time, else a *string.
func (d Field) In(f *Fields) any { return d.of(f) }

// Text returns the value of the field in f as text: milliseconds are in decimal. The
// text of an unknown field is empty.
func (d Field) Text(f Fields) string {
	switch v := d.Value(f).(type) {
	case string:
		return v
	case int64:
		if v != 0 {
			return strconv.FormatInt(v, 10)
		}
	}
	return ""
}

// Set sets the field in f to the value of the text: see ParseColumns. Empty text makes
// the field unknown.
func (d Field) Set(f *Fields, text string) (err error) {
	switch v := d.of(f).(type) {
	case *string:
		*v = text
	case *int64:
		*v, err = parseExpiry(text)
	}
	return err
}

// Format prints no credential.
func (f Fields) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "codec.Fields{redacted}") }

// LogValue keeps credentials out of logs.
func (f Fields) LogValue() slog.Value { return slog.StringValue("codec.Fields{redacted}") }

// MarshalJSON fails: a store writes Fields as part of a record.
func (f Fields) MarshalJSON() ([]byte, error) {
	return nil, errors.New("codec: Fields are written as part of a record")
}
