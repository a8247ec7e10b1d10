package tokenstore

import (
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Candidate is a record that a token may describe. Each kind of store collects candidates
// in its own way. Select and PlanSave choose among the candidates.
type Candidate struct {
	// Token is the record.
	Token Token

	// Updated orders records by age: a newer record has a later time.
	Updated time.Time

	// Former says which fields of the token that describes the record are earlier values of
	// the record's fields.
	Former Former
}

// Former says which fields of a token are earlier values of a record.
type Former = rules.Former

// Format prints c with its secrets redacted. See Token.Format.
func (c Candidate) Format(f fmt.State, verb rune) {
	type plain Candidate
	printAs(f, verb, plain(c), "Candidate")
}

func of(records []Candidate) []rules.Candidate {
	all := make([]rules.Candidate, len(records))
	for i, c := range records {
		all[i] = rules.Candidate{Fields: c.Token.Fields(), Updated: c.Updated, Former: c.Former}
	}
	return all
}

// Validate returns an error if no store accepts t. All fields must be valid UTF-8 without
// control characters. ID may have at most 255 bytes, and no field may be "[redacted]", the
// text of a redacted Secret. ExpiresAt must be zero, or after the beginning of 1970 and
// before the year 10000. Extra must be empty or a JSON object that codec.CanonicalExtra
// accepts. The error matches ErrInvalidToken, or ErrTooLarge if Extra is larger than
// codec.MaxExtra or a field other than ID is longer than 32 KiB. The text of the error names
// the field but does not contain the value of the field.
func Validate(t Token) error { return rules.Validate(t.Fields()) }

// Select returns the index of the record that like describes, by the rules in the package
// documentation under "Matching". records must hold every record that like may describe,
// and may hold others. The error matches ErrNotFound if no record matches, and
// ErrInvalidToken if like describes nothing. The error matches ErrAmbiguous if several records
// match and no rule prefers one of them. If there is an error, the index is -1.
func Select(like Token, records []Candidate) (int, error) {
	return rules.Select(like.Fields(), of(records))
}

// Merge returns record, with the non-empty fields of t in place of its own. FindToken and
// SaveToken merge a token into a record in this way. A new access token does not inherit the
// expiry of the old access token. Merge keeps the ID of record and, if record has a user, its
// UserName, ClientID, Issuer and Resource. If record has no user, Merge replaces its Issuer or
// Resource only if that field is empty. The members of t.Extra replace those members of
// record.Extra that have the same names, and all other members of record.Extra are kept.
func Merge(record, t Token) Token {
	return FromFields(rules.Merge(record.Fields(), canonical(t)))
}

// canonical returns the fields of t, with Extra in canonical form if Extra is valid.
func canonical(t Token) codec.Fields {
	f := t.Fields()
	if extra, err := codec.CanonicalExtra(f.Extra); err == nil {
		f.Extra = extra
	}
	return f
}

// A Plan describes the effect of SaveToken on the candidates.
type Plan struct {
	// Record is the index of the record into which the token is merged, or -1 if a record
	// is created.
	Record int

	// Absorb holds the indices of records without a user that are merged into Record and
	// removed. Each of these records has or had the same ID, or the same access, refresh or
	// grant token, as the token being saved.
	Absorb []int

	// Token is the record to store. The ID of a new record is the ID of the token being
	// saved, or empty.
	Token Token

	// Changed reports whether SaveToken must write a record.
	Changed bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p Plan) Format(f fmt.State, verb rune) {
	type plain Plan
	printAs(f, verb, plain(p), "Plan")
}

// PlanSave returns the plan for saving t, by the rules in the package documentation under
// "Saving". records must hold every record that t may describe by its ID, its user or its
// tokens, and may hold others. The error matches ErrInvalidToken, ErrTooLarge, ErrNotFound,
// ErrAmbiguous or ErrIDMismatch.
func PlanSave(t Token, records []Candidate) (Plan, error) {
	p, err := rules.PlanSave(t.Fields(), of(records))
	if err != nil {
		return Plan{}, err
	}
	return Plan{Record: p.Record, Absorb: p.Absorb, Token: FromFields(p.Fields), Changed: p.Action != rules.Nothing}, nil
}

// Fresh reports whether t has an access token that differs from stale and has not expired at
// the given time. A token without ExpiresAt counts as not expired.
func Fresh(t Token, stale Secret, at time.Time) bool {
	return rules.Fresh(t.Fields(), string(stale), at)
}

// A RefreshPlan describes the new state of a record after mint has returned.
type RefreshPlan struct {
	// Token is the new state of the record.
	Token Token

	// Changed reports whether Token differs from the current state of the record.
	Changed bool

	// Again means that the token from mint does not fit the record, and that the record has
	// no fresh access token. The refresh must begin again with Token as the record.
	Again bool
}

// Format prints p with its secrets redacted. See Token.Format.
func (p RefreshPlan) Format(f fmt.State, verb rune) {
	type plain RefreshPlan
	printAs(f, verb, plain(p), "RefreshPlan")
}

// PlanRefresh returns the plan for a record after a call of mint, by the rules in the package
// documentation under "Refreshing". The parameters are:
//   - used: the record that was passed to mint
//   - now: the record with the same ID after the call
//   - minted: the token that mint returned
//   - stale: the access token that the caller of Refresh does not accept
//   - at: the current time
//
// The plan keeps each field that was saved while mint ran. The plan keeps an access token that
// was saved in that time only if Fresh(now, stale, at) returns true.
func PlanRefresh(used, now, minted Token, stale Secret, at time.Time) RefreshPlan {
	p := rules.PlanRefresh(used.Fields(), now.Fields(), canonical(minted), string(stale), at)
	return RefreshPlan{Token: FromFields(p.Fields), Changed: p.Changed, Again: p.Again}
}
