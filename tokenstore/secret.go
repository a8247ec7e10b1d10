package tokenstore

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Secret is a credential. A Secret converts from and to a string, and prints, logs and
// marshals as "[redacted]". The empty Secret prints as the empty string.
//
// Package fmt cannot call methods on the value of an unexported field, so verbs such as %+v
// print a Secret in such a field in full. The verb %p, and the verb %w for a value that is not
// an error, also print a Secret in full. If a value holds a pointer to a struct without
// methods, a verb that does not apply to pointers prints the struct's Secrets in full.
// Packages that encode a Secret without calling its methods write the Secret in full. Examples
// are encoding/gob, and encoding/json for keys of a map[Secret]T. Keep Secrets in exported
// fields of types with their own Format method, such as Token.
type Secret string

func (s Secret) masked() string {
	if s == "" {
		return ""
	}
	return rules.Redacted
}

// String returns "[redacted]", or "" if s is empty.
func (s Secret) String() string { return s.masked() }

// GoString returns the redacted text that %#v prints.
func (s Secret) GoString() string { return fmt.Sprintf("tokenstore.Secret(%q)", s.masked()) }

// Format implements fmt.Formatter, and prints s redacted.
func (s Secret) Format(f fmt.State, verb rune) {
	switch {
	case verb == 'v' && f.Flag('#'):
		_, _ = io.WriteString(f, s.GoString())
	case verb == 'q':
		_, _ = fmt.Fprintf(f, "%q", s.masked())
	default:
		_, _ = io.WriteString(f, s.masked())
	}
}

// LogValue returns the redacted text that package slog logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.masked()) }

// MarshalText returns s.String(), so that only an explicit conversion to string yields the
// secret text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.masked()), nil }

// UnmarshalText sets *s to text. If text is "[redacted]", UnmarshalText does not change *s, and
// returns an error matching ErrInvalidToken.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == rules.Redacted {
		return fmt.Errorf("tokenstore: %w: the text is a redacted secret", ErrInvalidToken)
	}
	*s = Secret(text)
	return nil
}

// Equal reports whether s and other are the same secret. The running time of Equal depends
// only on the lengths of s and other.
func (s Secret) Equal(other Secret) bool {
	a, b := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(other))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
