package rules

import (
	"cmp"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// An Action is what a save does.
type Action int

// The actions.
const (
	Nothing  Action = iota // the record is what is to be stored
	Create                 // there is no record: one is created
	Change                 // the record is changed
	GiveUser               // a record without a user becomes the user's, or part of the user's
)

// A Plan is what a save is going to do.
type Plan struct {
	Action Action

	// Fields are what is to be stored. When a record is created, the ID is the one
	// that the caller chose, or empty.
	codec.Fields

	// Record is the index of the record that the token is merged into, or -1 if one
	// is created.
	Record int

	// Absorb are the indices of records without a user that hold the same token as
	// Record. They are merged into it and removed.
	Absorb []int

	// Gives is the index of the record that gets a user, if that is the Action:
	// Record, or the one in Absorb.
	Gives int
}

// PlanSave decides what saving t does. records must hold every record that t may
// describe by its ID, user, or tokens; others do no harm. The error matches
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

// planCreate is the plan for a token that no record matches.
func planCreate(t codec.Fields) (Plan, error) {
	if !HasCredential(t) {
		if t.ID == "" && t.UserName == "" {
			return Plan{}, fmt.Errorf("%w: it has neither an ID, nor a user, nor a token", ErrInvalidToken)
		}
		return Plan{}, fmt.Errorf("%w: and there is no access, refresh or grant token to create a record with", driver.ErrNotFound)
	}
	return Plan{Action: Create, Fields: t, Record: -1}, nil
}

// planMerge is the plan for a token that is merged into a record, together with the
// records in absorb.
func planMerge(t codec.Fields, into int, absorb []int, records []Candidate) Plan {
	record := records[into]
	p := Plan{Fields: record.Fields, Record: into, Absorb: absorb}
	for _, i := range absorb {
		p.Fields = Absorb(p.Fields, records[i].Fields)
	}
	if t.ID == "" && t.UserName == "" {
		// What the record was found by is an earlier value, not news.
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

// keep chooses, of the records that match a token to be saved, the one that
// stays. The rest hold the same token without a user, and are absorbed.
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

// sameIdentity returns the records without a user that hold the token which t would
// be named by. It finds more than matching: tokens to which row 4 applies, and what
// a search has not caught up with. An access token is one client's alone: if only
// records of other clients hold it, those are returned, for belong to refuse.
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

// belong reports whether t can be merged into record: the user and the client
// that t has are the record's, or the record has no user yet.
func belong(record, t codec.Fields) error {
	if t.UserName != "" && record.UserName != "" && t.UserName != record.UserName {
		return fmt.Errorf("%w: the record %q is another user's", ErrIDMismatch, record.ID)
	}
	if t.ClientID != "" && t.ClientID != record.ClientID && (record.UserName != "" || record.ClientID != "") {
		return fmt.Errorf("%w: the record %q is another client's", ErrIDMismatch, record.ID)
	}
	return nil
}
