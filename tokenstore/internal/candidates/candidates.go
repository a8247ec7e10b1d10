// Package candidates holds an index of records. It decides what saving a token
// does without a comparison with each record.
package candidates

import (
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// An Index is a list of records, indexed by what a token may describe them by: the ID,
// the user, and each of the three tokens. The zero value is empty.
type Index struct {
	Records []rules.Candidate
	byKey   map[key][]int
}

// A key is the value of one field.
type key struct {
	field int
	value string
}

// keys returns the keys by which f describes records.
func keys(f codec.Fields) []key {
	var all []key
	for field, value := range []string{f.ID, f.UserName, f.AccessToken, f.RefreshToken, f.GrantToken} {
		if value != "" {
			all = append(all, key{field, value})
		}
	}
	return all
}

// Put makes c the i-th record, or a new one if i is the number of records. Near still
// finds the record by its earlier values, which does no harm because Plan compares.
func (x *Index) Put(i int, c rules.Candidate) {
	if x.byKey == nil {
		x.byKey = map[key][]int{}
	}
	if i == len(x.Records) {
		x.Records = append(x.Records, c)
	}
	x.Records[i] = c
	for _, k := range keys(c.Fields) {
		if !slices.Contains(x.byKey[k], i) {
			x.byKey[k] = append(x.byKey[k], i)
		}
	}
}

// Near returns the indices of the records that f may describe, in their order.
func (x *Index) Near(f codec.Fields) []int {
	var found []int
	for _, k := range keys(f) {
		found = append(found, x.byKey[k]...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// Plan returns the plan of rules.PlanSave for f and all records.
func (x *Index) Plan(f codec.Fields) (rules.Plan, error) {
	near := x.Near(f)
	candidates := make([]rules.Candidate, 0, len(near))
	for _, i := range near {
		candidates = append(candidates, x.Records[i])
	}
	p, err := rules.PlanSave(f, candidates)
	if err != nil || p.Record < 0 {
		return p, err
	}
	p.Record = near[p.Record]
	if p.Action == rules.GiveUser {
		p.Gives = near[p.Gives]
	}
	p.Absorb = slices.Clone(p.Absorb)
	for i := range p.Absorb {
		p.Absorb[i] = near[p.Absorb[i]]
	}
	return p, nil
}
