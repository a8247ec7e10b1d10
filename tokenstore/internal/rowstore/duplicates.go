package rowstore

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/duplicates"
)

// duplicates returns which records are the same as others.
func (r *Rows) duplicates() []problem {
	identities := make([][]string, len(r.records))
	for i := range r.records {
		identities[i] = r.identities(i)
	}
	var problems []problem
	gone := map[int]bool{}
	told := map[[2]int]bool{}
	for _, g := range duplicates.Groups(identities, func(a, b duplicates.Group) int { return slices.Compare(a.Members, b.Members) }) {
		group := slices.DeleteFunc(g.Members, func(i int) bool { return gone[i] })
		slices.SortStableFunc(group, func(i, j int) int {
			a, b := r.records[i], r.records[j]
			return cmp.Or(cmp.Compare(duplicates.Rank(a.Fields), duplicates.Rank(b.Fields)), b.Updated.Compare(a.Updated))
		})
		for n, other := range group {
			into := group[0]
			if n == 0 || told[[2]int{into, other}] {
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

// identities returns the identities of a record, or none if it cannot be read.
func (r *Rows) identities(i int) (all []string) {
	f := r.records[i]
	for kind, of := range map[string][2]string{
		"u": {f.UserName, f.ClientID},
		"g": {f.GrantToken, f.ClientID},
		"r": {f.RefreshToken, f.ClientID},
		"a": {f.AccessToken},
		"i": {f.ID},
	} {
		if of[0] != "" && r.damage[i] == nil {
			all = append(all, kind+strconv.Quote(of[0])+of[1])
		}
	}
	return all
}

// same returns the finding that the record other is the same as into.
func (r *Rows) same(into, other int) doctor.Finding {
	a, b := r.records[into].Fields, r.records[other].Fields
	f := doctor.Finding{Name: r.places[other], ID: b.ID, Remedy: doctor.RemedyManual}
	switch duplicates.Compare(a, b, a.ID == b.ID) {
	case duplicates.Same:
		f.Kind, f.Remedy, f.Action = doctor.KindDuplicate, doctor.RemedyMerge, "merge them"
		f.Detail = fmt.Sprintf("it is the same as %q (%s)", a.ID, r.places[into])
	case duplicates.SameID:
		f.Kind = doctor.KindDuplicateID
		f.Detail = fmt.Sprintf("%s has the ID %q too", r.places[into], a.ID)
	case duplicates.TokenShared:
		f.Kind = doctor.KindTokenShared
		f.Detail = fmt.Sprintf("%q (%s), of another user or client, holds the same token", a.ID, r.places[into])
	}
	return f
}
