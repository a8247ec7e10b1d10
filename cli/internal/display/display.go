// Package display prepares strings for a terminal.
package display

import (
	"strconv"
	"unicode"
)

// Clean returns s for display on a terminal, with invisible characters and
// control characters quoted.
func Clean(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.QuoteToGraphic(s)
		}
	}
	return s
}
