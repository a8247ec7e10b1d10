package rowstore

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/duplicates"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// duplicates returns the problems of records that share an identity with another record.
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

// identities returns the identities of the i-th record: its user and client, its tokens, and its
// ID. The result is nil if the record cannot be read.
func (r *Rows) identities(i int) (all []string) {
	f := r.records[i]
	client := rules.ClientOf(f.Fields)
	for kind, of := range map[string]struct {
		value string
		of    rules.Client
	}{
		"u": {f.UserName, client},
		"g": {f.GrantToken, client},
		"r": {f.RefreshToken, client},
		"a": {value: f.AccessToken},
		"i": {value: f.ID},
	} {
		if of.value != "" && r.damage[i] == nil {
			all = append(all, fmt.Sprintf("%s%q%q", kind, of.value, of.of))
		}
	}
	return all
}

// same returns the finding about two records that share an identity. The parameters are the index
// of the record to keep and the index of the other record.
func (r *Rows) same(into, other int) doctor.Finding {
	a, b := r.records[into].Fields, r.records[other].Fields
	f := doctor.Finding{Name: r.Place(other), ID: b.ID, Remedy: doctor.RemedyManual}
	switch duplicates.Compare(a, b, a.ID == b.ID) {
	case duplicates.Same:
		f.Kind, f.Remedy, f.Action = doctor.KindDuplicate, doctor.RemedyMerge, "merge them"
		f.Detail = fmt.Sprintf("it is the same as %q (%s)", a.ID, r.Place(into))
	case duplicates.SameID:
		f.Kind = doctor.KindDuplicateID
		f.Detail = fmt.Sprintf("%s has the ID %q too", r.Place(into), a.ID)
	case duplicates.TokenShared:
		f.Kind = doctor.KindTokenShared
		f.Detail = fmt.Sprintf("%q (%s), of another user or client, holds the same token", a.ID, r.Place(into))
	}
	return f
}
