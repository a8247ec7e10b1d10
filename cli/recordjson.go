package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// maxRecord is the maximum size in bytes of the JSON of a record on standard input or in a file.
// The JSON of every record is smaller.
const maxRecord = 4 << 20

// A recordJSON is a record in the JSON form for programs. The members are named as in the token
// files of the Zoho SDKs.
type recordJSON codec.Fields

// MarshalJSON returns the JSON form of r, without empty fields other than the ID.
func (r recordJSON) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('{')
	for field, text := range codec.Fields(r).All() {
		if text == "" && field.Column != "id" {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", field.Column)
		if err := e.Encode(field.Value(codec.Fields(r))); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// toJSON returns the JSON form of a record. Unless reveal is set, toJSON masks the secrets.
func toJSON(t tokenstore.Token, reveal bool) recordJSON {
	f := t.Fields()
	for field, text := range f.All() {
		if field.Secret && !reveal {
			_ = field.Set(&f, tokenstore.Secret(text).String())
		}
	}
	return recordJSON(f)
}

// printRecord prints a record on standard output. Unless reveal is set, printRecord masks the
// secrets.
func (a *app) printRecord(t tokenstore.Token, reveal bool) error {
	r := toJSON(t, reveal)
	if a.json {
		return a.printJSON(r)
	}
	var rows table
	ofSDKs := codec.ColumnNames()
	for field, text := range codec.Fields(r).All() {
		if text == "" && !slices.Contains(ofSDKs, field.Column) {
			continue
		}
		if field.Name == "ExpiryTime" && text != "" {
			text = t.ExpiresAt.Format("2006-01-02T15:04:05.000Z07:00") + " (" + relative(t.ExpiresAt, a.now()) + ")"
		}
		rows.row(field.Column, orDash(text))
	}
	a.printf("%s", rows.String())
	return nil
}

// parseRecord parses a record, which is a single JSON object. Errors match errInput, and name the
// member but do not quote its value.
func parseRecord(data []byte) (t tokenstore.Token, err error) {
	err = eachMember(data, func(name string, raw json.RawMessage) error { return setMember(&t, name, raw) })
	if err != nil {
		return tokenstore.Token{}, err
	}
	return t, nil
}

// eachMember calls set for each member of data, a single JSON object without repeated members.
// Errors match errInput, and name the member but do not quote its value.
func eachMember(data []byte, set func(name string, raw json.RawMessage) error) error {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(bytes.TrimSpace(data)) == 0 {
		return fmt.Errorf("%w: the input is empty; it should be a record as JSON", errInput)
	}
	if !utf8.Valid(data) || !json.Valid(data) {
		return fmt.Errorf("%w: the input is not JSON", errInput)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: the input is not a JSON object", errInput)
	}
	seen := map[string]bool{}
	for d.More() {
		key, _ := d.Token() // the text is valid JSON
		name, _ := key.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("%w: the input is not JSON", errInput)
		}
		if seen[name] {
			return fmt.Errorf("%w: the member %s stands twice", errInput, memberName(name))
		}
		seen[name] = true
		if err := set(name, raw); err != nil {
			return fmt.Errorf("%w: the member %s %w", errInput, memberName(name), err)
		}
	}
	return nil
}

// memberName returns the quoted name of a member for an error. If the name might be a misplaced
// value, memberName returns "with an odd name".
func memberName(name string) string {
	const longest = 32
	if len(name) > longest || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") != "" {
		return "with an odd name"
	}
	return strconv.Quote(name)
}

func setMember(t *tokenstore.Token, name string, raw json.RawMessage) error {
	text, err := memberText(raw)
	if name == "expiry_time" {
		t.ExpiresAt, err = parseExpiry(text, raw, err)
		return err
	}
	f := t.Fields()
	var known []string
	for field := range f.All() {
		if field.Column == name {
			_ = field.Set(&f, text)
			*t = tokenstore.FromFields(f)
			return err
		}
		known = append(known, field.Column)
	}
	return fmt.Errorf("%w; there are %s", errUnknownMember, strings.Join(known, ", "))
}

// errUnknownMember means that a record has no member with the given name.
var errUnknownMember = errors.New("is not known")

// memberText returns the text of a JSON string. For null, it returns "". A string with U+FFFD
// causes an error, because encoding/json replaces invalid text with U+FFFD, which would change a
// token.
func memberText(raw json.RawMessage) (string, error) {
	var text *string
	switch {
	case json.Unmarshal(raw, &text) != nil:
		return "", errors.New("is not a string")
	case text == nil:
		return "", nil
	case strings.ContainsRune(*text, utf8.RuneError):
		return "", errors.New("has characters that were damaged in transit")
	}
	return *text, nil
}

// parseExpiry parses a JSON number or string with the milliseconds since the Unix epoch, or a JSON
// string with a time in RFC 3339. The parameters text and notText are the results of memberText for
// raw.
func parseExpiry(text string, raw json.RawMessage, notText error) (time.Time, error) {
	if notText != nil {
		text = string(raw)
	}
	if text == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil && notText == nil {
		return t, nil
	}
	return time.Time{}, errors.New("is neither milliseconds since 1970 nor a time as in RFC 3339")
}

// memberHelp maps the name of a member to a description.
var memberHelp = map[string]string{
	"id":            "the ID in the store; the store generates one if it is missing",
	"user_name":     "whose token it is; the SDKs write <email>:<organization>",
	"client_id":     "the ID of the OAuth client",
	"client_secret": "the secret of the OAuth client",
	"refresh_token": "obtains access tokens",
	"access_token":  "is sent to the API",
	"grant_token":   "a one-time code, which obtains the first tokens",
	"id_token":      "the ID token of OpenID Connect",
	"extra":         "the other members of the token response",
	"expiry_time": "when the access token expires: milliseconds since 1970, or a time\n" +
		"                 such as 2026-01-31T12:00:00Z",
	"redirect_url": "the redirect URL for which grant_token was issued",
	"api_domain":   "the base URL of the API",
	"issuer":       "the authorization server; the SDKs' stores have none",
	"resource":     "the API for which the token is, if the server was told",
	"scope":        "what the token may do, as the server wrote it",
	"token_type":   "how the token is sent, such as Bearer",
}

func recordHelp() string {
	var members strings.Builder
	for field := range (codec.Fields{}).All() {
		text := memberHelp[field.Column]
		if field.Secret {
			text += " (masked without --reveal)"
		}
		fmt.Fprintf(&members, "  %-13s  %s\n", field.Column, text)
	}
	return `A record on standard input, and with --json on standard output, is a JSON object
whose members are named as in the token files of the Zoho SDKs:

` + members.String() + `
A member that is empty, null or missing is unknown, and saving it changes nothing.
Members that are not in this list and the text "[redacted]" are errors.
"tokenkeep save" also accepts the JSON of an x/oauth2 token: see its help.

"tokenkeep get --like -" searches by the first of these lines that applies:

  id                                      the record with that ID
  user_name                               the record of that user, and of client_id if given
  access_token without client_id          the record with that access token
  refresh_token, grant_token + client_id  the record with one of these

In the lines of user_name and of refresh_token and grant_token, the issuer and the resource
must equal those of the record. There is one exception: with user_name alone, an issuer or a
resource that is not given matches any value, if exactly one record then matches.`
}
