package main

import (
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An index holds records, so that it can be decided what saving a token to them
// does without a look at all of them. What is decided, package tokenstore says.
type index struct {
	records []tokenstore.Candidate
	byKey   map[string][]int
}

func newIndex(tokens ...tokenstore.Token) *index {
	x := &index{byKey: map[string][]int{}}
	for _, t := range tokens {
		x.add(t)
	}
	return x
}

// add adds a record. Of two, the one that was added later is the newer one.
func (x *index) add(t tokenstore.Token) {
	x.records = append(x.records, tokenstore.Candidate{})
	x.change(len(x.records)-1, t)
}

// change puts a record in the place of the i-th. It is found by what that was
// known by, too.
func (x *index) change(i int, t tokenstore.Token) {
	x.records[i] = tokenstore.Candidate{Token: t, Updated: time.UnixMilli(int64(i))}
	for _, key := range identities(t) {
		if !slices.Contains(x.byKey[key], i) {
			x.byKey[key] = append(x.byKey[key], i)
		}
	}
}

// near returns the records that t may describe.
func (x *index) near(t tokenstore.Token) []int {
	var found []int
	for _, key := range identities(t) {
		found = append(found, x.byKey[key]...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// plan returns what saving t would do. The numbers in it are those of records.
func (x *index) plan(t tokenstore.Token) (tokenstore.Plan, error) {
	near := x.near(t)
	candidates := make([]tokenstore.Candidate, 0, len(near))
	for _, i := range near {
		candidates = append(candidates, x.records[i])
	}
	p, err := tokenstore.PlanSave(t, candidates)
	if err != nil || p.Record < 0 {
		return p, err
	}
	p.Record = near[p.Record]
	p.Absorb = slices.Clone(p.Absorb)
	for i := range p.Absorb {
		p.Absorb[i] = near[p.Absorb[i]]
	}
	return p, nil
}

// identities returns what records that may be the same have in common.
func identities(t tokenstore.Token) []string {
	var keys []string
	for _, k := range []struct{ kind, value string }{
		{"id", t.ID}, {"user", t.UserName}, {"access", string(t.AccessToken)},
		{"refresh", string(t.RefreshToken)}, {"grant", string(t.GrantToken)},
	} {
		if k.value != "" {
			keys = append(keys, k.kind+" "+k.value)
		}
	}
	return keys
}
