package refusal

import (
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/stored"
)

var now = time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.UTC)

// retriedAfter returns the time for which f applies, and checks that f applies for at least 300 ms.
func retriedAfter(t *testing.T, f *stored.Failure) time.Duration {
	t.Helper()
	for _, d := range []time.Duration{0, 300 * time.Millisecond} {
		if _, ok := Counts(f, f.Of, now.Add(d)); !ok {
			t.Errorf("it does not count %v after it was kept", d)
		}
	}
	return time.UnixMilli(f.Retry).Sub(now)
}

func TestKeep(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     Answer
		count int // number of earlier refusals
		want  time.Duration
	}{
		{"nothing said", Answer{Code: "server_error"}, 0, time.Second},
		{"nothing said, again", Answer{Code: "server_error"}, 3, 8 * time.Second},
		{"nothing said, for long", Answer{Code: "server_error"}, 50, 30 * time.Minute},
		{"a second", Answer{Code: "slow_down", RetryAfter: time.Second}, 50, time.Second},
		{"an hour", Answer{Code: "slow_down", RetryAfter: time.Hour}, 0, time.Hour},
		{"a week", Answer{Code: "slow_down", RetryAfter: 7 * 24 * time.Hour}, 2, 7 * 24 * time.Hour},
		{"a year", Answer{Code: "slow_down", RetryAfter: 365 * 24 * time.Hour}, 0, 365 * 24 * time.Hour},
		{"throttled", Answer{Code: "Access Denied"}, 0, 10 * time.Minute},
		{"throttled for a minute", Answer{Code: "Access Denied", RetryAfter: time.Minute}, 0, 10 * time.Minute},
		{"throttled for two hours", Answer{Code: "Access Denied", RetryAfter: 2 * time.Hour}, 0, 2 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			var last *stored.Failure
			if c.count > 0 {
				last = &stored.Failure{Of: "x", Count: c.count}
			}
			f := Keep(last, c.a, "x", now)
			if got := retriedAfter(t, f); got < c.want || got > c.want+time.Millisecond {
				t.Errorf("it counts for %v, want %v", got, c.want)
			}
			if _, ok := Counts(f, "x", now.Add(c.want+time.Millisecond)); ok {
				t.Error("it counts longer than that")
			}
			if _, ok := Counts(f, "y", now); ok {
				t.Error("it counts for other credentials")
			}
		})
	}
}

func TestCounts(t *testing.T) {
	f := Keep(nil, Answer{Code: "slow_down", RetryAfter: time.Hour}, "x", now)
	for _, c := range []struct {
		name string
		off  time.Duration // error of the reader's clock
		want bool
	}{
		{"by a clock that is slow", -4 * time.Minute, true},
		{"by a clock that was set back a day", -24 * time.Hour, false},
		{"by a clock that is fast", 59 * time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, ok := Counts(f, "x", now.Add(c.off))
			if ok != c.want {
				t.Errorf("it counts: %v, want %v", ok, c.want)
			}
			if ok && a.RetryAfter <= 0 {
				t.Errorf("RetryAfter is %v", a.RetryAfter)
			}
		})
	}
}
