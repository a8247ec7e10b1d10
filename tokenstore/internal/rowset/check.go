package rowset

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Problem is what is wrong with a record, and, if that is that it is the same as
// another, the indices of the two: Other can become part of Into if the remedy is
// tokenstore.RemedyMerge.
type Problem struct {
	tokenstore.Finding
	Into, Other int
}

// Problems returns what is wrong with the rows of the view. The place is where a
// row stands. With anyID, IDs need not be numbers.
func (v *View) Problems(place func(i int) string, anyID bool) []Problem {
	var problems []Problem
	for i, r := range v.Records {
		f := tokenstore.Finding{Name: place(i), ID: r.Token.ID, Remedy: tokenstore.RemedyManual}
		switch _, numeric := codec.IDNumber(r.Token.ID); {
		case v.Damage[i] != nil:
			f.Kind, f.Err, f.Detail = tokenstore.KindUnreadable, v.Damage[i], "part of the row cannot be read"
		case !anyID && !numeric:
			f.Kind, f.Detail = tokenstore.KindIDNotNumeric, "the SDKs fail on a record whose ID is not a number of up to ten digits"
		default:
			continue
		}
		problems = append(problems, Problem{Finding: f})
	}
	return append(problems, v.duplicates(place)...)
}

// duplicates returns which records are the same as others.
func (v *View) duplicates(place func(i int) string) []Problem {
	var problems []Problem
	gone := map[int]bool{}
	told := map[[2]int]bool{}
	for _, group := range v.groups() {
		group = slices.DeleteFunc(group, func(i int) bool { return gone[i] })
		if len(group) < 2 {
			continue
		}
		slices.SortStableFunc(group, v.better)
		into := group[0]
		for _, other := range group[1:] {
			if told[[2]int{into, other}] {
				continue
			}
			told[[2]int{into, other}] = true
			p := Problem{Finding: v.same(into, other, place), Into: into, Other: other}
			gone[other] = p.Remedy == tokenstore.RemedyMerge
			problems = append(problems, p)
		}
	}
	return problems
}

// groups returns the records that have something in common which only one should
// have: a user and client first, then a token and client, an access token, an ID.
func (v *View) groups() [][]int {
	type key struct {
		rank          int
		value, client string
	}
	groups := map[key][]int{}
	for i, r := range v.Records {
		if v.Damage[i] != nil {
			continue
		}
		t := r.Token
		for rank, k := range []key{
			{value: t.UserName, client: t.ClientID},
			{value: string(t.GrantToken), client: t.ClientID},
			{value: string(t.RefreshToken), client: t.ClientID},
			{value: string(t.AccessToken)},
			{value: t.ID},
		} {
			if k.value != "" {
				k.rank = rank
				groups[k] = append(groups[k], i)
			}
		}
	}
	var keys []key
	for k, group := range groups {
		if len(group) > 1 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(groups[a][0], groups[b][0]), cmp.Compare(groups[a][1], groups[b][1]))
	})
	sorted := make([][]int, 0, len(keys))
	for _, k := range keys {
		sorted = append(sorted, groups[k])
	}
	return sorted
}

// better orders records by which of them the others become part of: one with a
// user, else with a client, else the newest.
func (v *View) better(i, j int) int {
	a, b := v.Records[i], v.Records[j]
	rank := func(t tokenstore.Token) int {
		switch {
		case t.UserName != "":
			return 0
		case t.ClientID != "":
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a.Token), rank(b.Token)), b.Updated.Compare(a.Updated))
}

// same says in which way the record other is the same as into.
func (v *View) same(into, other int, place func(i int) string) tokenstore.Finding {
	a, b := v.Records[into].Token, v.Records[other].Token
	f := tokenstore.Finding{Name: place(other), ID: b.ID, Kind: tokenstore.KindTokenShared, Remedy: tokenstore.RemedyManual}
	switch {
	case tokenstore.SameRecord(a, b):
		f.Kind, f.Remedy, f.Action = tokenstore.KindDuplicate, tokenstore.RemedyMerge, "merge them"
		f.Detail = fmt.Sprintf("it is the same as %q (%s)", a.ID, place(into))
	case a.ID == b.ID:
		f.Kind = tokenstore.KindDuplicateID
		f.Detail = fmt.Sprintf("%s has the ID %q too", place(into), a.ID)
	default:
		f.Detail = fmt.Sprintf("%q (%s), of another user or client, holds the same token", a.ID, place(into))
	}
	return f
}
