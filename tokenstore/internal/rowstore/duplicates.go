package rowstore

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// duplicates returns which records are the same as others.
func (r *Rows) duplicates() []problem {
	var problems []problem
	gone := map[int]bool{}
	told := map[[2]int]bool{}
	for _, group := range r.groups() {
		group = slices.DeleteFunc(group, func(i int) bool { return gone[i] })
		if len(group) < 2 {
			continue
		}
		slices.SortStableFunc(group, r.better)
		into := group[0]
		for _, other := range group[1:] {
			if told[[2]int{into, other}] {
				continue
			}
			told[[2]int{into, other}] = true
			p := problem{Finding: r.same(into, other), into: into, other: other}
			gone[other] = p.mergeable()
			problems = append(problems, p)
		}
	}
	return problems
}

// groups returns the records that have something in common which only one should
// have: a user and client first, then a token and client, an access token, an ID.
func (r *Rows) groups() [][]int {
	type key struct {
		rank          int
		value, client string
	}
	groups := map[key][]int{}
	for i, c := range r.records {
		if r.damage[i] != nil {
			continue
		}
		t := c.Token
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
func (r *Rows) better(i, j int) int {
	a, b := r.records[i], r.records[j]
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
func (r *Rows) same(into, other int) tokenstore.Finding {
	a, b := r.records[into].Token, r.records[other].Token
	f := tokenstore.Finding{Name: r.places[other], ID: b.ID, Kind: tokenstore.KindTokenShared, Remedy: tokenstore.RemedyManual}
	switch {
	case tokenstore.SameRecord(a, b):
		f.Kind, f.Remedy, f.Action = tokenstore.KindDuplicate, tokenstore.RemedyMerge, "merge them"
		f.Detail = fmt.Sprintf("it is the same as %q (%s)", a.ID, r.places[into])
	case a.ID == b.ID:
		f.Kind = tokenstore.KindDuplicateID
		f.Detail = fmt.Sprintf("%s has the ID %q too", r.places[into], a.ID)
	default:
		f.Detail = fmt.Sprintf("%q (%s), of another user or client, holds the same token", a.ID, r.places[into])
	}
	return f
}
