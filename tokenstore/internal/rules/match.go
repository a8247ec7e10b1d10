package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A Candidate is a record that a token may describe.
type Candidate struct {
	codec.Fields

	// Updated tells records apart by age: the newer one has the later time.
	Updated time.Time

	// Former says by which of the searched token's fields the record is known
	// although it has another value now.
	Former Former
}

// Former says which fields of a token are earlier values of a record.
type Former struct{ ID, GrantToken, RefreshToken, AccessToken bool }

// The tokens of like, which are not empty, that a candidate has or had.

func (c Candidate) hasAccess(like codec.Fields) bool {
	return like.AccessToken != "" && (c.AccessToken == like.AccessToken || c.Former.AccessToken)
}

func (c Candidate) hasGrant(like codec.Fields) bool {
	return like.GrantToken != "" && (c.GrantToken == like.GrantToken || c.Former.GrantToken)
}

func (c Candidate) hasRefresh(like codec.Fields) bool {
	return like.RefreshToken != "" && (c.RefreshToken == like.RefreshToken || c.Former.RefreshToken)
}

// A Key is the kind of thing that a token is found by: the row of the table under
// "Matching" that applies to it.
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

// Select returns the index of the record that like describes. records must hold
// every record that like may describe; others do no harm. The error matches
// ErrAmbiguous, ErrInvalidToken or driver.ErrNotFound.
func Select(like codec.Fields, records []Candidate) (int, error) {
	key := KeyOf(like)
	if key == KeyNone {
		return -1, fmt.Errorf("%w: nothing in it can be searched for", ErrInvalidToken)
	}
	return choose(key, matching(like, records), records)
}

// where returns the indices of the records that meet the first of the conditions
// that any record meets.
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

// ByID returns the indices of the records with the ID, else of those that once had
// it: an earlier holder of the ID does not make the present one ambiguous.
func ByID(id string, records []Candidate) []int {
	return where(records,
		func(c Candidate) bool { return c.ID == id },
		func(c Candidate) bool { return c.Former.ID })
}

// Settled reports whether like describes c whatever a record holds that cannot be
// read. That record may have the better claim to a user without a client, and to an
// ID that c no longer has.
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

// SameRecord reports whether other can be merged into record, with which it has an
// ID, a user and client, or a token in common: it has no user or the same, and no
// client or the same.
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
