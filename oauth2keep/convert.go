package oauth2keep

import (
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// FromOAuth2 returns a record with the tokens, type and expiry of the x/oauth2 token tok, and with
// all values that its Extra method returns. The record has no user, client, Issuer or Resource.
// FromOAuth2 ignores ExpiresIn, because ExpiresIn counts from an unknown time.
//
// The error matches tokenstore.ErrInvalidToken if JSON cannot represent a value of Extra. Only
// WithExtra can add such a value to tok.
func FromOAuth2(tok *oauth2.Token) (tokenstore.Token, error) { return extra.Given(tok) }

// ToOAuth2 returns the record t as an x/oauth2 token. If FromOAuth2 created t from a token that
// x/oauth2 obtained, the Extra methods of both tokens return the same values of the same types:
// float64 for numbers in JSON, and int64 for whole numbers in a form. The exception is expires_in,
// from which x/oauth2 calculated Expiry. Extra of the result also returns the tokens, the ID token,
// the token type, the scope and the API domain of the record.
func ToOAuth2(t tokenstore.Token) *oauth2.Token { return extra.Token(t) }
