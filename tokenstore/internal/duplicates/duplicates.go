// Package duplicates finds records with a common identity. Each identity should belong to only one
// record.
package duplicates

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Kinds lists the kinds of identities in the order of Groups. The kinds are a user and
// client, a grant token and client, a refresh token and client, an access token, and an ID.
// The first byte of an identity is its kind.
const Kinds = "ugrai"

// A Group is a set of records that share one identity. Members are the indices of the
// records.
type Group struct {
	Identity string
	Members  []int
}

// Groups returns the groups of two or more records. identities[i] lists the identities of the i-th
// record. The groups are in the order of Kinds, so that callers can merge the records of a user
// before the records with a common token. The function order compares two groups of one kind.
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

// Rank returns the rank of the record f in its group. A record with the lowest rank is kept, and
// the other records are merged into it. Records with a user rank first, then records with a client,
// then all others.
func Rank(f codec.Fields) int {
	switch {
	case f.UserName != "":
		return 0
	case f.ClientID != "":
		return 1
	}
	return 2
}

// A Relation is the relation between two records of a group.
type Relation int

// Results of Compare.
const (
	Same        Relation = iota // the records can be merged
	SameID                      // the records have the same ID
	TokenShared                 // records of different users or clients have the same token
)

// Compare returns Same if the second record can be merged into the first record, and otherwise the
// reason why it cannot. byID must be set if the identity of the group is an ID.
func Compare(into, other codec.Fields, byID bool) Relation {
	switch {
	case rules.SameRecord(into, other):
		return Same
	case byID:
		return SameID
	}
	return TokenShared
}
