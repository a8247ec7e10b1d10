// Package sdkid recognizes the numeric record IDs that the Zoho SDKs assign, and orders them before
// all other IDs.
package sdkid

import (
	"cmp"
	"strconv"
)

// Number returns the value of id, and reports whether an SDK could have written id. Such an ID is a
// positive decimal number without leading zeros. It has at most ten digits, the width of the column
// in the SDKs' tables. If ok is false, n is meaningless.
func Number(id string) (n int64, ok bool) {
	const digits = 10
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil && n > 0 && len(id) <= digits && strconv.FormatInt(n, 10) == id
}

// Compare returns a negative number if a sorts before b, a positive number if a sorts after b, and
// zero if a equals b. Numeric IDs come first, by value. The other IDs follow in lexical order.
func Compare(a, b string) int {
	m, isNumber := Number(a)
	n, isNumberToo := Number(b)
	switch {
	case isNumber && isNumberToo:
		return cmp.Compare(m, n)
	case isNumber:
		return -1
	case isNumberToo:
		return 1
	}
	return cmp.Compare(a, b)
}
