package initializer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	zohoScheme   = "Zoho-oauthtoken"
	bearerScheme = "Bearer"
)

// schemes maps token types to schemes of the Authorization header.
type schemes struct {
	zoho bool
	own  map[string]string // Config.TokenTypes
}

func (c Config) schemes() schemes { return schemes{c.OAuth2 == nil, c.TokenTypes} }

// of returns the scheme for t, or an error that matches ErrTokenType. Clients must not use a
// token of an unknown type (RFC 6749, 7.1).
func (s schemes) of(t tokenstore.Token) (string, error) {
	for kind, scheme := range s.own {
		if strings.EqualFold(kind, t.TokenType) {
			return scheme, nil
		}
	}
	bearer := t.TokenType == "" || strings.EqualFold(t.TokenType, bearerScheme)
	switch {
	case bearer && s.zoho, strings.EqualFold(t.TokenType, zohoScheme):
		return zohoScheme, nil
	case bearer:
		return bearerScheme, nil
	case !codeForm().MatchString(t.TokenType), holdsAny(t.TokenType, secretsOf(t)):
		return "", ErrTokenType
	}
	return "", fmt.Errorf("%w: its token_type is %q", ErrTokenType, t.TokenType)
}

// constrained reports whether tokens of the given type require a proof of possession (RFC 9449, RFC
// 9200) or are not access tokens (RFC 8693).
func constrained(kind string) bool {
	return slices.Contains([]string{"dpop", "mac", "pop", "n_a"}, strings.ToLower(kind))
}

// checkTypes returns an error if own, the value of Config.TokenTypes, has an invalid type or
// scheme.
func checkTypes(own map[string]string) error {
	for kind, scheme := range own {
		if kind == "" || constrained(kind) {
			return fmt.Errorf("initializer: Config.TokenTypes: tokens of the type %q cannot be sent", kind)
		}
		if scheme == "" || strings.ContainsFunc(scheme, func(r rune) bool { return r > '~' || !isTokenChar(byte(r)) }) {
			return fmt.Errorf("initializer: Config.TokenTypes: the value of %q is not a scheme, such as %q", kind, bearerScheme)
		}
	}
	return nil
}
