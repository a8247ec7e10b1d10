package oauth2keep

import (
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// FromOAuth2 returns the record of an x/oauth2 token, with the tokens, type and expiry of tok, and
// all values of its Extra method. The record has no user, client, Issuer or Resource. FromOAuth2
// ignores ExpiresIn, because ExpiresIn counts from an unknown time.
//
// The error matches tokenstore.ErrInvalidToken if JSON cannot represent a member of Extra.
// Only WithExtra can add such a member.
func FromOAuth2(tok *oauth2.Token) (tokenstore.Token, error) { return extra.Given(tok) }

// ToOAuth2 returns a record as an x/oauth2 token. If FromOAuth2 made t from a token that x/oauth2
// obtained, the Extra methods of both tokens return the same values of the same types: float64 for
// numbers in JSON, and int64 for whole numbers in a form. Extra also returns the tokens, the token
// type, the scope and the API domain of the record.
func ToOAuth2(t tokenstore.Token) *oauth2.Token { return extra.Token(t) }
