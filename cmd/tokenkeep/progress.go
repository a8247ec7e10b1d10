package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// redraw is how often progress is shown.
const redraw = 100 * time.Millisecond

// A bar shows how far long work has got, on a terminal. A nil *bar shows nothing.
type bar struct {
	out  io.Writer
	now  func() time.Time
	what string
	all  int

	drawn time.Time // when it was shown last
}

// progress returns a bar for work of so many steps, or of an unknown number if all
// is 0; nil if standard error is not a terminal.
func (a *app) progress(what string, all int) *bar {
	if a.json || !isTerminal(a.errs) {
		return nil
	}
	return &bar{out: a.errs, now: a.now, what: what, all: all}
}

// isTerminal reports whether w is a character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// set says that n steps are done by now.
func (b *bar) set(n int) {
	if b == nil {
		return
	}
	if now := b.now(); now.Sub(b.drawn) >= redraw {
		b.drawn = now
		_, _ = fmt.Fprintf(b.out, "\r%s: %d", b.what, n)
		if b.all > 0 {
			_, _ = fmt.Fprintf(b.out, " of %d", b.all)
		}
	}
}

// done removes the bar.
func (b *bar) done() {
	if b != nil && !b.drawn.IsZero() {
		_, _ = fmt.Fprint(b.out, "\r\x1b[K")
	}
}
