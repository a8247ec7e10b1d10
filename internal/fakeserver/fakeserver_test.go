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
