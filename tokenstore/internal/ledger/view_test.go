package ledger

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

func TestRetry(t *testing.T) {
	t.Parallel()
	lost := Lost(driver.ErrConflict)
	final := errors.New("final")
	for what, c := range map[string]struct {
		answers []error // errors that the attempts return
		fresh   []bool  // whether the Views of the attempts read the newest states
		waits   int
		want    error
	}{
		"done at once":              {[]error{nil}, []bool{false}, 0, nil},
		"looks again without pause": {[]error{ErrLookAgain, nil}, []bool{false, true}, 0, nil},
		"looks again, then loses":   {[]error{ErrLookAgain, lost, nil}, []bool{false, true, true}, 1, nil},
		"loses each attempt":        {[]error{lost, lost, lost}, []bool{false, true, true}, 2, driver.ErrConflict},
		"another error ends it":     {[]error{lost, final}, []bool{false, true}, 1, final},
	} {
		l := New(nothing{}, Config{Attempts: 3, Logger: slog.New(slog.DiscardHandler)})
		waits := 0
		l.Wait = func(context.Context, time.Duration) error { waits++; return nil }
		var fresh []bool
		err := l.Retry(t.Context(), "test", func(v *View) error {
			fresh = append(fresh, v.Fresh())
			return c.answers[len(fresh)-1]
		})
		if !errors.Is(err, c.want) || Retryable(err) || !slices.Equal(fresh, c.fresh) || waits != c.waits {
			t.Errorf("%s: error %v, views %v, %d pauses; want error %v, views %v, %d pauses", what, err, fresh, waits, c.want, c.fresh, c.waits)
		}
	}
}
