package main

import (
	"fmt"
	"io"
	"os"
	"sync"
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

	mu    sync.Mutex
	steps int
	drawn time.Time
}

// progress returns a bar for work of so many steps, or of an unknown number if all
// is 0; nil if standard error is no terminal.
func (a *app) progress(what string, all int) *bar {
	if a.json || !isTerminal(a.errs) {
		return nil
	}
	return &bar{out: a.errs, now: a.now, what: what, all: all}
}

// isTerminal reports whether w is a terminal, or a device that is as patient.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// step says that one step more is done.
func (b *bar) step() { b.add(1) }

// add says that n steps more are done.
func (b *bar) add(n int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps += n
	if now := b.now(); now.Sub(b.drawn) >= redraw {
		b.drawn = now
		_, _ = fmt.Fprintf(b.out, "\r%s: %d", b.what, b.steps)
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
