package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An answer is a parsed JSON object: a record, or a token in the form of golang.org/x/oauth2 or
// of a token endpoint.
type answer struct {
	now     time.Time
	drop    []string
	members []member
	oauth2  bool // whether the JSON has a member that ofTokens lists
	record  bool // whether the JSON has a member that ofRecords lists

	token  tokenstore.Token
	others map[string]json.RawMessage // members for Extra
	expiry time.Time                  // the time in the member expiry
	in     time.Time                  // the time from the member expires_in
}

// A member is a name and its value in the parsed object.
type member struct {
	name string
	raw  json.RawMessage
}

// ofTokens lists members that only tokens have, and ofRecords lists members that only records
// have. JSON with members from both lists is a record. The member id is in neither list: a token
// response can have an id that is not the ID of a record.
var (
	ofTokens  = []string{"token_type", "scope", "id_token", "expiry", "expires_in"}
	ofRecords = []string{"user_name", "client_id", "client_secret", "grant_token", "expiry_time", "redirect_url", "issuer", "resource", "extra"}
)

// parseSaved parses a record or a token. The parameter now is the time from which expires_in
// counts. Unknown members of a record are an error, unless drop names them. Errors match errInput,
// or scheme.ErrUsage if drop contains token_type.
func parseSaved(data []byte, now time.Time, drop []string) (tokenstore.Token, error) {
	if slices.Contains(drop, "token_type") {
		return tokenstore.Token{}, usagef("--drop cannot leave out token_type: the token would be sent with the wrong type")
	}
	a := answer{now: now, drop: drop, others: map[string]json.RawMessage{}}
	err := eachMember(data, func(name string, raw json.RawMessage) error {
		a.members = append(a.members, member{name, raw})
		a.oauth2 = a.oauth2 || slices.Contains(ofTokens, name)
		a.record = a.record || slices.Contains(ofRecords, name)
		return nil
	})
	if err != nil {
		return tokenstore.Token{}, err
	}
	for _, m := range a.members {
		if err := a.set(m.name, m.raw); err != nil {
			return tokenstore.Token{}, fmt.Errorf("%w: the member %s %w", errInput, memberName(m.name), err)
		}
	}
	switch {
	case !a.token.ExpiresAt.IsZero() && !(a.expiry.IsZero() && a.in.IsZero()):
		return tokenstore.Token{}, fmt.Errorf("%w: expiry_time stands beside expiry or expires_in", errInput)
	case !a.expiry.IsZero():
		a.token.ExpiresAt = a.expiry // expires_in is relative to the time of issue, which can be long ago
	case !a.in.IsZero():
		a.token.ExpiresAt = a.in
	}
	return a.token, a.keepOthers()
}

func (a *answer) set(name string, raw json.RawMessage) (err error) {
	switch name {
	case "expiry":
		a.expiry, err = parseTime(raw)
		return err
	case "expires_in":
		a.in, err = after(a.now, raw)
		return err
	}
	if slices.Contains(a.drop, name) {
		return nil
	}
	if !a.oauth2 || a.record {
		return setMember(&a.token, name, raw)
	}
	switch name {
	case "access_token", "refresh_token":
		return setMember(&a.token, name, raw)
	case "token_type", "scope", "id_token", "api_domain":
		// Extra keeps empty strings and values of other types unchanged. Only token_type must
		// be a string.
		if text, err := memberText(raw); err == nil && (text != "" || string(raw) == "null") {
			return setMember(&a.token, name, raw)
		}
		if name == "token_type" && string(raw) != `""` {
			return errors.New("is not a string")
		}
	}
	a.others[name] = raw
	return nil
}

// keepOthers stores in Extra the members for which a record has no field.
func (a *answer) keepOthers() error {
	if len(a.others) == 0 {
		return nil
	}
	text, err := json.Marshal(a.others)
	if err != nil {
		return fmt.Errorf("%w: the input is not JSON", errInput)
	}
	extra, err := codec.CanonicalExtra(string(text))
	if err != nil {
		return fmt.Errorf("%w: the members that are not those of a record cannot be kept: %w", errInput, err)
	}
	a.token.Extra = tokenstore.Secret(extra)
	return nil
}

// parseTime parses a JSON string with a time in RFC 3339, the form of x/oauth2. If raw is null or
// an empty string, parseTime returns the zero time.
func parseTime(raw json.RawMessage) (time.Time, error) {
	text, err := memberText(raw)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errors.New("is not a time as in RFC 3339")
	}
	return t, nil
}

// after adds the number of seconds in raw to the time now, and returns the result. The parameter
// raw is a JSON number, or a JSON string with a number. If raw is 0, null or an empty string, after
// returns the zero time.
func after(now time.Time, raw json.RawMessage) (time.Time, error) {
	const most = 1 << 32
	text, err := memberText(raw)
	if err != nil {
		text = string(raw)
	}
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return time.Time{}, errors.New("is not a number of seconds")
	}
	return now.Add(time.Duration(n) * time.Second), nil
}
