package rules

import (
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
)

// ValidateSearch returns an error that matches ErrInvalidToken unless like can be the argument
// of Search. like must have a UserName or a ClientID. Of its other fields, only Issuer and
// Resource may be set.
func ValidateSearch(like codec.Fields) error {
	switch {
	case like.UserName == "" && like.ClientID == "":
		return fmt.Errorf("%w: a search needs a UserName or a ClientID", ErrInvalidToken)
	case like != Identity(like):
		return fmt.Errorf("%w: a search takes only UserName, ClientID, Issuer and Resource", ErrInvalidToken)
	}
	return validate(like)
}

// Within reports whether the UserName, ClientID, Issuer and Resource of like are each empty or
// equal to that of f.
func Within(like, f codec.Fields) bool {
	return (like.UserName == "" || like.UserName == f.UserName) && ClientOf(like).within(ClientOf(f))
}
