// Package duplicates finds records that are the same: they have an identity in common
// that only one record should have.
package duplicates

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Kinds are the kinds of identities: a user and client, a grant token and client, a
// refresh token and client, an access token, an ID. The first byte of an identity is
// its kind.
const Kinds = "ugrai"

// A Group is a set of records with one identity in common.
type Group struct {
	Identity string
	Members  []int
}

// Groups returns the groups of two or more records. The i-th list of identities is that
// of the i-th record. Groups come in the order of Kinds, because records that are
// merged for their user are not reported for a token. Within a kind, order decides.
func Groups(identities [][]string, order func(a, b Group) int) []Group {
	members := map[string][]int{}
	for i, of := range identities {
		for _, identity := range of {
			members[identity] = append(members[identity], i)
		}
	}
	maps.DeleteFunc(members, func(_ string, of []int) bool { return len(of) < 2 })
	groups := make([]Group, 0, len(members))
	for identity, of := range members {
		groups = append(groups, Group{identity, of})
	}
	rank := func(g Group) int { return strings.IndexByte(Kinds, g.Identity[0]) }
	slices.SortFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), order(a, b))
	})
	return groups
}

// Rank orders the records of a group. The others are merged into the record with the
// least rank: a record with a user, else one with a client.
func Rank(f codec.Fields) int {
	switch {
	case f.UserName != "":
		return 0
	case f.ClientID != "":
		return 1
	}
	return 2
}

// A Relation says what two records of a group are to each other.
type Relation int

// The relations.
const (
	Same        Relation = iota // one can become part of the other
	SameID                      // two records have one ID
	TokenShared                 // records of different users or clients hold one token
)

// Compare returns the relation of other to into. byID means that they have an ID in
// common.
func Compare(into, other codec.Fields, byID bool) Relation {
	switch {
	case rules.SameRecord(into, other):
		return Same
	case byID:
		return SameID
	}
	return TokenShared
}
