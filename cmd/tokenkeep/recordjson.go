package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// maxRecord is how long a record on standard input may be: more than its fields
// can hold.
const maxRecord = 4 << 20

// A recordJSON is a record as it is written for programs. The members are named
// as in the token files of the Zoho SDKs.
type recordJSON codec.Fields

// MarshalJSON leaves out what is unknown, but for the ID.
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

// toJSON returns a record whose secrets are shown, or hidden.
func toJSON(t tokenstore.Token, reveal bool) recordJSON {
	f := t.Fields()
	for field, text := range f.All() {
		if field.Secret && !reveal {
			_ = field.Set(&f, tokenstore.Secret(text).String())
		}
	}
	return recordJSON(f)
}

// printRecord writes a record to standard output.
func (a *app) printRecord(t tokenstore.Token, reveal bool) error {
	r := toJSON(t, reveal)
	if a.json {
		return a.printJSON(r)
	}
	var rows table
	for field, text := range codec.Fields(r).All() {
		if field.Name == "ExpiryTime" && text != "" {
			text = t.ExpiresAt.Format("2006-01-02T15:04:05.000Z07:00") + " (" + relative(t.ExpiresAt, a.now()) + ")"
		}
		rows.row(field.Column, orDash(text))
	}
	a.printf("%s", rows.String())
	return nil
}

// parseRecord reads a record: one JSON object. Errors name the member and hold
// nothing of what is in it.
func parseRecord(data []byte) (t tokenstore.Token, err error) {
	err = eachMember(data, func(name string, raw json.RawMessage) error { return setMember(&t, name, raw) })
	if err != nil {
		return tokenstore.Token{}, err
	}
	return t, nil
}

// eachMember calls set with the members of one JSON object. Errors name the member and
// hold nothing of what is in it.
func eachMember(data []byte, set func(name string, raw json.RawMessage) error) error {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(bytes.TrimSpace(data)) == 0 {
		return fmt.Errorf("%w: standard input is empty; it should be a record as JSON", errInput)
	}
	if !utf8.Valid(data) || !json.Valid(data) {
		return fmt.Errorf("%w: standard input is not JSON", errInput)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: standard input is not a JSON object", errInput)
	}
	seen := map[string]bool{}
	for d.More() {
		key, _ := d.Token() // the text is valid JSON
		name, _ := key.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("%w: standard input is not JSON", errInput)
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

// memberName returns the name of a member as an error shows it: not what may be
// a value that was put in the wrong place.
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

// errUnknownMember is about a member that a record does not have.
var errUnknownMember = errors.New("is not known")

// memberText returns a string; null is the empty one. Text that JSON could not
// carry, and replaced, is refused: it would be another token.
func memberText(raw json.RawMessage) (string, error) {
	var text *string
	switch {
	case json.Unmarshal(raw, &text) != nil:
		return "", errors.New("is not a string")
	case text == nil:
		return "", nil
	case strings.ContainsRune(*text, utf8.RuneError):
		return "", errors.New("has characters that were damaged on the way")
	}
	return *text, nil
}

// parseExpiry returns the time that a member gives: in milliseconds since the
// epoch, as a number or as text, or in the form of RFC 3339.
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

// memberHelp says what the members are. All others are secret.
var memberHelp = map[string]string{
	"id":        "the ID in the store; a store makes one up if there is none",
	"user_name": "whose token it is; the SDKs write <email>:<organization>",
	"client_id": "the OAuth client's",
	"expiry_time": "when the access token expires: milliseconds since 1970, or a time\n" +
		"                 such as 2026-01-31T12:00:00Z",
	"redirect_url": "the one that grant_token was issued for",
	"api_domain":   "the base URL of the API",
}

// recordHelp is the help on records.
func recordHelp() string {
	var members strings.Builder
	for field := range (codec.Fields{}).All() {
		text := memberHelp[field.Column]
		if field.Secret {
			text = "secret"
		}
		fmt.Fprintf(&members, "  %-13s  %s\n", field.Column, text)
	}
	return `A record on standard input, and with --json on standard output, is a JSON object
whose members are named as in the token files of the Zoho SDKs:

` + members.String() + `
What is empty or null, and what is left out, is unknown: saving it changes nothing.
A member that is not in this list is an error, and so is the text "[redacted]".
"tokenkeep save" takes the JSON of an x/oauth2 token, too: see its help.

Searching with "tokenkeep get --like -", the first line that applies decides:

  id                                      the record with that ID
  user_name                               that user's, and client_id's if it is given
  access_token without client_id          the record with that access token
  refresh_token, grant_token + client_id  the record with one of these`
}
