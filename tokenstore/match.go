package tokenstore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Candidate is a record that may be the one a token describes. Stores gather
// candidates in the way that suits them, and Select and PlanSave decide.
type Candidate struct {
	// Token is the record.
	Token Token

	// Updated tells records apart by age: the newer one has the later time.
	Updated time.Time

	// Former says by which of the searched token's fields the record is known
	// although it has another value now.
	Former Former
}

// Format prints c with its secrets redacted. See Token.Format.
func (c Candidate) Format(f fmt.State, verb rune) {
	type plain Candidate
	printAs(f, verb, plain(c), "Candidate")
}

// Former says which fields of a token are earlier values of a record.
type Former struct{ ID, GrantToken, RefreshToken, AccessToken bool }

// A Key is the kind of thing that a token is found by: the row of the table in
// the package documentation that applies to it.
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
func KeyOf(like Token) Key {
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

// Select returns the index of the record that like describes, by the rules in
// the package documentation under "Matching". records must hold every record
// that like may describe; others do no harm. The error matches ErrNotFound,
// ErrAmbiguous or ErrInvalidToken.
func Select(like Token, records []Candidate) (int, error) {
	if KeyOf(like) == KeyNone {
		return -1, fmt.Errorf("%w: nothing in it can be searched for", ErrInvalidToken)
	}
	return choose(KeyOf(like), matching(like, records), records)
}

// matching returns the indices of the records that like describes, before it is
// decided between them.
func matching(like Token, records []Candidate) []int {
	is := func(match func(c Candidate) bool) []int {
		var found []int
		for i, c := range records {
			if match(c) {
				found = append(found, i)
			}
		}
		return found
	}
	client := func(c Candidate) bool { return c.Token.ClientID == like.ClientID }
	switch KeyOf(like) {
	case KeyID:
		return slices.DeleteFunc(byID(like.ID, records), func(i int) bool {
			return like.UserName != "" && records[i].Token.UserName != like.UserName || like.ClientID != "" && !client(records[i])
		})
	case KeyUser:
		user := func(c Candidate) bool { return c.Token.UserName == like.UserName }
		found := is(func(c Candidate) bool { return user(c) && client(c) })
		if len(found) == 0 && like.ClientID == "" {
			found = is(user)
		}
		return found
	case KeyAccess:
		return is(func(c Candidate) bool {
			return c.Token.AccessToken == like.AccessToken || c.Former.AccessToken
		})
	case KeyGrant:
		found := is(func(c Candidate) bool {
			return client(c) && like.GrantToken != "" && (c.Token.GrantToken == like.GrantToken || c.Former.GrantToken)
		})
		if len(found) == 0 {
			found = is(func(c Candidate) bool {
				return client(c) && like.RefreshToken != "" && (c.Token.RefreshToken == like.RefreshToken || c.Former.RefreshToken)
			})
		}
		return found
	case KeyNone:
	}
	return nil
}

// settled reports whether c is what t describes whatever another record holds
// that cannot be read. Of a user without a client, and of an ID that the record
// once had, that one may have the better claim.
func settled(t Token, c Candidate) bool {
	switch KeyOf(t) {
	case KeyID:
		return c.Token.ID == t.ID
	case KeyUser:
		return c.Token.ClientID == t.ClientID
	case KeyAccess, KeyGrant, KeyNone:
	}
	return true
}

// byID returns the indices of the records with the ID, else of those that are known
// by it from before: what had it once does not stand in the way of what has it.
func byID(id string, records []Candidate) []int {
	var found, once []int
	for i, c := range records {
		switch {
		case c.Token.ID == id:
			found = append(found, i)
		case c.Former.ID:
			once = append(once, i)
		}
	}
	if len(found) == 0 {
		return once
	}
	return found
}

// choose decides between the records that match.
func choose(key Key, found []int, records []Candidate) (int, error) {
	if len(found) == 0 {
		return -1, ErrNotFound
	}
	if len(found) > 1 && key == KeyGrant {
		if users := slices.DeleteFunc(slices.Clone(found), func(i int) bool { return records[i].Token.UserName == "" }); len(users) > 0 {
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

func newest(found []int, records []Candidate) []int {
	latest := slices.MaxFunc(found, func(i, j int) int { return records[i].Updated.Compare(records[j].Updated) })
	return slices.DeleteFunc(slices.Clone(found), func(i int) bool { return !records[i].Updated.Equal(records[latest].Updated) })
}

func ambiguous(found []int, records []Candidate) error {
	ids := make([]string, 0, len(found))
	for _, i := range found {
		ids = append(ids, strconv.Quote(records[i].Token.ID))
	}
	slices.Sort(ids)
	return fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(ids, ", "))
}

// Merge returns record with the fields that t has laid over it: FindToken
// returns that, and SaveToken stores it. What t has not stays; nothing is
// cleared, but that an access token never inherits the expiry of another. The
// ID stays, and so do the user and the client once the record has a user.
func Merge(record, t Token) Token {
	m := record
	if record.UserName == "" {
		m.UserName = t.UserName
		lay(&m.ClientID, t.ClientID)
	}
	lay(&m.ClientSecret, t.ClientSecret)
	lay(&m.RefreshToken, t.RefreshToken)
	lay(&m.GrantToken, t.GrantToken)
	lay(&m.RedirectURL, t.RedirectURL)
	lay(&m.APIDomain, t.APIDomain)
	if t.AccessToken != "" && t.AccessToken != record.AccessToken {
		m.AccessToken, m.ExpiresAt = t.AccessToken, t.ExpiresAt
	} else if !t.ExpiresAt.IsZero() {
		m.ExpiresAt = t.ExpiresAt
	}
	return normal(m)
}

func lay[S ~string](dst *S, src S) {
	if src != "" {
		*dst = src
	}
}

// Absorb returns into with what it lacks taken from the record from, which is
// about to disappear into it. The tokens of the two that expire later are kept
// together. ID, user and client are those of into, where it has them.
func Absorb(into, from Token) Token {
	older, newer := from, into
	if !hasCredential(into) || from.ExpiresAt.After(into.ExpiresAt) {
		older, newer = into, from
	}
	m := Merge(older, newer)
	if newer.AccessToken == "" && older.AccessToken != "" {
		m.ExpiresAt = older.ExpiresAt
	}
	m.ID, m.UserName, m.ClientID = into.ID, into.UserName, into.ClientID
	lay(&m.ClientID, either(into.ClientID, from.ClientID))
	lay(&m.UserName, either(into.UserName, from.UserName))
	return m
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// A Plan is what SaveToken is going to do.
type Plan struct {
	// Record is the index of the record that the token is merged into, or -1 if
	// one is created.
	Record int

	// Absorb are the indices of records without a user that hold the same token
	// as Record. They are merged into it and removed.
	Absorb []int

	// Token is what is to be stored. When a record is created its ID is the one
	// that the caller chose, or empty.
	Token Token

	// Changed is false if Token is what Record is already.
	Changed bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p Plan) Format(f fmt.State, verb rune) {
	type plain Plan
	printAs(f, verb, plain(p), "Plan")
}

// PlanSave decides what saving t does, by the rules in the package documentation
// under "Saving". records must hold every record that t may describe by its ID,
// user, or tokens; others do no harm. The error matches ErrInvalidToken,
// ErrTooLarge, ErrNotFound, ErrAmbiguous or ErrIDMismatch.
func PlanSave(t Token, records []Candidate) (Plan, error) {
	if err := Validate(t); err != nil {
		return Plan{}, err
	}
	t = normal(t)
	if t.ID != "" {
		return planByID(t, records)
	}
	key := KeyOf(t)
	found := matching(t, records)
	if len(found) == 0 {
		found = sameIdentity(t, records)
	}
	if len(found) == 0 {
		return planCreate(t)
	}
	into, rest, err := keep(key, found, records)
	if err != nil {
		return Plan{}, err
	}
	if err := belong(records[into].Token, t); err != nil {
		return Plan{}, err
	}
	return planMerge(t, into, rest, records), nil
}

func planByID(t Token, records []Candidate) (Plan, error) {
	found := byID(t.ID, records)
	switch {
	case len(found) > 1:
		return Plan{}, ambiguous(found, records)
	case len(found) == 0:
		like := t
		like.ID = ""
		if others := append(matching(like, records), sameIdentity(like, records)...); len(others) > 0 {
			return Plan{}, fmt.Errorf("%w: the record of this user or token has the ID %q", ErrIDMismatch, records[others[0]].Token.ID)
		}
		return planCreate(t)
	}
	into := found[0]
	record := records[into].Token
	if err := belong(record, t); err != nil {
		return Plan{}, err
	}
	if record.UserName == "" && t.UserName != "" {
		client := either(t.ClientID, record.ClientID)
		for i, c := range records {
			if c.Token.UserName == t.UserName && c.Token.ClientID == client {
				return planMerge(t, i, found, records), nil
			}
		}
	}
	return planMerge(t, into, nil, records), nil
}

// planCreate is the plan for a token that no record matches.
func planCreate(t Token) (Plan, error) {
	if !hasCredential(t) {
		if t.ID == "" && t.UserName == "" {
			return Plan{}, fmt.Errorf("%w: it has neither an ID, nor a user, nor a token", ErrInvalidToken)
		}
		return Plan{}, fmt.Errorf("%w: and there is no access, refresh or grant token to create a record with", ErrNotFound)
	}
	return Plan{Record: -1, Token: t, Changed: true}, nil
}

// planMerge is the plan for a token that is merged into a record, together with
// others that are the same.
func planMerge(t Token, into int, absorb []int, records []Candidate) Plan {
	record := records[into].Token
	merged := record
	for _, i := range absorb {
		merged = Absorb(merged, records[i].Token)
	}
	if t.ID == "" && t.UserName == "" {
		// What the record was found by is an earlier value, not news.
		former := records[into].Former
		if former.GrantToken {
			t.GrantToken = ""
		}
		if former.RefreshToken {
			t.RefreshToken = ""
		}
		if former.AccessToken {
			t.AccessToken, t.ExpiresAt = "", time.Time{}
		}
	}
	merged = Merge(merged, t)
	return Plan{Record: into, Absorb: absorb, Token: merged, Changed: len(absorb) > 0 || !same(merged, record)}
}

// keep chooses, of the records that match a token to be saved, the one that
// stays. The rest hold the same token without a user, and are absorbed.
func keep(key Key, found []int, records []Candidate) (into int, rest []int, err error) {
	users := slices.DeleteFunc(slices.Clone(found), func(i int) bool { return records[i].Token.UserName == "" })
	switch {
	case len(found) == 1:
		return found[0], nil, nil
	case key == KeyUser || key == KeyID || len(users) > 1:
		return -1, nil, ambiguous(found, records)
	case len(users) == 1:
		into = users[0]
	default:
		if found := newest(found, records); len(found) > 1 {
			return -1, nil, ambiguous(found, records)
		}
		into = newest(found, records)[0]
	}
	client := records[into].Token.ClientID
	for _, i := range found {
		if c := records[i].Token.ClientID; i != into && (c == "" || c == client) {
			rest = append(rest, i)
		}
	}
	return into, rest, nil
}

// sameIdentity returns the records that have no user and hold the token that t
// would be named by. Row 4 of the table and records that a search has not caught up
// with are why it is not the same as matching. An access token is one client's
// alone: if only others' records hold it, it returns those, for belong to refuse.
func sameIdentity(t Token, records []Candidate) []int {
	if t.UserName != "" {
		return nil
	}
	var found, others []int
	for i, c := range records {
		r := c.Token
		if r.UserName != "" {
			continue
		}
		exact := r.ClientID == t.ClientID
		switch {
		case t.GrantToken != "":
			if exact && (r.GrantToken == t.GrantToken || c.Former.GrantToken) {
				found = append(found, i)
			}
		case t.RefreshToken != "":
			if exact && (r.RefreshToken == t.RefreshToken || c.Former.RefreshToken) {
				found = append(found, i)
			}
		case t.AccessToken == "" || r.AccessToken != t.AccessToken && !c.Former.AccessToken:
		case exact, r.ClientID == "", t.ClientID == "":
			found = append(found, i)
		default:
			others = append(others, i)
		}
	}
	if len(found) == 0 {
		return others
	}
	return found
}

// belong reports whether t can be merged into record: the user and the client
// that t has are the record's, or the record has no user yet.
func belong(record, t Token) error {
	if t.UserName != "" && record.UserName != "" && t.UserName != record.UserName {
		return fmt.Errorf("%w: the record %q is another user's", ErrIDMismatch, record.ID)
	}
	if t.ClientID != "" && t.ClientID != record.ClientID && (record.UserName != "" || record.ClientID != "") {
		return fmt.Errorf("%w: the record %q is another client's", ErrIDMismatch, record.ID)
	}
	return nil
}
