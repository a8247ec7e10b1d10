package tokenstore

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// A Token is an OAuth token record: what one user has granted to one client,
// and how to use it. The zero value of a field means that it is unknown.
type Token struct {
	// ID names the record in its store. It is at most 255 bytes. A store derives an ID
	// for a record that is saved without one.
	ID string

	// UserName names the user whose token it is. The Zoho SDKs use "<email>:<zgid>".
	// The pair of UserName and ClientID is fixed when a record with a UserName is
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

	// ExpiresAt is when AccessToken expires, in UTC and whole milliseconds. Stores
	// truncate finer times.
	ExpiresAt time.Time

	// RedirectURL is the redirect URL that GrantToken was issued for. APIDomain is the
	// base URL of the API that accepts AccessToken.
	RedirectURL string
	APIDomain   string
}

// Fields returns t as records keep it, with ExpiresAt in whole milliseconds.
func (t Token) Fields() codec.Fields {
	return codec.Fields{
		ID:           t.ID,
		UserName:     t.UserName,
		ClientID:     t.ClientID,
		ClientSecret: string(t.ClientSecret),
		RefreshToken: string(t.RefreshToken),
		AccessToken:  string(t.AccessToken),
		GrantToken:   string(t.GrantToken),
		ExpiryTime:   expiry(t.ExpiresAt),
		RedirectURL:  t.RedirectURL,
		APIDomain:    t.APIDomain,
	}
}

// expiry converts t to the milliseconds of Fields. Times that Fields cannot hold become
// values that Validate refuses.
func expiry(t time.Time) int64 {
	year, ms := t.UTC().Year(), t.UnixMilli()
	switch {
	case t.IsZero():
		return 0
	case year > 9999:
		return math.MaxInt64
	case year < 1970 || ms == 0: // 0 means unknown
		return min(ms, -1)
	}
	return ms
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

// Format prints t with its secrets redacted. Package fmt does not call Format for a
// pointer inside another value if the verb does not apply to pointers. It then prints
// the secrets in full, as in Printf("%s", []*Token{&t}).
func (t Token) Format(f fmt.State, verb rune) {
	type plain Token
	printAs(f, verb, plain(t), "Token")
}

// printAs prints v, whose type has no Format method, as a value of the named type of
// this package.
func printAs(f fmt.State, verb rune, v any, name string) {
	text := fmt.Sprintf(fmt.FormatString(f, verb), v)
	_, _ = io.WriteString(f, strings.Replace(text, "tokenstore.plain{", "tokenstore."+name+"{", 1))
}
