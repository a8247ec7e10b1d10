package rowset

import (
	"slices"
	"strconv"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An Index finds the rows of a View that a token may describe, so that what is
// saved in bulk is not compared with every row.
type Index struct {
	view *View
	rows map[string][]int
}

// Index returns an index of v. Rows that are added to v, or changed, have to be
// added to it.
func (v *View) Index() *Index {
	x := &Index{v, map[string][]int{}}
	for i := range v.Records {
		x.Add(i)
	}
	return x
}

// Add adds the i-th row as it is now. It is found by what it had before, too,
// which does no harm.
func (x *Index) Add(i int) {
	for _, key := range keys(x.view.Records[i].Token) {
		if !slices.Contains(x.rows[key], i) {
			x.rows[key] = append(x.rows[key], i)
		}
	}
}

// keys returns all that a record is known by.
func keys(t tokenstore.Token) []string {
	var all []string
	for i, value := range []string{t.ID, t.UserName, string(t.AccessToken), string(t.RefreshToken), string(t.GrantToken)} {
		if value != "" {
			all = append(all, strconv.Itoa(i)+value)
		}
	}
	return all
}

// Plan is that of the View.
func (x *Index) Plan(t tokenstore.Token) (tokenstore.Plan, error) {
	var rows []int
	for _, key := range keys(t) {
		rows = append(rows, x.rows[key]...)
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	var part View
	for _, i := range rows {
		part.Records = append(part.Records, x.view.Records[i])
		part.Damage = append(part.Damage, x.view.Damage[i])
	}
	p, err := part.Plan(t)
	if err != nil || p.Record < 0 {
		return p, err
	}
	p.Record = rows[p.Record]
	p.Absorb = slices.Clone(p.Absorb)
	for i := range p.Absorb {
		p.Absorb[i] = rows[p.Absorb[i]]
	}
	return p, nil
}

// Store notes that c is in the i-th row now. The row after the last one is a new
// one.
func (x *Index) Store(i int, c tokenstore.Candidate) {
	v := x.view
	if i == len(v.Records) {
		v.Records = append(v.Records, c)
		v.Damage = append(v.Damage, nil)
	}
	v.Records[i] = c
	x.Add(i)
}
