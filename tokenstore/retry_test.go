package tokenstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A busy is a driver whose first updates fail with ErrConflict.
type busy struct {
	*faulty
	left    atomic.Int64 // number of further updates that fail
	updates atomic.Int64 // number of updates so far
}

func (b *busy) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	b.updates.Add(1)
	if b.left.Add(-1) >= 0 {
		return "", fmt.Errorf("%w: another writer", driver.ErrConflict)
	}
	return b.faulty.Update(ctx, name, base, p)
}

// contended returns a store that holds Ann's record, and the driver of the store. The parameter
// lose is the number of further updates of the driver that fail with ErrConflict.
func contended(t *testing.T, lose int64, opts *tokenstore.Options) (*tokenstore.Store, *busy) {
	t.Helper()
	b := &busy{faulty: newFaulty()}
	s := storeOn(t, b, opts)
	saved(t, s, annsToken)
	b.left.Store(lose)
	return s, b
}

const always = 1 << 40

func TestSaveTokenConflict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b := contended(t, 5, nil)
		got := saved(t, s, annsNews)
		if n := b.updates.Load(); n != 6 {
			t.Errorf("%d attempts, want 6", n)
		}
		only(t, b.cold(t, nil), got)
		if b.count("fresh") == 0 {
			t.Error("a second attempt does not ask for the newest state")
		}
	})
}

func TestOptionsAttempts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attempts    int
		want        int64
		least, most time.Duration
	}{
		{1, 1, 0, 0},
		{2, 2, 1, 4 * time.Millisecond},
		{5, 5, 1, 60 * time.Millisecond},
		{0, 100, 10 * time.Second, 100 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			s, b := contended(t, always, &tokenstore.Options{Attempts: c.attempts, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			began := time.Now()
			_, err := s.SaveToken(t.Context(), annsNews)
			took := time.Since(began)
			if !errors.Is(err, tokenstore.ErrConflict) || errors.Is(err, tokenstore.ErrUnavailable) {
				t.Errorf("error %v, want ErrConflict", err)
			}
			if n := b.updates.Load(); n != c.want {
				t.Errorf("%d attempts, want %d", n, c.want)
			}
			if took < c.least || took > c.most {
				t.Errorf("%d attempts took %v, want %v to %v", c.want, took, c.least, c.most)
			}
			if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || leaks(text) || strings.Contains(text, "ann") {
				t.Errorf("the log is %q, want one warning without a name or a secret", text)
			}
		})
	}
}

func TestPausesBetweenAttemptsAreNotTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 10 {
			s, _ := contended(t, 8, nil)
			began := time.Now()
			saved(t, s, annsNews)
			seen[time.Since(began)] = true
		}
		if len(seen) < 9 {
			t.Errorf("ten saves with eight conflicts each took %d different times", len(seen))
		}
	})
}

func TestSaveTokenContextDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b := contended(t, always, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := s.SaveToken(ctx, annsNews)
		var e *tokenstore.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) {
			t.Errorf("error %v, want an Error with DeadlineExceeded", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it returned after %v, want 3s", took)
		}
		updates := b.updates.Load()
		<-time.After(time.Hour) // on the bubble's clock
		if n := b.updates.Load(); n != updates {
			t.Errorf("%d more attempts after it returned", n-updates)
		}
	})
}

func TestOtherErrorsAreNotTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		s := storeOn(t, f, nil)
		saved(t, s, annsToken)
		f.fault = func(op, _ string) fault {
			if op == "update" {
				return failBefore
			}
			return fine
		}
		began := time.Now()
		if _, err := s.SaveToken(t.Context(), annsNews); !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("error %v, want ErrUnavailable", err)
		}
		if n := f.count("update"); n != 1 || time.Since(began) != 0 {
			t.Errorf("%d attempts in %v, want one at once", n, time.Since(began))
		}
	})
}
