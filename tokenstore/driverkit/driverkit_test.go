package driverkit_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestFetch(t *testing.T) {
	t.Parallel()
	t.Run("keeps the order, Width at a time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var running, most atomic.Int64
			var got []int
			for v, err := range driverkit.Fetch(t.Context(), numbers(40), func(_ context.Context, i int) (int, error) {
				most.Store(max(most.Load(), running.Add(1)))
				<-time.After(time.Duration(40-i) * time.Millisecond)
				running.Add(-1)
				return i, nil
			}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, v)
			}
			if !slices.Equal(got, numbers(40)) {
				t.Errorf("Fetch yields %v", got)
			}
			if most.Load() != driverkit.Width {
				t.Errorf("%d calls run at a time, want %d", most.Load(), driverkit.Width)
			}
		})
	})
	t.Run("cancels and waits when the loop ends", func(t *testing.T) {
		t.Parallel()
		var running atomic.Int64
		for range driverkit.Fetch(t.Context(), numbers(40), func(ctx context.Context, i int) (int, error) {
			running.Add(1)
			defer running.Add(-1)
			if i > 0 {
				<-ctx.Done()
			}
			return i, ctx.Err()
		}) {
			break
		}
		if running.Load() != 0 {
			t.Errorf("%d calls run after the loop", running.Load())
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		var errs []error
		for _, err := range driverkit.Fetch(ctx, numbers(40), func(_ context.Context, i int) (int, error) {
			if i == 3 {
				cancel()
			}
			return i, nil
		}) {
			errs = append(errs, err)
		}
		if last := errs[len(errs)-1]; !errors.Is(last, context.Canceled) {
			t.Errorf("the last error is %v", last)
		}
	})
}

func TestFetchListed(t *testing.T) {
	t.Parallel()
	mount := errors.New("another engine")
	fetch := func(n int, errOf func(int) error) (values []int, last error) {
		for v, err := range driverkit.FetchListed(t.Context(), numbers(n),
			func(err error) bool { return errors.Is(err, mount) },
			func(_ context.Context, i int) (int, error) { return i + 1, errOf(i) },
		) {
			values, last = append(values, v), err
		}
		return values, last
	}
	at := func(n int, err error) func(int) error {
		return func(i int) error {
			if i == n {
				return err
			}
			return nil
		}
	}
	for _, c := range []struct {
		name  string
		n     int
		errOf func(int) error
		want  []int
		last  error
	}{
		{"a deleted secret is left out", 3, at(1, driver.ErrNotFound), []int{1, 3}, nil},
		{"an error of one secret has its value", 3, at(2, driver.ErrCorrupt), []int{1, 2, 3}, driver.ErrCorrupt},
		{"a denied secret does not end it", 3, at(0, driver.ErrDenied), []int{1, 2, 3}, nil},
		{"credentials end it", 3, at(1, fmt.Errorf("%w: %w", driver.ErrDenied, driver.ErrCredentials)), []int{1, 0}, driver.ErrCredentials},
		{"ofAll ends it", 3, at(1, mount), []int{1, 0}, mount},
		{"some unavailable secrets do not end it", 3, func(int) error { return driver.ErrUnavailable }, []int{1, 2, 3}, driver.ErrUnavailable},
		{
			"an unavailable service ends it", 40, func(int) error { return driver.ErrUnavailable },
			append(numbers(driverkit.Width + 1)[1:], 0), driver.ErrUnavailable,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got, last := fetch(c.n, c.errOf); !slices.Equal(got, c.want) || !errors.Is(last, c.last) {
				t.Errorf("values %v and the error %v, want %v and %v", got, last, c.want, c.last)
			}
		})
	}
}

func TestEach(t *testing.T) {
	t.Parallel()
	t.Run("returns the first error", func(t *testing.T) {
		t.Parallel()
		err := driverkit.Each(t.Context(), numbers(9), func(_ context.Context, i int) error {
			if i < 4 {
				return nil
			}
			return fmt.Errorf("item %d", i)
		})
		if err == nil || err.Error() != "item 4" {
			t.Errorf("Each: %v", err)
		}
	})
	t.Run("calls nothing when its context is done", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		called := false
		err := driverkit.Each(ctx, numbers(9), func(context.Context, int) error { called = true; return nil })
		if called || !errors.Is(err, context.Canceled) {
			t.Errorf("called: %v; Each: %v", called, err)
		}
	})
}

func TestSeq(t *testing.T) {
	t.Parallel()
	failure := errors.New("no more")
	seq := driverkit.Seq(func(yield func(int, error) bool) error {
		for i := range 3 {
			if !yield(i, nil) {
				return failure
			}
		}
		return failure
	})
	var values []int
	var last error
	for v, err := range seq {
		values, last = append(values, v), err
	}
	if !slices.Equal(values, []int{0, 1, 2, 0}) || !errors.Is(last, failure) {
		t.Errorf("values %v and the error %v", values, last)
	}
	for v, err := range seq {
		if v == 1 {
			break
		}
		if err != nil {
			t.Errorf("an error before the loop ended: %v", err)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	t.Run("grows up to Longest", func(t *testing.T) {
		t.Parallel()
		b := driverkit.Backoff{Pause: time.Second, Longest: 3 * time.Second}
		for _, mean := range []time.Duration{1, 2, 3, 3} {
			if pause := b.Next(); pause < mean*time.Second/2 || pause > mean*time.Second*3/2 {
				t.Errorf("a pause of %v, want about %v", pause, mean*time.Second)
			}
		}
	})
	t.Run("gives up after Patience", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			begun, tries := time.Now(), 0
			b := driverkit.Backoff{Pause: time.Second, Longest: time.Second, Patience: time.Minute}
			done, err := b.Until(t.Context(), func() (bool, error) { tries++; return false, nil })
			if took := time.Since(begun); done || err != nil || took < time.Minute || took > time.Minute+2*time.Second || tries < 30 {
				t.Errorf("Until: %v, %v after %v and %d tries", done, err, took, tries)
			}
		})
	})
	t.Run("returns what try returns", func(t *testing.T) {
		t.Parallel()
		failure := errors.New("no")
		var b driverkit.Backoff
		if done, err := b.Until(t.Context(), func() (bool, error) { return true, nil }); !done || err != nil {
			t.Errorf("Until: %v, %v", done, err)
		}
		if done, err := b.Until(t.Context(), func() (bool, error) { return false, failure }); done || !errors.Is(err, failure) {
			t.Errorf("Until: %v, %v", done, err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		b := driverkit.Backoff{Pause: time.Hour, Longest: time.Hour, Patience: time.Hour}
		if _, err := b.Until(ctx, func() (bool, error) { cancel(); return false, nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("Until: %v", err)
		}
	})
}

func TestSleep(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	if err := errors.Join(driverkit.Sleep(ctx, 0), driverkit.Sleep(ctx, time.Nanosecond)); err != nil {
		t.Errorf("Sleep: %v", err)
	}
	cancel()
	for _, d := range []time.Duration{0, time.Hour} {
		if err := driverkit.Sleep(ctx, d); !errors.Is(err, context.Canceled) {
			t.Errorf("Sleep(%v): %v", d, err)
		}
	}
}

func TestCallError(t *testing.T) {
	t.Parallel()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	client := errors.New("the client's own")
	for _, c := range []struct {
		name       string
		ctx        context.Context
		err, class error
		is, not    []error
	}{
		{"a class", t.Context(), client, driver.ErrDenied, []error{driver.ErrDenied, client}, nil},
		{"no class", t.Context(), client, nil, []error{client}, []error{driver.ErrUnavailable}},
		{"a context that is done", done, client, driver.ErrDenied, []error{context.Canceled, client}, []error{driver.ErrDenied}},
		{"the error of the context", done, fmt.Errorf("call: %w", context.Canceled), nil, []error{context.Canceled}, nil},
		{"a time-out of the client", t.Context(), context.DeadlineExceeded, nil, []error{driver.ErrUnavailable}, []error{context.DeadlineExceeded}},
		{"a time-out with a class", t.Context(), context.Canceled, driver.ErrDenied, []error{driver.ErrDenied}, []error{context.Canceled, driver.ErrUnavailable}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := driverkit.CallError(c.ctx, c.err, c.class)
			for _, want := range c.is {
				if !errors.Is(err, want) {
					t.Errorf("%q does not match %q", err, want)
				}
			}
			for _, other := range c.not {
				if errors.Is(err, other) {
					t.Errorf("%q matches %q", err, other)
				}
			}
			if !strings.Contains(err.Error(), c.err.Error()) {
				t.Errorf("%q does not have the text %q", err, c.err)
			}
		})
	}
}

func TestRepeats(t *testing.T) {
	t.Parallel()
	const sent = "1000.abcdefghijklmnop"
	for text, want := range map[string]bool{
		"nothing of it":              false,
		"1000.abcdef":                false,
		"bad value \"1000.abcdefg\"": true,
		"…bcdefghijklm…":             true,
		base64.StdEncoding.EncodeToString([]byte(sent)): true,
	} {
		if got := driverkit.Repeats(text, []byte(sent)); got != want {
			t.Errorf("Repeats(%q) = %v", text, got)
		}
	}
	if !driverkit.Repeats("a short one", []byte("short")) || driverkit.Repeats("anything", nil) {
		t.Error("Repeats is wrong about what is short or empty")
	}
}

func TestLegalName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"u4fz": true, "": false, "U4FZ": false, "a/b": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false} {
		if got := driverkit.LegalName(name); got != want {
			t.Errorf("LegalName(%q) = %v", name, got)
		}
	}
}

func TestWithout(t *testing.T) {
	t.Parallel()
	a, b, c := driver.Label{Key: "user", Value: "x", Nonce: "1"}, driver.Label{Key: "user", Value: "x", Nonce: "2"}, driver.Label{Key: "id", Value: "x"}
	all := []driver.Label{b, c, a}
	if got := driverkit.Without(all, []driver.Label{c}); !slices.Equal(got, []driver.Label{b, a}) {
		t.Errorf("Without: %v", got)
	}
	if !slices.Equal(all, []driver.Label{b, c, a}) {
		t.Error("Without changes its argument")
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	probe := func(call string, err error) driverkit.Probe {
		return driverkit.Probe{Call: call, Needs: "the permission to " + call, Do: func(context.Context) error { return err }}
	}
	var calls []string
	var last error
	for p, err := range driverkit.Probes(t.Context(), []driverkit.Probe{
		probe("get", driver.ErrNotFound),
		probe("put", driver.ErrDenied),
		probe("try", driverkit.ErrUntried),
		probe("list", driver.ErrCredentials),
		probe("more", nil),
	}) {
		if last = err; err == nil {
			calls = append(calls, fmt.Sprint(p.Call, ": ", p.Err))
		}
	}
	if want := []string{"get: <nil>", "put: access denied"}; !slices.Equal(calls, want) || !errors.Is(last, driver.ErrCredentials) {
		t.Errorf("Probes yields %q and the error %v", calls, last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range driverkit.Probes(ctx, []driverkit.Probe{probe("get", nil)}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Probes: %v", err)
		}
	}
}
