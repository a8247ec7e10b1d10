package tokenstore

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
)

// A Token is an OAuth token record: the tokens that one client has for one user, and the data
// needed to use the tokens. The zero value of a field means that the value is unknown.
type Token struct {
	// ID identifies the record in its store, and has at most 255 bytes. If a record is saved
	// without an ID, the store derives an ID.
	ID string

	// UserName names the user to whom the token belongs. The Zoho SDKs use an email address
	// and the ID of an organization, as "<email>:<zgid>". UserName, ClientID, Issuer and
	// Resource identify the owner of the record. These four fields cannot change once the
	// record has a UserName.
	UserName string

	// ClientID and ClientSecret are the credentials of the OAuth client.
	ClientID     string
	ClientSecret Secret

	// RefreshToken, AccessToken and GrantToken are the credentials that the authorization
	// server issued. GrantToken is a one-time authorization code.
	RefreshToken Secret
	AccessToken  Secret
	GrantToken   Secret

	// ExpiresAt is when AccessToken expires. Stores keep ExpiresAt in UTC, truncated to the
	// millisecond.
	ExpiresAt time.Time

	// RedirectURL is the redirect URL that GrantToken was issued for. APIDomain is the
	// base URL of the API that accepts AccessToken.
	RedirectURL string
	APIDomain   string

	// Issuer identifies the authorization server that issued the tokens. Resource
	// identifies the API that accepts the tokens (RFC 8707). Stores compare Issuer and
	// Resource byte by byte. Records of the Zoho SDKs have neither Issuer nor Resource.
	Issuer   string
	Resource string

	// Scope, TokenType and IDToken are the members scope, token_type and id_token of the
	// last token response that had them.
	Scope     string
	TokenType string
	IDToken   Secret

	// Extra is a JSON object with the other members of token responses. SaveToken stores
	// Extra in the form that codec.CanonicalExtra returns. This form may have at most
	// codec.MaxExtra bytes. The members of a new Extra replace the stored members with
	// the same names. All other stored members are kept.
	Extra Secret
}

// Fields returns the fields of t as a codec.Fields, with ExpiresAt in milliseconds since
// the Unix epoch, or 0 if ExpiresAt is zero.
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

// expiry converts t to milliseconds since the Unix epoch, with 0 for the zero Time. For a time
// that codec.Fields cannot hold, expiry returns a value that Validate refuses.
func expiry(t time.Time) int64 {
	year, ms := t.UTC().Year(), t.UnixMilli()
	switch {
	case t.IsZero():
		return 0
	case year > 9999:
		return math.MaxInt64
	case year < 1970 || ms == 0: // in codec.Fields, 0 means that the time is unknown
		return min(ms, -1)
	}
	return ms
}

// FromFields returns the Token with the fields f and with ExpiresAt in UTC.
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

// Format prints t with its secrets redacted. If a verb does not apply to a value that
// contains t, package fmt does not call t.Format, and prints the secrets in full. An example
// is Printf("%p", v), where v is a struct with a Token.
func (t Token) Format(f fmt.State, verb rune) {
	type plain Token
	printAs(f, verb, plain(t), "Token")
}

// printAs prints v to f. The type of v must be a local type named "plain", without a Format
// method. The output contains the given name instead of "plain".
func printAs(f fmt.State, verb rune, v any, name string) {
	text := fmt.Sprintf(fmt.FormatString(f, verb), v)
	_, _ = io.WriteString(f, strings.Replace(text, "tokenstore.plain{", "tokenstore."+name+"{", 1))
}
