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

	// UserName names the user to whom the token belongs. The Zoho SDKs use
	// "<email>:<zgid>". UserName, ClientID, Issuer and Resource say whose record it is.
	// They cannot change once the record has a UserName.
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

	// Issuer identifies the authorization server that issued the tokens, and Resource
	// the API that they are for (RFC 8707). Stores compare both byte by byte. Records of
	// the Zoho SDKs have neither.
	Issuer   string
	Resource string

	// Scope, TokenType and IDToken are the members scope, token_type and id_token of the
	// last token response that had them.
	Scope     string
	TokenType string
	IDToken   Secret

	// Extra has the other members of token responses, in the form of codec.CanonicalExtra:
	// one JSON object of at most codec.MaxExtra bytes. SaveToken brings it into this form.
	// The members of a new Extra replace those of the record by name; all other members are
	// kept.
	Extra Secret
}

// Fields returns t in the form that records keep, with ExpiresAt in whole milliseconds.
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
		Issuer:       t.Issuer,
		Resource:     t.Resource,
		Scope:        t.Scope,
		TokenType:    t.TokenType,
		IDToken:      string(t.IDToken),
		Extra:        string(t.Extra),
	}
}

// expiry converts t to milliseconds since 1970, with 0 for the zero Time. It converts a
// time that codec.Fields cannot hold to a value that Validate refuses.
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

// FromFields returns the Token with the fields f.
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
		Issuer:       f.Issuer,
		Resource:     f.Resource,
		Scope:        f.Scope,
		TokenType:    f.TokenType,
		IDToken:      Secret(f.IDToken),
		Extra:        Secret(f.Extra),
	}
	if f.ExpiryTime != 0 {
		t.ExpiresAt = time.UnixMilli(f.ExpiryTime).UTC()
	}
	return t
}

// Format prints t with its secrets redacted. If a value that contains t is formatted with a
// wrong verb, package fmt calls no Format method inside it, and prints the secrets in full.
// An example is Printf("%p", v), where v is a struct with a Token.
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
