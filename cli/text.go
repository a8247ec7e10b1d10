package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/tokenkeep/tokenkeep/cli/internal/display"
)

// A table is text in aligned columns. A wide character, such as a Chinese one, takes two columns.
type table struct {
	indent string
	rows   [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String returns the table with two spaces between columns. Lines do not end in spaces.
func (t *table) String() string {
	var widths []int
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	var b strings.Builder
	for _, r := range t.rows {
		line := t.indent
		for i, cell := range r {
			line += cell + strings.Repeat(" ", widths[i]-width(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// wrapText breaks text into lines of at most 80 columns, but does not break words. The first line
// keeps the indentation of text, and the other lines begin with indent.
func wrapText(text, indent string) string {
	const columns = 80
	var b strings.Builder
	line := text[:len(text)-len(strings.TrimLeft(text, " "))]
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case width(line)+1+width(word) > columns:
			b.WriteString(line + "\n")
			line = indent + word
		default:
			line += " " + word
		}
	}
	return b.String() + line + "\n"
}

// width returns the number of columns that s takes on a terminal.
func width(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case unicode.Is(unicode.Mn, r):
		case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana), r >= 0xff01 && r <= 0xff60:
			n += 2
		default:
			n++
		}
	}
	return n
}

func clean(s string) string { return display.Clean(s) }

// orDash returns s for display, or "-" if s is empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

// shorten returns s or, if s is too long for a column, its beginning and its end.
func shorten(s string) string {
	const longest, head, tail = 20, 6, 4 // in characters; a Zoho record with a derived ID fits 80 columns
	r := []rune(s)
	if len(r) <= longest {
		return s
	}
	return string(r[:head]) + "…" + string(r[len(r)-tail:])
}

// relative returns the time from now to t: "in 52m", "3d ago", or "-" if t is zero.
func relative(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := t.Sub(now)
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}
