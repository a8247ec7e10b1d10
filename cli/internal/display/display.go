// Package display prepares strings for a terminal.
package display

import (
	"strconv"
	"unicode"
)

// Clean returns s if all its characters are printable. Otherwise, Clean returns s as a quoted Go
// string, with control characters, invisible characters and invalid UTF-8 escaped.
func Clean(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.QuoteToGraphic(s)
		}
	}
	return s
}
