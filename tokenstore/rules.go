package tokenstore

import (
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Candidate is a record that a token may describe. A store gathers candidates in the
// way that suits it; Select and PlanSave decide between them.
type Candidate struct {
	// Token is the record.
	Token Token

	// Updated orders records by age: the newer one has the later time.
	Updated time.Time

	// Former says which fields of the token that is searched for are earlier values of
	// the record.
	Former Former
}

// Former says which fields of a token are earlier values of a record.
type Former = rules.Former

// Format prints c with its secrets redacted. See Token.Format.
func (c Candidate) Format(f fmt.State, verb rune) {
	type plain Candidate
	printAs(f, verb, plain(c), "Candidate")
}

// of converts records to the candidates of package rules.
func of(records []Candidate) []rules.Candidate {
	all := make([]rules.Candidate, len(records))
	for i, c := range records {
		all[i] = rules.Candidate{Fields: c.Token.Fields(), Updated: c.Updated, Former: c.Former}
	}
	return all
}

// Validate returns an error if a store cannot take t. All fields must be valid UTF-8
// without control characters. ID may have at most 255 bytes, and no Secret may be the
// text that a Secret prints as. ExpiresAt must be zero or lie between the years 1970
// and 9999. The error matches ErrInvalidToken, or ErrTooLarge if another field is
// longer than 32 KiB. It names the field and does not quote its content.
func Validate(t Token) error { return rules.Validate(t.Fields()) }

// Select returns the index of the record that like describes, by the rules in the
// package documentation under "Matching". records must hold every record that like may
// describe, and may hold others. The error matches ErrNotFound, ErrAmbiguous or
// ErrInvalidToken.
func Select(like Token, records []Candidate) (int, error) {
	return rules.Select(like.Fields(), of(records))
}

// Merge returns record with the fields of t laid over it. FindToken returns the result,
// and SaveToken stores it. Empty fields of t keep the values of record. A new access
// token does not inherit the expiry of the old one. The ID stays, and so do the user
// and client of a record that has a user.
func Merge(record, t Token) Token { return FromFields(rules.Merge(record.Fields(), t.Fields())) }

// A Plan describes what SaveToken does.
type Plan struct {
	// Record is the index of the record that the token is merged into, or -1 if
	// one is created.
	Record int

	// Absorb has the indices of records without a user that are merged into Record and
	// removed. They hold the same token, or are found by the ID of the token.
	Absorb []int

	// Token is the token to store. If a record is created, its ID is the caller's, or
	// empty.
	Token Token

	// Changed is false if there is nothing to write.
	Changed bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p Plan) Format(f fmt.State, verb rune) {
	type plain Plan
	printAs(f, verb, plain(p), "Plan")
}

// PlanSave decides what saving t does, by the rules in the package documentation under
// "Saving". records must hold every record that t may describe by its ID, user, or
// tokens, and may hold others. The error matches ErrInvalidToken, ErrTooLarge,
// ErrNotFound, ErrAmbiguous or ErrIDMismatch.
func PlanSave(t Token, records []Candidate) (Plan, error) {
	p, err := rules.PlanSave(t.Fields(), of(records))
	if err != nil {
		return Plan{}, err
	}
	return Plan{Record: p.Record, Absorb: p.Absorb, Token: FromFields(p.Fields), Changed: p.Action != rules.Nothing}, nil
}

// Fresh reports whether t has an access token other than stale that is not known to
// have expired at the given time.
func Fresh(t Token, stale Secret, at time.Time) bool {
	return rules.Fresh(t.Fields(), string(stale), at)
}

// A RefreshPlan describes what becomes of a record after mint has returned.
type RefreshPlan struct {
	// Token is the new state of the record.
	Token Token

	// Changed reports whether Token differs from the present state of the record.
	Changed bool

	// Again means that the token from mint is not for this record any more, and that
	// the record has no fresh access token. The refresh begins again, for Token.
	Again bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p RefreshPlan) Format(f fmt.State, verb rune) {
	type plain RefreshPlan
	printAs(f, verb, plain(p), "RefreshPlan")
}

// PlanRefresh decides what becomes of a record after mint was called for it, by the
// rules in the package documentation under "Refreshing". used is the record that mint
// was called with. now is the record that has this ID now. minted is the token that
// mint returned. stale is the access token that the caller of Refresh rejects. Stores
// outside this package use PlanRefresh like PlanSave.
//
// A field that was saved while mint ran stays, except an access token that is not fresh
// at the given time.
func PlanRefresh(used, now, minted Token, stale Secret, at time.Time) RefreshPlan {
	p := rules.PlanRefresh(used.Fields(), now.Fields(), minted.Fields(), string(stale), at)
	return RefreshPlan{Token: FromFields(p.Fields), Changed: p.Changed, Again: p.Again}
}
