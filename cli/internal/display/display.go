// Package display prepares strings for a terminal.
package display

import (
	"strconv"
	"unicode"
)

// Clean returns s if a terminal can show all its characters. Otherwise, it returns s as a quoted
// Go string, with control characters and invisible characters escaped.
func Clean(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.QuoteToGraphic(s)
		}
	}
	return s
}
