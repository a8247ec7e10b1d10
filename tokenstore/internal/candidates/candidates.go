// Package candidates implements an index of records. With the index, a save compares its
// token only with the records that the token may describe.
package candidates

import (
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// An Index indexes records by the fields that can match those of a token: the ID, the user and
// each of the three tokens. The zero value is an empty Index.
type Index struct {
	Records []rules.Candidate
	keys    [keys]map[string]int // by field and value: the index in links of the last link
	links   []link
}

// A link is an element of a list of records that have, or had, the same value of a field.
type link struct{ record, next int }

// keys is the number of indexed fields.
const keys = 5

// keysOf returns the values of the indexed fields. An empty value matches no record.
func keysOf(f *codec.Fields) [keys]string {
	return [keys]string{f.ID, f.UserName, f.AccessToken, f.RefreshToken, f.GrantToken}
}

// New returns an Index of records. The Index and the caller share the slice.
func New(records []rules.Candidate) Index {
	x := Index{Records: records, links: make([]link, 1, 1+keys*len(records))}
	for k := range x.keys {
		x.keys[k] = make(map[string]int, len(records))
	}
	for i := range records {
		for k, value := range keysOf(&records[i].Fields) {
			x.link(k, value, i)
		}
	}
	return x
}

// link adds the i-th record to the list of the records with value in the k-th field. Link 0
// ends every list.
func (x *Index) link(k int, value string, i int) {
	if value == "" {
		return
	}
	if x.keys[k] == nil {
		x.keys[k] = map[string]int{}
	}
	if x.links == nil {
		x.links = make([]link, 1)
	}
	x.links = append(x.links, link{i, x.keys[k][value]})
	x.keys[k][value] = len(x.links) - 1
}

// linked yields the indices of the records that have, or had, value in the k-th field, the
// most recently linked first.
func (x *Index) linked(k int, value string) iter.Seq[int] {
	return func(yield func(int) bool) {
		for at := x.keys[k][value]; at != 0 && yield(x.links[at].record); {
			at = x.links[at].next
		}
	}
}

// Put replaces the i-th record with c, or appends c if i is the number of records. Near still finds
// the record by its earlier values. Select and Plan compare the fields, and therefore ignore the
// record if only an earlier value matches.
func (x *Index) Put(i int, c rules.Candidate) {
	isNew := i == len(x.Records)
	if isNew {
		x.Records = append(x.Records, rules.Candidate{})
	}
	was := keysOf(&x.Records[i].Fields)
	x.Records[i] = c
	for k, value := range keysOf(&c.Fields) {
		// A value that the record had before is already linked.
		if value != was[k] && (isNew || !has(x.linked(k, value), i)) {
			x.link(k, value, i)
		}
	}
}

func has(all iter.Seq[int], i int) bool {
	for j := range all {
		if i == j {
			return true
		}
	}
	return false
}

// Near returns the indices of all records that f may describe, and possibly of others, in
// increasing order.
func (x *Index) Near(f codec.Fields) []int {
	var found []int
	for k, value := range keysOf(&f) {
		if value != "" {
			found = slices.AppendSeq(found, x.linked(k, value))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (x *Index) near(f codec.Fields) (near []int, candidates []rules.Candidate) {
	near = x.Near(f)
	candidates = make([]rules.Candidate, 0, len(near))
	for _, i := range near {
		candidates = append(candidates, x.Records[i])
	}
	return near, candidates
}

// Select returns the result of rules.Select for f and all records.
func (x *Index) Select(f codec.Fields) (int, error) {
	near, candidates := x.near(f)
	i, err := rules.Select(f, candidates)
	if err != nil {
		return -1, err
	}
	return near[i], nil
}

// Plan returns the result of rules.PlanSave for f and all records.
func (x *Index) Plan(f codec.Fields) (rules.Plan, error) {
	near, candidates := x.near(f)
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
