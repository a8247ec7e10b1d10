// Package rules decides which record a token describes, and what becomes of it: the
// rules that package tokenstore documents under "Matching", "Saving" and
// "Refreshing", as functions of the records alone. Every store follows them.
package rules

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
)

// The classes of the errors that no driver has. Package tokenstore documents them.
var (
	ErrAmbiguous    = errors.New("more than one record matches")
	ErrIDMismatch   = errors.New("ID, user and client do not belong together")
	ErrInvalidToken = errors.New("invalid token")
	ErrTooLarge     = errors.New("record too large")
)

// Redacted is what a credential prints as. It is refused as the value of a field, so
// that a token which went through a log cannot be stored over the real one.
const Redacted = "[redacted]"

// Limits of the fields. They are far above what authorization servers issue; what a
// store can hold in all is a limit of its own.
const (
	MaxID     = 255             // bytes
	maxField  = 32 << 10        // bytes
	maxExpiry = 253402300799999 // the end of the year 9999
)

// Validate reports whether a store can take f. The error matches ErrInvalidToken, or
// ErrTooLarge if a field other than the ID is too long. It names the field and holds
// nothing of its content.
func Validate(f codec.Fields) error {
	if len(f.ID) > MaxID {
		return fmt.Errorf("%w: ID has %d bytes, the limit is %d", ErrInvalidToken, len(f.ID), MaxID)
	}
	if f.ExpiryTime < 0 || f.ExpiryTime > maxExpiry {
		return fmt.Errorf("%w: ExpiresAt is not between the years 1970 and 9999", ErrInvalidToken)
	}
	for field, value := range f.All() {
		switch {
		case len(value) > maxField:
			return fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrTooLarge, field.Name, len(value), maxField)
		case !utf8.ValidString(value):
			return fmt.Errorf("%w: %s is not valid UTF-8", ErrInvalidToken, field.Name)
		case value == Redacted:
			return fmt.Errorf("%w: %s is the text of a redacted secret", ErrInvalidToken, field.Name)
		case strings.ContainsFunc(value, unicode.IsControl):
			return fmt.Errorf("%w: %s has a control character", ErrInvalidToken, field.Name)
		}
	}
	return nil
}

// HasCredential reports whether f has any of the three tokens.
func HasCredential(f codec.Fields) bool {
	return f.AccessToken != "" || f.RefreshToken != "" || f.GrantToken != ""
}
