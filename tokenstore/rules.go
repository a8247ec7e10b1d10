package tokenstore

import (
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
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

// Former says which fields of a token are earlier values of a record.
type Former = rules.Former

// Format prints c with its secrets redacted. See Token.Format.
func (c Candidate) Format(f fmt.State, verb rune) {
	type plain Candidate
	printAs(f, verb, plain(c), "Candidate")
}

// of returns records in the form in which package rules has them.
func of(records []Candidate) []rules.Candidate {
	all := make([]rules.Candidate, len(records))
	for i, c := range records {
		all[i] = rules.Candidate{Fields: c.Token.Fields(), Updated: c.Updated, Former: c.Former}
	}
	return all
}

// Validate reports whether a store can take t: all its fields are valid UTF-8
// without control characters, ID is at most 255 bytes, no Secret is the text
// that a Secret prints as, and ExpiresAt is zero or lies between the years 1970
// and 9999. The error matches ErrInvalidToken, or ErrTooLarge if another field
// is longer than 32 KiB, names the field and holds nothing of its content.
func Validate(t Token) error { return rules.Validate(t.Fields()) }

// Select returns the index of the record that like describes, by the rules in
// the package documentation under "Matching". records must hold every record
// that like may describe; others do no harm. The error matches ErrNotFound,
// ErrAmbiguous or ErrInvalidToken.
func Select(like Token, records []Candidate) (int, error) {
	return rules.Select(like.Fields(), of(records))
}

// Merge returns record with the fields of t laid over it: FindToken returns that,
// and SaveToken stores it. Empty fields of t keep the values of record. A new access
// token does not inherit the expiry of the old one. The ID stays, and so do the user
// and client of a record that has a user.
func Merge(record, t Token) Token { return FromFields(rules.Merge(record.Fields(), t.Fields())) }

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
	p, err := rules.PlanSave(t.Fields(), of(records))
	if err != nil {
		return Plan{}, err
	}
	return Plan{Record: p.Record, Absorb: p.Absorb, Token: FromFields(p.Fields), Changed: p.Action != rules.Nothing}, nil
}

// Fresh reports whether t has an access token other than stale that has not
// expired at the given time, as far as is known.
func Fresh(t Token, stale Secret, at time.Time) bool {
	return rules.Fresh(t.Fields(), string(stale), at)
}

// A RefreshPlan is what becomes of a record once mint has returned.
type RefreshPlan struct {
	// Token is what the record is to be.
	Token Token

	// Changed is false if Token is what the record is already.
	Changed bool

	// Again means that what mint returned is not the record's, and that the
	// record has no fresh access token: the refresh begins again, for Token.
	Again bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p RefreshPlan) Format(f fmt.State, verb rune) {
	type plain RefreshPlan
	printAs(f, verb, plain(p), "RefreshPlan")
}

// PlanRefresh decides what becomes of a record that mint was called for, by the
// rules in the package documentation under "Refreshing". used is the record as
// mint saw it, now the record that has its ID now, minted what mint returned, and
// stale what the caller of Refresh takes for useless at the given time. Stores
// outside this package use it as they use PlanSave.
//
// A field that was saved since mint saw the record stays, except an access token
// that is not fresh.
func PlanRefresh(used, now, minted Token, stale Secret, at time.Time) RefreshPlan {
	p := rules.PlanRefresh(used.Fields(), now.Fields(), minted.Fields(), string(stale), at)
	return RefreshPlan{Token: FromFields(p.Fields), Changed: p.Changed, Again: p.Again}
}
