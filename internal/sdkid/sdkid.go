// Package sdkid distinguishes the numeric IDs of the Zoho SDKs from other IDs.
package sdkid

import (
	"cmp"
	"strconv"
)

// Number returns the number that an ID is, if an SDK could have written it. Such a
// number has at most ten digits, because the tables of the SDKs have room for no more.
func Number(id string) (n int64, ok bool) {
	const digits = 10
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil && n > 0 && len(id) <= digits && strconv.FormatInt(n, 10) == id
}

// Compare orders IDs as people expect: numbers by size, and then the other IDs.
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
