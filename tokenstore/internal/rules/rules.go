// Package rules decides which record a token describes, and how a save or refresh changes
// the record. It implements the rules that package tokenstore documents under "Matching",
// "Saving" and "Refreshing", as pure functions of the records.
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

// Error classes that drivers do not return. Package tokenstore documents these classes.
var (
	ErrAmbiguous    = errors.New("more than one record matches")
	ErrIDMismatch   = errors.New("ID, user and client do not belong together")
	ErrInvalidToken = errors.New("invalid token")
	ErrTooLarge     = errors.New("record too large")
	ErrWrongKeys    = errors.New("the store is under other keys")
)

// Redacted is the text that package fmt prints for a credential. Validate refuses this text
// as the value of a field, so that a text copied from a log cannot replace a credential.
const Redacted = "[redacted]"

// Limits of the fields, far above the sizes that authorization servers issue. The total
// size of a record has a separate limit in each store.
const (
	MaxID     = 255             // bytes
	maxField  = 32 << 10        // bytes
	maxExpiry = 253402300799999 // Unix milliseconds: the end of the year 9999
)

// Validate returns an error if no store accepts f. The error matches ErrInvalidToken, or
// ErrTooLarge if a field other than the ID is too long. The error names the field, and does
// not quote the value of the field.
func Validate(f codec.Fields) error {
	_, err := Canonical(f)
	return err
}

// Canonical returns f with its Extra in canonical form, or the error from Validate.
func Canonical(f codec.Fields) (codec.Fields, error) {
	extra, err := codec.CanonicalExtra(f.Extra)
	switch {
	case err != nil:
		return codec.Fields{}, fmt.Errorf("%w: Extra: %w", ErrInvalidToken, err)
	case len(extra) > codec.MaxExtra:
		return codec.Fields{}, extraTooLarge(extra)
	}
	f.Extra = extra
	if err := validate(f); err != nil {
		return codec.Fields{}, err
	}
	return f, nil
}

func extraTooLarge(extra string) error {
	return fmt.Errorf("%w: Extra has %d bytes, the limit is %d", ErrTooLarge, len(extra), codec.MaxExtra)
}

func validate(f codec.Fields) error {
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

// A Client is an OAuth client at one authorization server, with tokens for one resource.
// Records of the Zoho SDKs have neither Issuer nor Resource.
type Client struct{ ID, Issuer, Resource string }

// ClientOf returns the client of a record or token.
func ClientOf(f codec.Fields) Client { return Client{f.ClientID, f.Issuer, f.Resource} }

// Or returns c with the empty parts of c replaced by those of other.
func (c Client) Or(other Client) Client {
	return Client{cmp.Or(c.ID, other.ID), cmp.Or(c.Issuer, other.Issuer), cmp.Or(c.Resource, other.Resource)}
}

// within reports whether each part of c is empty or equals that of other.
func (c Client) within(other Client) bool { return c.Or(other) == other }

// Identity returns a copy of f that has only the user and client.
func Identity(f codec.Fields) codec.Fields { return WithIdentity(codec.Fields{}, f) }

// WithIdentity returns a copy of f that has the user and client of the second parameter.
func WithIdentity(f, of codec.Fields) codec.Fields {
	f.UserName, f.ClientID, f.Issuer, f.Resource = of.UserName, of.ClientID, of.Issuer, of.Resource
	return f
}

// HasCredential reports whether f has an access, refresh or grant token.
func HasCredential(f codec.Fields) bool {
	return f.AccessToken != "" || f.RefreshToken != "" || f.GrantToken != ""
}

// A Candidate is a record that a token may describe.
type Candidate struct {
	codec.Fields

	// Updated orders records by age: a newer record has a later time.
	Updated time.Time

	// Former compares the record with the token that a search or save looks for.
	Former Former
}

// A Former reports, for each of its fields, whether the value in a token is an earlier value
// of a record.
type Former struct{ ID, GrantToken, RefreshToken, AccessToken bool }

// The methods hasAccess, hasGrant and hasRefresh report whether c has or had the access, grant or
// refresh token of the token like. For an empty token, the methods return false.

func (c Candidate) hasAccess(like codec.Fields) bool {
	return like.AccessToken != "" && (c.AccessToken == like.AccessToken || c.Former.AccessToken)
}

func (c Candidate) hasGrant(like codec.Fields) bool {
	return like.GrantToken != "" && (c.GrantToken == like.GrantToken || c.Former.GrantToken)
}

func (c Candidate) hasRefresh(like codec.Fields) bool {
	return like.RefreshToken != "" && (c.RefreshToken == like.RefreshToken || c.Former.RefreshToken)
}

// A Key identifies the fields by which a token finds its record. It is a row of the table
// under "Matching" in package tokenstore.
type Key int

// The rows of the table, in order of precedence.
const (
	KeyID     Key = iota // row 0: the ID
	KeyUser              // row 1: the user, and the client
	KeyAccess            // row 2: the access token
	KeyGrant             // row 3: the grant or refresh token, and the client
	KeyNone              // row 4: nothing
)

// KeyOf returns the row that applies to the token like.
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

// Select returns the index of the record that the token like describes, or -1 and an error. records
// must include every record that the token may describe, and may include others. The error matches
// ErrAmbiguous, ErrInvalidToken or driver.ErrNotFound.
func Select(like codec.Fields, records []Candidate) (int, error) {
	key := KeyOf(like)
	if key == KeyNone {
		return -1, fmt.Errorf("%w: it has no search key", ErrInvalidToken)
	}
	return choose(key, matching(like, records), records)
}

// where returns the indices of the records that meet a condition. It uses the first condition
// that at least one record meets.
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

// matching returns the indices of the records that match the token like according to the row
// KeyOf(like).
func matching(like codec.Fields, records []Candidate) []int {
	client := func(c Candidate) bool { return ClientOf(c.Fields) == ClientOf(like) }
	given := func(c Candidate) bool { return ClientOf(like).within(ClientOf(c.Fields)) }
	switch KeyOf(like) {
	case KeyID:
		return slices.DeleteFunc(ByID(like.ID, records), func(i int) bool {
			c := records[i]
			return like.UserName != "" && c.UserName != like.UserName || !given(c)
		})
	case KeyUser:
		user := func(c Candidate) bool { return c.UserName == like.UserName }
		return where(records,
			func(c Candidate) bool { return user(c) && client(c) },
			func(c Candidate) bool { return user(c) && like.ClientID == "" && given(c) })
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

// ByID returns the indices of the records with the given ID. If no record has that ID, ByID
// returns the indices of the records with Former.ID set.
func ByID(id string, records []Candidate) []int {
	return where(records,
		func(c Candidate) bool { return c.ID == id },
		func(c Candidate) bool { return c.Former.ID })
}

// Settled reports whether c, which matches the token like, may be used even though the search also
// found unreadable records. It returns false if the token has a former ID of c, or has a user but
// not the client of c. In these two cases, an unreadable record may be a better match.
func Settled(like codec.Fields, c Candidate) bool {
	switch KeyOf(like) {
	case KeyID:
		return c.ID == like.ID
	case KeyUser:
		return ClientOf(c.Fields) == ClientOf(like)
	case KeyAccess, KeyGrant, KeyNone:
	}
	return true
}

// choose returns the index of the record to use. The elements of found are the indices of the
// matching records.
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

// SameRecord reports whether other can be merged into record: CanBecome(other, record) is
// true, and the two records have a user or a token in common.
func SameRecord(record, other codec.Fields) bool {
	return CanBecome(other, record) &&
		(record.UserName != "" && record.UserName == other.UserName || shareToken(record, other))
}

// CanBecome reports whether the first record can become part of the second record. It returns true
// if both records have the same user and client. It also returns true if the first record has no
// user, and each part of its client is empty or equals that part of the second record's client.
func CanBecome(from, into codec.Fields) bool {
	return Identity(from) == Identity(into) || from.UserName == "" && ClientOf(from).within(ClientOf(into))
}

func shareToken(a, b codec.Fields) bool {
	return a.RefreshToken != "" && a.RefreshToken == b.RefreshToken ||
		a.GrantToken != "" && a.GrantToken == b.GrantToken ||
		a.AccessToken != "" && a.AccessToken == b.AccessToken
}

// Merge returns record after replacing its fields with those fields of t that are not empty. It
// replaces Extra member by member. A new access token does not inherit the expiry of the old access
// token. Merge keeps the ID of record and, if record has a user, the user and client of record. If
// record has no user, Merge keeps an Issuer or Resource that is not empty.
func Merge(record, t codec.Fields) codec.Fields {
	m := t.Or(record)
	m.ID = record.ID
	m.Extra = codec.MergeExtra(record.Extra, t.Extra)
	if record.UserName != "" {
		m = WithIdentity(m, record)
	}
	m.Issuer, m.Resource = cmp.Or(record.Issuer, m.Issuer), cmp.Or(record.Resource, m.Resource)
	if t.AccessToken != "" && t.AccessToken != record.AccessToken {
		m.ExpiryTime = t.ExpiryTime
	}
	return m
}

// Absorb merges the second record into the first record, and returns the result. The fields of the
// record that expires later take precedence, so that tokens that belong together stay together. If
// the first record has no token, the fields of the second record take precedence. The result has
// the ID, user and client of the first record, with empty parts of the user and client replaced by
// those of the second record. If Extra is too large, the result has only the Extra of the record
// that takes precedence.
func Absorb(into, from codec.Fields) codec.Fields {
	older, newer := from, into
	if !HasCredential(into) || from.ExpiryTime > into.ExpiryTime {
		older, newer = into, from
	}
	m := Merge(older, newer)
	if newer.AccessToken == "" && older.AccessToken != "" {
		m.ExpiryTime = older.ExpiryTime
	}
	if len(m.Extra) > codec.MaxExtra {
		m.Extra = newer.Extra
	}
	m.ID = into.ID
	return WithIdentity(m, Identity(into).Or(Identity(from)))
}

// An Action is the effect of a save on the records.
type Action int

// The values of Plan.Action.
const (
	Nothing  Action = iota // the record already equals the fields to store
	Create                 // a new record is created
	Change                 // a record is changed
	GiveUser               // a record without a user gets a user, or is merged into the user's record
)

// A Plan describes the effect of a save.
type Plan struct {
	Action Action

	// Fields is the record to store. If the record is new, its ID is the ID of the saved
	// token, which may be empty.
	codec.Fields

	// Record is the index of the record into which the token is merged, or -1 if a record
	// is created.
	Record int

	// Absorb holds the indices of records without a user that are merged into Record and
	// removed. Each of these records has or had the ID, or one of the three tokens, of the
	// token being saved.
	Absorb []int

	// Gives is the index of the record that gets a user, if Action is GiveUser. It is
	// Record or the first element of Absorb.
	Gives int
}

// PlanSave returns the plan for saving t. records must include every record that t may
// describe by its ID, user or tokens, and may include others. The error matches
// ErrInvalidToken, ErrTooLarge, ErrAmbiguous, ErrIDMismatch or driver.ErrNotFound.
func PlanSave(t codec.Fields, records []Candidate) (Plan, error) {
	t, err := Canonical(t)
	if err != nil {
		return Plan{}, err
	}
	p, err := plan(t, records)
	if err == nil && len(p.Extra) > codec.MaxExtra {
		err = extraTooLarge(p.Extra)
	}
	if err != nil {
		return Plan{}, err
	}
	return p, nil
}

// plan is like PlanSave, for a token in canonical form.
func plan(t codec.Fields, records []Candidate) (Plan, error) {
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
		client := ClientOf(t).Or(ClientOf(record))
		users := where(records, func(c Candidate) bool { return c.UserName == t.UserName && ClientOf(c.Fields) == client })
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

// planMerge returns the plan for merging t, and the records with the indices in absorb, into
// another record. The parameter into is the index of that record.
func planMerge(t codec.Fields, into int, absorb []int, records []Candidate) Plan {
	record := records[into]
	p := Plan{Fields: record.Fields, Record: into, Absorb: absorb}
	for _, i := range absorb {
		p.Fields = Absorb(p.Fields, records[i].Fields)
	}
	if t.ID == "" && t.UserName == "" {
		// A token of t that is an earlier value of the record must not replace the current
		// token.
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

// keep returns the index of the record into which a token is merged. The elements of found are
// the indices of the matching records. The result rest holds the indices of the records to
// absorb, which have no user and have or had the same token. The error matches ErrAmbiguous.
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
	client := ClientOf(records[into].Fields)
	for _, i := range found {
		if i != into && ClientOf(records[i].Fields).within(client) {
			rest = append(rest, i)
		}
	}
	return into, rest, nil
}

// sameIdentity returns the indices of the records without a user that have or had the token
// from which the name of a new record for t derives. It also finds records for tokens to
// which row 4 applies. An access token belongs to one client. If only records of other
// clients have the access token, sameIdentity returns these records, so that plan fails
// instead of creating a second record.
func sameIdentity(t codec.Fields, records []Candidate) []int {
	if t.UserName != "" {
		return nil
	}
	of := ClientOf(t)
	client := func(c Candidate) bool { return c.UserName == "" && ClientOf(c.Fields) == of }
	access := func(c Candidate) bool { return c.UserName == "" && c.hasAccess(t) }
	switch {
	case t.GrantToken != "":
		return where(records, func(c Candidate) bool { return client(c) && c.hasGrant(t) })
	case t.RefreshToken != "":
		return where(records, func(c Candidate) bool { return client(c) && c.hasRefresh(t) })
	}
	own := func(c Candidate) bool {
		is := ClientOf(c.Fields)
		return access(c) && is.Or(of) == of.Or(is) // no part differs
	}
	return where(records, own, access)
}

// belong returns an error that matches ErrIDMismatch if t and record belong to different users
// or clients. A record without a user can get a user and the missing parts of its client.
func belong(record, t codec.Fields) error {
	if t.UserName != "" && record.UserName != "" && t.UserName != record.UserName {
		return fmt.Errorf("%w: the record %q is another user's", ErrIDMismatch, record.ID)
	}
	is, with := ClientOf(record), ClientOf(t)
	next := is.Or(with)
	if record.UserName != "" {
		next = is
	}
	switch {
	case with.within(next):
		return nil
	case with.ID != "" && with.ID != next.ID:
		return fmt.Errorf("%w: the record %q is another client's", ErrIDMismatch, record.ID)
	case with.Issuer != "" && with.Issuer != next.Issuer:
		return fmt.Errorf("%w: the record %q is of another issuer", ErrIDMismatch, record.ID)
	}
	return fmt.Errorf("%w: the record %q is for another resource", ErrIDMismatch, record.ID)
}
