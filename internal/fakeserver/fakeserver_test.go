package fakeserver_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

func TestClock(t *testing.T) {
	t.Parallel()
	var real, c fakeserver.Clock
	if d := time.Since(real.Now()); d < 0 || d > time.Minute {
		t.Errorf("the zero Clock is off by %v", d)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c.SetClock(func() time.Time { return start })
	c.Advance(time.Hour)
	if got := c.Now(); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("Now is %v", got)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	var l fakeserver.Log[string, int]
	get := func(text string) *int { return l.Receive(&text) }
	l.Inject(func(r *string) *int {
		if *r == "bad" {
			return new(int)
		}
		return nil
	})
	if get("good") != nil || get("bad") == nil {
		t.Error("Receive does not return the fault that f chooses")
	}
	l.Inject(nil)
	if get("bad") != nil {
		t.Error("Receive returns a fault without an f")
	}
	if got := l.Requests(); !slices.Equal(got, []string{"good", "bad", "bad"}) {
		t.Errorf("Requests returns %q", got)
	}
	if n := l.CountBy(func(r string) string { return r }); n["bad"] != 2 || n["good"] != 1 {
		t.Errorf("CountBy returns %v", n)
	}
	if l.Reset(); len(l.Requests()) != 0 {
		t.Error("Reset leaves requests")
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	close(closed)
	ctx, cancel := context.WithCancel(t.Context())
	if !fakeserver.Await(ctx, nil) || !fakeserver.Await(ctx, closed) {
		t.Error("Await does not return true for nil or a closed channel")
	}
	if cancel(); fakeserver.Await(ctx, make(chan struct{})) {
		t.Error("Await returns true after its context has ended")
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	url, stop, err := fakeserver.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	if err != nil {
		t.Fatal(err)
	}
	get := func() (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return string(body), err
	}
	if body, err := get(); body != "hello" || err != nil {
		t.Errorf("the answer is %q, %v", body, err)
	}
	stop()
	if _, err := get(); err == nil {
		t.Error("the server answers after stop")
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		rate  fakeserver.Rate
		taken []int // number of accepted calls out of twenty, after 0, 20, 40 and 60 seconds
	}{
		{"none", fakeserver.Rate{}, []int{20, 20, 20, 20}},
		{"a bucket", fakeserver.PerMinute(6), []int{6, 2, 2, 2}},
		{"a bucket that holds more", fakeserver.Rate{Calls: 6, Per: time.Minute, Burst: 8}, []int{8, 2, 2, 2}},
		{"a bucket that holds less", fakeserver.Rate{Calls: 6, Per: time.Minute, Burst: 1}, []int{1, 1, 1, 1}},
		{"fixed minutes", fakeserver.Rate{Calls: 6, Per: time.Minute, Fixed: true}, []int{6, 0, 0, 6}},
		{"seconds", fakeserver.PerSecond(3), []int{3, 3, 3, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var q fakeserver.Quotas
			for i, want := range c.taken {
				n := 0
				for range 20 {
					if q.Take(start.Add(time.Duration(i)*20*time.Second), "a", c.rate) {
						n++
					}
				}
				if n != want {
					t.Errorf("after %d seconds %d calls are taken, want %d", i*20, n, want)
				}
			}
			if !q.Take(start, "b", c.rate) {
				t.Error("another key has the same quota")
			}
		})
	}
}
