package codec

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Fields are the fields of a token, in the form in which records keep them. The
// zero value of a field means that it is unknown. Credentials are plain strings;
// Fields print and log as their name alone.
type Fields struct {
	ID           string
	UserName     string
	ClientID     string
	ClientSecret string
	RefreshToken string
	AccessToken  string
	GrantToken   string
	ExpiryTime   int64 // when AccessToken expires: milliseconds since the epoch
	RedirectURL  string
	APIDomain    string
}

// Format keeps credentials out of whatever prints Fields.
func (f Fields) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "codec.Fields{redacted}") }

// LogValue keeps credentials out of logs.
func (f Fields) LogValue() slog.Value { return slog.StringValue("codec.Fields{redacted}") }

// MarshalJSON fails: a Codec writes fields as part of a Record.
func (f Fields) MarshalJSON() ([]byte, error) {
	return nil, errors.New("codec: Fields are written as part of a Record")
}
