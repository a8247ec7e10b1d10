package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// redraw is the minimum interval between updates of a progress bar.
const redraw = 100 * time.Millisecond

// A bar shows the progress of long work on a terminal. A nil *bar shows nothing.
type bar struct {
	out  io.Writer
	now  func() time.Time
	what string
	all  int
	slow *slowStore // silenced once the bar is shown, because a note would overwrite the bar

	began time.Time
	drawn time.Time // when the bar was last shown
}

// progress returns a bar for the number of steps in all; 0 means that the number is unknown. It
// returns nil with --json, or if standard error is not a terminal.
func (a *app) progress(what string, all int) *bar {
	if a.json || !isTerminal(a.errs) {
		return nil
	}
	return &bar{out: a.errs, now: a.now, what: what, all: all, slow: a.slow, began: a.now()}
}

// isTerminal reports whether stream is a file that is a character device other than the null
// device, which ends at once and shows nothing.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// set sets the number of completed steps, and redraws the bar at most once in each interval
// redraw.
func (b *bar) set(n int) {
	if b == nil {
		return
	}
	if now := b.now(); now.Sub(b.drawn) >= redraw {
		b.drawn = now
		b.slow.silence()
		_, _ = fmt.Fprintf(b.out, "\r%s: %d%s\x1b[K", b.what, n, b.left(n, now.Sub(b.began)))
	}
}

// left returns a text with the total number of steps, if it is known. After a second, the text
// also has the rate and the remaining time.
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

// done removes the bar.
func (b *bar) done() {
	if b != nil && !b.drawn.IsZero() {
		_, _ = fmt.Fprint(b.out, "\r\x1b[K")
	}
}

// patience is the duration of a call to the store after which a slowStore prints its note.
const patience = 5 * time.Second

// A slowStore prints one note if a call to the store takes longer than patience. A nil
// *slowStore prints nothing.
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

// silence prevents a note that was not yet printed.
func (s *slowStore) silence() {
	if s != nil {
		s.once.Do(func() {})
	}
}
