package driverkit

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

const maxName = 64

// LegalName reports whether s matches [a-z0-9]{1,64}, the form of a secret's name. Under a
// driver's prefix, names of any other form belong to other programs.
func LegalName(s string) bool {
	other := func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') }
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, other)
}

// Without returns the labels that are in list a but not in list b, in the order of list a. Labels
// with different nonces are different.
func Without(a, b []driver.Label) []driver.Label {
	compare := func(x, y driver.Label) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.Value, y.Value), cmp.Compare(x.Nonce, y.Nonce))
	}
	b = slices.SortedFunc(slices.Values(b), compare)
	return slices.DeleteFunc(slices.Clone(a), func(l driver.Label) bool {
		_, found := slices.BinarySearchFunc(b, l, compare)
		return found
	})
}
