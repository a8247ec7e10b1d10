package tokenstore

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
)

// A Token is an OAuth token record: what one user has granted to one client,
// and how to use it. The zero value of a field means that it is unknown.
type Token struct {
	// ID names the record in its store. It is at most 255 bytes; a store
	// derives one for a record that is saved without.
	ID string

	// UserName is whose token it is. The Zoho SDKs use "<email>:<zgid>". The
	// pair of UserName and ClientID is fixed when a record with a UserName is
	// created.
	UserName string

	// ClientID and ClientSecret are the OAuth client's.
	ClientID     string
	ClientSecret Secret

	// RefreshToken, AccessToken and GrantToken (a one-time authorization code)
	// are what the authorization server issued.
	RefreshToken Secret
	AccessToken  Secret
	GrantToken   Secret

	// ExpiresAt is when AccessToken expires, in UTC and whole milliseconds.
	// Stores cut off what is finer.
	ExpiresAt time.Time

	// RedirectURL is the one that GrantToken was issued for, and APIDomain the
	// base URL of the API that AccessToken is good for.
	RedirectURL string
	APIDomain   string
}

// Fields returns t as records keep it, with ExpiresAt in whole milliseconds.
func (t Token) Fields() codec.Fields {
	f := codec.Fields{
		ID:           t.ID,
		UserName:     t.UserName,
		ClientID:     t.ClientID,
		ClientSecret: string(t.ClientSecret),
		RefreshToken: string(t.RefreshToken),
		AccessToken:  string(t.AccessToken),
		GrantToken:   string(t.GrantToken),
		RedirectURL:  t.RedirectURL,
		APIDomain:    t.APIDomain,
	}
	if !t.ExpiresAt.IsZero() {
		f.ExpiryTime = t.ExpiresAt.UnixMilli()
	}
	return f
}

// FromFields returns the token that a record keeps as f.
func FromFields(f codec.Fields) Token {
	t := Token{
		ID:           f.ID,
		UserName:     f.UserName,
		ClientID:     f.ClientID,
		ClientSecret: Secret(f.ClientSecret),
		RefreshToken: Secret(f.RefreshToken),
		AccessToken:  Secret(f.AccessToken),
		GrantToken:   Secret(f.GrantToken),
		RedirectURL:  f.RedirectURL,
		APIDomain:    f.APIDomain,
	}
	if f.ExpiryTime != 0 {
		t.ExpiresAt = time.UnixMilli(f.ExpiryTime).UTC()
	}
	return t
}

// Format prints t with its secrets redacted. Package fmt would print them in full
// where a pointer to t inside another value meets a verb that pointers do not
// have, as in Printf("%s", []*Token{&t}).
func (t Token) Format(f fmt.State, verb rune) {
	type plain Token
	printAs(f, verb, plain(t), "Token")
}

// printAs prints the value of a type that has no Format as one of the named type
// of this package.
func printAs(f fmt.State, verb rune, v any, name string) {
	text := fmt.Sprintf(fmt.FormatString(f, verb), v)
	_, _ = io.WriteString(f, strings.Replace(text, "tokenstore.plain{", "tokenstore."+name+"{", 1))
}

// Limits of a token's fields, in bytes. They are far above what authorization
// servers issue; what a store can hold in all is a limit of its own.
const (
	maxID    = 255
	maxField = 32 << 10
)

// Validate reports whether a store can take t: all its fields are valid UTF-8
// without control characters, ID is at most 255 bytes, no Secret is the text
// that a Secret prints as, and ExpiresAt is zero or lies between the years 1970
// and 9999. The error matches ErrInvalidToken, or ErrTooLarge if another field
// is longer than 32 KiB, names the field and holds nothing of its content.
func Validate(t Token) error {
	for _, f := range []struct{ name, value string }{
		{"ID", t.ID},
		{"UserName", t.UserName},
		{"ClientID", t.ClientID},
		{"ClientSecret", string(t.ClientSecret)},
		{"RefreshToken", string(t.RefreshToken)},
		{"AccessToken", string(t.AccessToken)},
		{"GrantToken", string(t.GrantToken)},
		{"RedirectURL", t.RedirectURL},
		{"APIDomain", t.APIDomain},
	} {
		switch {
		case f.name == "ID" && len(f.value) > maxID:
			return fmt.Errorf("%w: ID has %d bytes, the limit is %d", ErrInvalidToken, len(f.value), maxID)
		case len(f.value) > maxField:
			return fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrTooLarge, f.name, len(f.value), maxField)
		case !utf8.ValidString(f.value):
			return fmt.Errorf("%w: %s is not valid UTF-8", ErrInvalidToken, f.name)
		case f.value == redacted:
			return fmt.Errorf("%w: %s is the text of a redacted secret", ErrInvalidToken, f.name)
		}
		for _, r := range f.value {
			if unicode.IsControl(r) {
				return fmt.Errorf("%w: %s has a control character", ErrInvalidToken, f.name)
			}
		}
	}
	if !t.ExpiresAt.IsZero() && (t.ExpiresAt.UnixMilli() < 1 || t.ExpiresAt.UTC().Year() > 9999) {
		return fmt.Errorf("%w: ExpiresAt is not between the years 1970 and 9999", ErrInvalidToken)
	}
	return nil
}

// normal returns t as stores keep it.
func normal(t Token) Token {
	if !t.ExpiresAt.IsZero() {
		t.ExpiresAt = t.ExpiresAt.UTC().Truncate(time.Millisecond)
	}
	return t
}

// same reports whether a and b are equal field by field.
func same(a, b Token) bool {
	ea, eb := a.ExpiresAt, b.ExpiresAt
	a.ExpiresAt, b.ExpiresAt = time.Time{}, time.Time{}
	return a == b && ea.Equal(eb)
}

// hasCredential reports whether t has any of the three tokens.
func hasCredential(t Token) bool {
	return t.AccessToken != "" || t.RefreshToken != "" || t.GrantToken != ""
}
