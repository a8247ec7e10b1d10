package cli

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// The minimum intervals between updates of a bar on a terminal, and between lines of a bar in a
// log.
const (
	redraw  = 100 * time.Millisecond
	logLine = 30 * time.Second
)

// A bar shows the progress of long work: in place on a terminal, and elsewhere as lines. A nil
// *bar shows nothing.
type bar struct {
	out  io.Writer
	now  func() time.Time
	what string
	all  int
	slow *slowStore // silenced once the bar is shown, because a note would overwrite the bar

	log   bool // the bar is shown as lines
	began time.Time
	drawn time.Time // when the bar was last shown
}

// progress returns a bar. The parameter all is the number of steps, or 0 if the number is unknown.
// With --json, progress returns nil. If standard error is not a terminal, the bar prints its first
// line after the duration logLine.
func (a *app) progress(what string, all int) *bar {
	if a.json {
		return nil
	}
	b := &bar{out: a.errs, now: a.now, what: what, all: all, slow: a.slow, began: a.now()}
	if !isTerminal(a.errs) {
		b.log, b.drawn = true, b.began
	}
	return b
}

// set sets the number of completed steps. It shows the bar if the duration redraw has passed since
// the last update. For a bar that is shown as lines, this duration is logLine.
func (b *bar) set(n int) {
	if b == nil {
		return
	}
	interval, form := redraw, "\r%s: %d%s\x1b[K"
	if b.log {
		interval, form = logLine, "tokenkeep: %s: %d%s\n"
	}
	if now := b.now(); now.Sub(b.drawn) >= interval {
		b.drawn = now
		b.slow.silence()
		_, _ = fmt.Fprintf(b.out, form, b.what, n, b.left(n, now.Sub(b.began)))
	}
}

// left returns a text with the total number of steps, if the number is known. After a second, the
// text also has the rate and, if steps are left, the remaining time.
func (b *bar) left(n int, passed time.Duration) string {
	text := ""
	if b.all > 0 {
		text = fmt.Sprintf(" of %d", b.all)
	}
	if passed < time.Second || n == 0 {
		return text
	}
	speed := float64(n) / passed.Seconds()
	text += fmt.Sprintf(", %.1f/s", speed)
	if b.all > n {
		rest := time.Duration(float64(b.all-n) / speed * float64(time.Second))
		text += fmt.Sprintf(", %v left", rest.Round(time.Second))
	}
	return text
}

// done removes the bar from a terminal.
func (b *bar) done() {
	if b != nil && !b.log && !b.drawn.IsZero() {
		_, _ = fmt.Fprint(b.out, "\r\x1b[K")
	}
}

// patience is the duration of a call to the store after which a slowStore prints its note.
const patience = 5 * time.Second

// A slowStore prints one note if a call to the store takes longer than patience.
type slowStore struct {
	note func(format string, args ...any)
	once sync.Once
}

// observer returns an observer that times the calls of a store.
func (s *slowStore) observer() *tokenstore.Observer {
	return &tokenstore.Observer{Call: func(ctx context.Context, _ observe.Call) (context.Context, func(observe.Called)) {
		timer := time.AfterFunc(patience, func() {
			s.once.Do(func() { s.note("waiting for the store; --timeout limits this") })
		})
		return ctx, func(observe.Called) { timer.Stop() }
	}}
}

// silence prevents the note, unless the note is already printed. If s is nil, silence does nothing.
func (s *slowStore) silence() {
	if s != nil {
		s.once.Do(func() {})
	}
}
