package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An answer is a token as golang.org/x/oauth2 or a token endpoint writes it, or a record.
type answer struct {
	token  tokenstore.Token
	now    time.Time
	drop   []string
	oauth2 bool      // it has a member that records do not have, and tokens do
	expiry time.Time // of the member expiry
	in     time.Time // of the member expires_in

	unkept  []string // members that cannot be kept
	unknown error    // about the first of them
}

// parseSaved reads a record, or a token. Members that a record has no room for, and that
// drop does not name, are a usage error.
func parseSaved(data []byte, now time.Time, drop []string) (tokenstore.Token, error) {
	a := answer{now: now, drop: drop}
	if slices.Contains(drop, "token_type") {
		return tokenstore.Token{}, usagef("--drop cannot take token_type: the token would be sent as what it is not")
	}
	if err := eachMember(data, a.set); err != nil {
		return tokenstore.Token{}, err
	}
	switch {
	case len(a.unkept) > 0 && a.oauth2:
		return tokenstore.Token{}, usagef("a record has no room for %s: --drop names what need not be kept", strings.Join(a.unkept, ", "))
	case a.unknown != nil:
		return tokenstore.Token{}, fmt.Errorf("%w: the member %s %w", errInput, a.unkept[0], a.unknown)
	case !a.token.ExpiresAt.IsZero() && !(a.expiry.IsZero() && a.in.IsZero()):
		return tokenstore.Token{}, fmt.Errorf("%w: expiry_time stands beside expiry or expires_in", errInput)
	case !a.expiry.IsZero():
		a.token.ExpiresAt = a.expiry // x/oauth2: when the seconds of expires_in began is not known
	case !a.in.IsZero():
		a.token.ExpiresAt = a.in
	}
	return a.token, nil
}

// set takes one member.
func (a *answer) set(name string, raw json.RawMessage) (err error) {
	switch name {
	case "token_type":
		a.oauth2 = true
		return checkType(raw)
	case "expiry":
		a.oauth2 = true
		a.expiry, err = parseTime(raw)
		return err
	case "expires_in":
		a.oauth2 = true
		a.in, err = after(a.now, raw)
		return err
	case "scope", "id_token":
		a.oauth2 = true
	}
	if slices.Contains(a.drop, name) {
		return nil
	}
	err = setMember(&a.token, name, raw)
	if !errors.Is(err, errUnknownMember) {
		return err
	}
	if a.unkept = append(a.unkept, memberName(name)); a.unknown == nil {
		a.unknown = err
	}
	return nil
}

// checkType refuses a token that is not sent as Bearer: a record does not tell the type.
func checkType(raw json.RawMessage) error {
	text, err := memberText(raw)
	if err != nil || text == "" || strings.EqualFold(text, "Bearer") || strings.EqualFold(text, "Zoho-oauthtoken") {
		return err
	}
	return usagef("is not Bearer: the token would be sent as what it is not")
}

// parseTime returns the time that x/oauth2 writes; its zero time is an unknown one.
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

// after returns the time that is a number of seconds from now; 0 is an unknown one.
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
