package rules

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
)

// ValidateSearch returns an error unless Search accepts the token like. A valid token has a
// UserName or a ClientID. Of its other fields, only Issuer and Resource may be set. The error
// matches ErrInvalidToken, or ErrTooLarge if a field is too long.
func ValidateSearch(like codec.Fields) error {
	switch {
	case like.UserName == "" && like.ClientID == "":
		return fmt.Errorf("%w: a search needs a UserName or a ClientID", ErrInvalidToken)
	case like != Identity(like):
		return fmt.Errorf("%w: a search takes only UserName, ClientID, Issuer and Resource", ErrInvalidToken)
	}
	return validate(like)
}

// Within reports whether each of the fields UserName, ClientID, Issuer and Resource of the token
// like is empty or equals that of f.
func Within(like, f codec.Fields) bool {
	return (like.UserName == "" || like.UserName == f.UserName) && ClientOf(like).within(ClientOf(f))
}
