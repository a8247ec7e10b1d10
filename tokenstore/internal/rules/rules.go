// Package rules decides which record a token describes, and what becomes of it: the
// rules that package tokenstore documents under "Matching", "Saving" and
// "Refreshing", as functions of the records alone. Every store follows them.
package rules

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// The classes of the errors that no driver has. Package tokenstore documents them.
var (
	ErrAmbiguous    = errors.New("more than one record matches")
	ErrIDMismatch   = errors.New("ID, user and client do not belong together")
	ErrInvalidToken = errors.New("invalid token")
	ErrTooLarge     = errors.New("record too large")
)

// Redacted is the text that a credential prints as. It is refused as the value of a
// field, so that a token from a log cannot be stored over the real one.
const Redacted = "[redacted]"

// Limits of the fields. They are far above what authorization servers issue. The total
// size that a store can hold is a separate limit.
const (
	MaxID     = 255             // bytes
	maxField  = 32 << 10        // bytes
	maxExpiry = 253402300799999 // the end of the year 9999
)

// Validate returns an error if a store cannot take f. The error matches
// ErrInvalidToken, or ErrTooLarge if a field other than the ID is too long. It names
// the field and does not quote its content.
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

// A Candidate is a record that a token may describe.
type Candidate struct {
	codec.Fields

	// Updated orders records by age: the newer one has the later time.
	Updated time.Time

	// Former says which fields of the token that is searched for are earlier values of
	// the record.
	Former Former
}

// Former says which fields of a token are earlier values of a record.
type Former struct{ ID, GrantToken, RefreshToken, AccessToken bool }

// The following report whether a candidate has or had a token of like that is not
// empty.

func (c Candidate) hasAccess(like codec.Fields) bool {
	return like.AccessToken != "" && (c.AccessToken == like.AccessToken || c.Former.AccessToken)
}

func (c Candidate) hasGrant(like codec.Fields) bool {
	return like.GrantToken != "" && (c.GrantToken == like.GrantToken || c.Former.GrantToken)
}

func (c Candidate) hasRefresh(like codec.Fields) bool {
	return like.RefreshToken != "" && (c.RefreshToken == like.RefreshToken || c.Former.RefreshToken)
}

// A Key says what a token is found by. It is the row of the table under "Matching" that
// applies to the token.
type Key int

// The rows, in the order in which they apply.
const (
	KeyID     Key = iota // row 0: the ID
	KeyUser              // row 1: the user, and the client
	KeyAccess            // row 2: the access token
	KeyGrant             // row 3: the grant or refresh token, and the client
	KeyNone              // row 4: nothing
)

// KeyOf returns the row that applies to like.
func KeyOf(like codec.Fields) Key {
	switch {
	case like.ID != "":
		return KeyID
	case like.UserName != "":
		return KeyUser
	case like.AccessToken != "" && like.ClientID == "" && like.ClientSecret == "":
		return KeyAccess
	case like.ClientID != "" && (like.GrantToken != "" || like.RefreshToken != ""):
		return KeyGrant
	}
	return KeyNone
}

// Select returns the index of the record that like describes. The records must include
// every record that like may describe, and may include others. The error matches
// ErrAmbiguous, ErrInvalidToken or driver.ErrNotFound.
func Select(like codec.Fields, records []Candidate) (int, error) {
	key := KeyOf(like)
	if key == KeyNone {
		return -1, fmt.Errorf("%w: nothing in it can be searched for", ErrInvalidToken)
	}
	return choose(key, matching(like, records), records)
}

// where returns the indices of the records that meet the first condition that any
// record meets.
func where(records []Candidate, conditions ...func(Candidate) bool) []int {
	for _, meets := range conditions {
		var found []int
		for i, c := range records {
			if meets(c) {
				found = append(found, i)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// matching returns the indices of all records that like describes.
func matching(like codec.Fields, records []Candidate) []int {
	client := func(c Candidate) bool { return c.ClientID == like.ClientID }
	switch KeyOf(like) {
	case KeyID:
		return slices.DeleteFunc(ByID(like.ID, records), func(i int) bool {
			c := records[i]
			return like.UserName != "" && c.UserName != like.UserName || like.ClientID != "" && !client(c)
		})
	case KeyUser:
		user := func(c Candidate) bool { return c.UserName == like.UserName }
		return where(records,
			func(c Candidate) bool { return user(c) && client(c) },
			func(c Candidate) bool { return user(c) && like.ClientID == "" })
	case KeyAccess:
		return where(records, func(c Candidate) bool { return c.hasAccess(like) })
	case KeyGrant:
		return where(records,
			func(c Candidate) bool { return client(c) && c.hasGrant(like) },
			func(c Candidate) bool { return client(c) && c.hasRefresh(like) })
	case KeyNone:
	}
	return nil
}

// ByID returns the indices of the records with the ID or, if there are none, of those
// that once had it. An earlier holder of the ID does not make the present one
// ambiguous.
func ByID(id string, records []Candidate) []int {
	return where(records,
		func(c Candidate) bool { return c.ID == id },
		func(c Candidate) bool { return c.Former.ID })
}

// Settled reports whether like describes c even if further records exist that cannot be
// read. An unreadable record may be the better match for a user without a client, and
// for an ID that c no longer has.
func Settled(like codec.Fields, c Candidate) bool {
	switch KeyOf(like) {
	case KeyID:
		return c.ID == like.ID
	case KeyUser:
		return c.ClientID == like.ClientID
	case KeyAccess, KeyGrant, KeyNone:
	}
	return true
}

// choose decides between the records that match.
func choose(key Key, found []int, records []Candidate) (int, error) {
	if len(found) == 0 {
		return -1, driver.ErrNotFound
	}
	if len(found) > 1 && key == KeyGrant {
		if users := ofUsers(found, records); len(users) > 0 {
			found = users
		} else {
			found = newest(found, records)
		}
	}
	if len(found) > 1 {
		return -1, ambiguous(found, records)
	}
	return found[0], nil
}

func ofUsers(found []int, records []Candidate) []int {
	return slices.DeleteFunc(slices.Clone(found), func(i int) bool { return records[i].UserName == "" })
}

func newest(found []int, records []Candidate) []int {
	latest := slices.MaxFunc(found, func(i, j int) int { return records[i].Updated.Compare(records[j].Updated) })
	return slices.DeleteFunc(slices.Clone(found), func(i int) bool { return !records[i].Updated.Equal(records[latest].Updated) })
}

func ambiguous(found []int, records []Candidate) error {
	ids := make([]string, 0, len(found))
	for _, i := range found {
		ids = append(ids, strconv.Quote(records[i].ID))
	}
	slices.Sort(ids)
	return fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(ids, ", "))
}

// SameRecord reports whether other can be merged into record. The two have an ID, a
// user and client, or a token in common. The user of other must be empty or that of
// record, and so must its client.
func SameRecord(record, other codec.Fields) bool {
	return (other.UserName == "" || other.UserName == record.UserName && other.ClientID == record.ClientID) &&
		(other.ClientID == "" || other.ClientID == record.ClientID) &&
		(record.UserName != "" && record.UserName == other.UserName || shareToken(record, other))
}

func shareToken(a, b codec.Fields) bool {
	return a.RefreshToken != "" && a.RefreshToken == b.RefreshToken ||
		a.GrantToken != "" && a.GrantToken == b.GrantToken ||
		a.AccessToken != "" && a.AccessToken == b.AccessToken
}

// Merge returns record with the fields of t laid over it. Empty fields of t keep the
// values of record. A new access token does not inherit the expiry of the old one. The
// ID stays, and so do the user and client of a record that has a user.
func Merge(record, t codec.Fields) codec.Fields {
	m := t.Or(record)
	m.ID = record.ID
	if record.UserName != "" {
		m.UserName, m.ClientID = record.UserName, record.ClientID
	}
	if t.AccessToken != "" && t.AccessToken != record.AccessToken {
		m.ExpiryTime = t.ExpiryTime
	}
	return m
}

// Absorb returns into with its empty fields filled from the record from, which is about
// to be merged into it. The tokens of the record that expires later stay together. ID,
// user and client are those of into where it has them.
func Absorb(into, from codec.Fields) codec.Fields {
	older, newer := from, into
	if !HasCredential(into) || from.ExpiryTime > into.ExpiryTime {
		older, newer = into, from
	}
	m := Merge(older, newer)
	if newer.AccessToken == "" && older.AccessToken != "" {
		m.ExpiryTime = older.ExpiryTime
	}
	m.ID = into.ID
	m.UserName = cmp.Or(into.UserName, from.UserName)
	m.ClientID = cmp.Or(into.ClientID, from.ClientID)
	return m
}

// An Action is what a save does.
type Action int

// The actions.
const (
	Nothing  Action = iota // the record is what is to be stored
	Create                 // there is no record: one is created
	Change                 // the record is changed
	GiveUser               // a record without a user becomes the user's, or part of the user's
)

// A Plan describes what a save does.
type Plan struct {
	Action Action

	// Fields are the token to store. If a record is created, the ID is the caller's, or
	// empty.
	codec.Fields

	// Record is the index of the record that the token is merged into, or -1 if one
	// is created.
	Record int

	// Absorb has the indices of records without a user that are merged into Record and
	// removed. They hold the same token, or are found by the ID of the token.
	Absorb []int

	// Gives is the index of the record that gets a user, if that is the Action: Record,
	// or the first in Absorb.
	Gives int
}

// PlanSave decides what saving t does. The records must include every record that t may
// describe by its ID, user, or tokens, and may include others. The error matches
// ErrInvalidToken, ErrTooLarge, ErrAmbiguous, ErrIDMismatch or driver.ErrNotFound.
func PlanSave(t codec.Fields, records []Candidate) (Plan, error) {
	if err := Validate(t); err != nil {
		return Plan{}, err
	}
	if t.ID != "" {
		return planByID(t, records)
	}
	found := matching(t, records)
	if len(found) == 0 {
		found = sameIdentity(t, records)
	}
	if len(found) == 0 {
		return planCreate(t)
	}
	into, rest, err := keep(KeyOf(t), found, records)
	if err != nil {
		return Plan{}, err
	}
	if err := belong(records[into].Fields, t); err != nil {
		return Plan{}, err
	}
	return planMerge(t, into, rest, records), nil
}

func planByID(t codec.Fields, records []Candidate) (Plan, error) {
	found := ByID(t.ID, records)
	switch {
	case len(found) > 1:
		return Plan{}, ambiguous(found, records)
	case len(found) == 0:
		like := t
		like.ID = ""
		if others := append(matching(like, records), sameIdentity(like, records)...); len(others) > 0 {
			return Plan{}, fmt.Errorf("%w: the record of this user or token has the ID %q", ErrIDMismatch, records[others[0]].ID)
		}
		return planCreate(t)
	}
	into := found[0]
	record := records[into].Fields
	if err := belong(record, t); err != nil {
		return Plan{}, err
	}
	if record.UserName == "" && t.UserName != "" {
		client := cmp.Or(t.ClientID, record.ClientID)
		users := where(records, func(c Candidate) bool { return c.UserName == t.UserName && c.ClientID == client })
		if len(users) > 0 {
			return planMerge(t, users[0], found, records), nil
		}
	}
	return planMerge(t, into, nil, records), nil
}

// planCreate returns the plan for a token that no record matches.
func planCreate(t codec.Fields) (Plan, error) {
	if !HasCredential(t) {
		if t.ID == "" && t.UserName == "" {
			return Plan{}, fmt.Errorf("%w: it has neither an ID, nor a user, nor a token", ErrInvalidToken)
		}
		return Plan{}, fmt.Errorf("%w: and there is no access, refresh or grant token to create a record with", driver.ErrNotFound)
	}
	return Plan{Action: Create, Fields: t, Record: -1}, nil
}

// planMerge returns the plan for a token that is merged into a record, together with
// the records in absorb.
func planMerge(t codec.Fields, into int, absorb []int, records []Candidate) Plan {
	record := records[into]
	p := Plan{Fields: record.Fields, Record: into, Absorb: absorb}
	for _, i := range absorb {
		p.Fields = Absorb(p.Fields, records[i].Fields)
	}
	if t.ID == "" && t.UserName == "" {
		// The token that the record was found by is an earlier value: it does not
		// replace the present one.
		if record.Former.GrantToken {
			t.GrantToken = ""
		}
		if record.Former.RefreshToken {
			t.RefreshToken = ""
		}
		if record.Former.AccessToken {
			t.AccessToken, t.ExpiryTime = "", 0
		}
	}
	p.Fields = Merge(p.Fields, t)
	switch {
	case t.ID != "" && len(absorb) > 0:
		p.Action, p.Gives = GiveUser, absorb[0]
	case record.UserName == "" && p.UserName != "":
		p.Action, p.Gives = GiveUser, into
	case len(absorb) > 0 || p.Fields != record.Fields:
		p.Action = Change
	}
	return p
}

// keep chooses the record that stays from the records that match a token to be saved.
// The rest hold the same token without a user, and are absorbed.
func keep(key Key, found []int, records []Candidate) (into int, rest []int, err error) {
	users := ofUsers(found, records)
	switch {
	case len(found) == 1:
		return found[0], nil, nil
	case key == KeyUser || key == KeyID || len(users) > 1:
		return -1, nil, ambiguous(found, records)
	case len(users) == 1:
		into = users[0]
	default:
		latest := newest(found, records)
		if len(latest) > 1 {
			return -1, nil, ambiguous(latest, records)
		}
		into = latest[0]
	}
	client := records[into].ClientID
	for _, i := range found {
		if c := records[i].ClientID; i != into && (c == "" || c == client) {
			rest = append(rest, i)
		}
	}
	return into, rest, nil
}

// sameIdentity returns the records without a user that hold the token which t would be
// named by. It finds more than matching: records for tokens to which row 4 applies, and
// records that a search does not show yet. An access token belongs to one client: if
// only records of other clients hold it, sameIdentity returns those, for belong to
// refuse.
func sameIdentity(t codec.Fields, records []Candidate) []int {
	if t.UserName != "" {
		return nil
	}
	client := func(c Candidate) bool { return c.UserName == "" && c.ClientID == t.ClientID }
	access := func(c Candidate) bool { return c.UserName == "" && c.hasAccess(t) }
	switch {
	case t.GrantToken != "":
		return where(records, func(c Candidate) bool { return client(c) && c.hasGrant(t) })
	case t.RefreshToken != "":
		return where(records, func(c Candidate) bool { return client(c) && c.hasRefresh(t) })
	}
	own := func(c Candidate) bool { return access(c) && (client(c) || c.ClientID == "" || t.ClientID == "") }
	return where(records, own, access)
}

// belong returns an error if t cannot be merged into record, because t has another user
// or client. A record without a user can get one. A record with neither a user nor a
// client can get a client.
func belong(record, t codec.Fields) error {
	if t.UserName != "" && record.UserName != "" && t.UserName != record.UserName {
		return fmt.Errorf("%w: the record %q is another user's", ErrIDMismatch, record.ID)
	}
	if t.ClientID != "" && t.ClientID != record.ClientID && (record.UserName != "" || record.ClientID != "") {
		return fmt.Errorf("%w: the record %q is another client's", ErrIDMismatch, record.ID)
	}
	return nil
}
