package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A table is text in columns, aligned also where characters are two columns wide.
type table struct {
	indent string
	rows   [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String returns the table with two spaces between its columns and none at the
// ends of its lines.
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

// wrapText breaks text into lines for a terminal. Those after the first begin with
// the indent.
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

// width returns how many columns of a terminal s takes.
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

// clean returns s as it can be shown on a terminal: what cannot be seen, and
// what would move the cursor, is quoted.
func clean(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.QuoteToGraphic(s)
		}
	}
	return s
}

// orDash returns s as it can be shown, or "-" if there is nothing to show.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

// shorten returns the beginning and the end of what is too long for a column.
func shorten(s string) string {
	const longest, head, tail = 20, 12, 4
	r := []rune(s)
	if len(r) <= longest {
		return s
	}
	return string(r[:head]) + "…" + string(r[len(r)-tail:])
}

// relative returns how far away t is: "in 52m", "3d ago", or "-" if t is zero.
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
