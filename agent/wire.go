package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/members"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// maxBody is the maximum size of a request body in bytes. Every record is smaller.
const maxBody = 256 << 10

// parse returns the token in the body of a request. The members have the names of the columns in
// the SDKs' token files. Errors do not quote the body.
func parse(r *http.Request) (tokenstore.Token, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return tokenstore.Token{}, errMediaType
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return tokenstore.Token{}, errTooLong
	case err != nil:
		return tokenstore.Token{}, fmt.Errorf("%w: it ended early, or took too long", errBody)
	}
	return parseToken(body)
}

func parseToken(body []byte) (tokenstore.Token, error) {
	if !utf8.Valid(body) {
		return tokenstore.Token{}, fmt.Errorf("%w: it is not UTF-8", errBody)
	}
	m, err := members.Split(body)
	if err != nil {
		return tokenstore.Token{}, fmt.Errorf("%w: %w", errBody, err)
	}
	var f codec.Fields
	for field := range f.All() {
		raw, ok := m[field.Column]
		if !ok {
			continue
		}
		delete(m, field.Column)
		_, number := field.In(&f).(*int64)
		text, err := textOfMember(raw, number)
		if err == nil {
			err = field.Set(&f, text)
		}
		if err != nil {
			return tokenstore.Token{}, fmt.Errorf("%w: the member %s: %w", errBody, field.Column, err)
		}
	}
	if len(m) > 0 {
		return tokenstore.Token{}, fmt.Errorf("%w: it has a member that tokens do not have", errBody)
	}
	return tokenstore.FromFields(f), nil
}

// textOfMember returns the text of a JSON string or, if number is set, of an integer. For null,
// textOfMember returns "". A string with U+FFFD causes an error, because encoding/json replaces
// invalid text with U+FFFD, which would change a token.
func textOfMember(raw json.RawMessage, number bool) (string, error) {
	var text *string
	switch {
	case number && strings.Trim(string(raw), "-0123456789") == "":
		return string(raw), nil
	case json.Unmarshal(raw, &text) != nil:
		return "", errors.New("it is not a string")
	case text == nil:
		return "", nil
	case strings.ContainsRune(*text, utf8.RuneError):
		return "", errors.New("it was damaged in transit")
	}
	return *text, nil
}

// appendToken appends t to b as a JSON object. The members of the object are the fields of t that
// are not empty, all as strings.
func appendToken(b *bytes.Buffer, t tokenstore.Token) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	begin := b.Len()
	b.WriteByte('{')
	for field, text := range t.Fields().All() {
		if text == "" {
			continue
		}
		if b.Len() > begin+1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "%q:", field.Column)
		if err := e.Encode(text); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // the line feed that an Encoder appends
	}
	b.WriteByte('}')
	return nil
}

// record returns the body of a response with the record t.
func record(t tokenstore.Token, persisted bool) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`{"token":`)
	err := appendToken(&b, t)
	if !persisted {
		b.WriteString(`,"not_persisted":true`)
	}
	b.WriteByte('}')
	return b.Bytes(), err
}

// nothing is the response body of an operation without a result.
var nothing = []byte("{}")
