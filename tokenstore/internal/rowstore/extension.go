package rowstore

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
)

// An Extension holds those fields of one record that have no column in the formats of the Zoho
// SDKs. It is stored beside the row of the record, and identifies the row by digests. A program
// that uses an SDK may replace the tokens of the row, or give the row's ID to another record.
// Apply then ignores the fields that do not belong to the row.
type Extension struct {
	// Record is a digest of the row's ID, user, client ID and refresh token. If the row has no refresh
	// token, its grant token or else its access token counts instead. Token is a digest of the same
	// values and the access token.
	Record string `json:"record"`
	Token  string `json:"token"`

	// Fields is the JSON text of a stored.Record that has only the fields without a column.
	Fields json.RawMessage `json:"fields"`
}

// Extend returns the extension for the row of f, and reports whether f needs an extension.
func Extend(f codec.Fields) (x Extension, needs bool, err error) {
	if len(f.Extended()) == 0 {
		return x, false, nil
	}
	x.Record, x.Token = Digests(f)
	_ = f.SetColumns(make([]string, len(f.Columns())))
	x.Fields, err = stored.Encode(stored.Record{Fields: f})
	return x, true, err
}

// Apply sets the empty fields of f from x. If the row of f has another access token, Apply
// sets only Issuer and Resource. If x belongs to another row, Apply sets nothing. If the fields
// in x are malformed, Apply returns an error that does not quote them.
func (x Extension) Apply(f *codec.Fields) error {
	record, token := Digests(*f)
	if x.Record != record {
		return nil
	}
	r, err := stored.Decode(x.Fields)
	if err != nil {
		return errors.New("the fields that are kept beside the row cannot be read")
	}
	if x.Token != token {
		r.Fields = codec.Fields{Issuer: r.Issuer, Resource: r.Resource}
	}
	*f = f.Or(r.Fields)
	return nil
}

// EncodeExtension returns the text of the extension of f, or "" if f needs none.
func EncodeExtension(f codec.Fields) (string, error) {
	x, needs, err := Extend(f)
	if err != nil || !needs {
		return "", err
	}
	text, err := json.Marshal(x)
	return string(text), err
}

// ApplyExtension applies to f the extension in text, a result of EncodeExtension. If text is
// empty, ApplyExtension changes nothing. If text is malformed, ApplyExtension returns an error
// that does not quote text.
func ApplyExtension(f *codec.Fields, text string) error {
	if text == "" {
		return nil
	}
	var x Extension
	if json.Unmarshal([]byte(text), &x) != nil || x.Record == "" || x.Token == "" {
		return errors.New("the text that is kept beside the row cannot be read")
	}
	return x.Apply(f)
}

// Digests returns the Record and Token of an Extension for the row of f.
func Digests(f codec.Fields) (record, token string) {
	credential := cmp.Or(f.RefreshToken, f.GrantToken, f.AccessToken)
	return Digest("record", f.ID, f.UserName, f.ClientID, credential),
		Digest("token", f.ID, f.UserName, f.ClientID, credential, f.AccessToken)
}

// Digest returns a 128-bit digest of texts. It also hashes the length of each text, so that
// lists whose texts join to the same bytes have different digests.
func Digest(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(text)))
		h.Write(size[:])
		_, _ = h.Write([]byte(text))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// Format prints a fixed text, so that package fmt does not print credentials.
func (x Extension) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, "rowstore.Extension{redacted}") }
