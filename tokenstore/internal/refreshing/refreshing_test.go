package refreshing

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// A fake is a Record that returns scripted errors, and records the calls of its methods and
// of the methods of its Right.
type fake struct {
	State
	old   *stored.Failure // the refusal in reads that may be out of date
	reads []error         // errors of Read, one per call
	takes []error         // errors of Take, one per call; errHeld means that another process has the right
	fails []error         // errors of Commit, one per call
	calls []string
	kept  *stored.Failure
}

func (f *fake) call(name string) { f.calls = append(f.calls, name) }

func (f *fake) Read(_ context.Context, newest bool) (State, error) {
	s := f.State
	if len(f.reads) > 0 {
		f.call("read")
		err := f.reads[0]
		f.reads = f.reads[1:]
		return s, err
	}
	if newest {
		f.call("newest")
	} else {
		f.call("read")
		if f.old != nil {
			s.Stale, s.Refusal = true, func(context.Context) *stored.Failure { return f.old }
		}
	}
	return s, nil
}

func (f *fake) Take(context.Context) (Right, error) {
	f.call("take")
	if len(f.takes) == 0 {
		return right{f}, nil
	}
	err := f.takes[0]
	f.takes = f.takes[1:]
	if errors.Is(err, errHeld) {
		return nil, nil
	}
	return nil, err
}

type right struct{ *fake }

func (r right) Read(context.Context) (State, error) { return r.State, nil }
func (r right) Begin() time.Duration                { return time.Minute }
func (r right) Left() time.Duration                 { return time.Minute }

func (r right) Commit(_ context.Context, plan func(codec.Fields) rules.RefreshPlan) (codec.Fields, error) {
	r.call("commit")
	if len(r.fails) > 0 {
		err := r.fails[0]
		r.fails = r.fails[1:]
		return codec.Fields{}, err
	}
	r.Fields = plan(r.Fields).Fields
	return r.Fields, nil
}

func (r right) Release(_ context.Context, keep *stored.Failure) {
	r.call("release")
	r.kept = keep
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	refused := refusal.Answer{Code: "invalid_grant", Permanent: true}
	expired := codec.Fields{ID: "1", UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiryTime: 1}
	kept := refusal.Keep(nil, refused, refusal.Digest("", "", "r", ""), now)
	minted := func(context.Context, codec.Fields) (codec.Fields, error) {
		return codec.Fields{AccessToken: "new"}, nil
	}
	full := func(context.Context, codec.Fields) (codec.Fields, error) {
		return codec.Fields{AccessToken: "new", Scope: "s", IDToken: "i", Extra: `{"a":1}`}, nil
	}
	refuses := func(context.Context, codec.Fields) (codec.Fields, error) { return codec.Fields{}, refused }
	for _, c := range []struct {
		name  string
		fake  fake
		mint  Mint
		calls string
		err   error // nil if Refresh returns the new token
		kept  bool
	}{
		{"minted", fake{}, minted, "read take commit release", nil, false},
		{"held by another process", fake{takes: []error{errHeld, errHeld}}, minted, "read take read take read take commit release", nil, false},
		{"lost", fake{takes: []error{ErrLost, ErrStale}}, minted, "read take read take newest take commit release", nil, false},
		{"lost in each attempt", fake{takes: []error{ErrLost, ErrLost, ErrLost}}, minted, "read take read take newest take", driver.ErrConflict, false},
		{"held between losses", fake{takes: []error{ErrLost, ErrLost, errHeld, ErrLost}}, minted, "read take read take newest take read take read take commit release", nil, false},
		{"contended", fake{takes: []error{ErrContended, ErrLater, ErrLater}}, minted, "read take read take read take read take commit release", nil, false},
		{"contended in each attempt", fake{takes: []error{ErrContended, ErrLater, ErrContended, ErrContended}}, minted, "read take read take read take read take", driver.ErrConflict, false},
		{"a throttled right", fake{takes: []error{driver.ErrThrottled, ErrLater}}, minted, "read take read take read take commit release", nil, false},
		{"a throttled read", fake{reads: []error{driver.ErrThrottled, driver.ErrThrottled}}, minted, "read read read take commit release", nil, false},
		{"an outage", fake{reads: []error{driver.ErrUnavailable}}, minted, "read", driver.ErrUnavailable, false},
		{"a throttled commit", fake{fails: []error{driver.ErrThrottled, driver.ErrThrottled}}, minted, "read take commit commit commit release", nil, false},
		{"no right", fake{takes: []error{driver.ErrDenied}}, minted, "read take", driver.ErrDenied, false},
		{"refused before", fake{old: kept, State: State{Refusal: func(context.Context) *stored.Failure { return kept }}}, minted, "read newest", refused, false},
		{"refused before, but not any more", fake{old: kept}, minted, "read newest take commit release", nil, false},
		{"refused", fake{}, refuses, "read take release", MintError{refused}, true},
		{"refused after a take-over", fake{State: State{Abandoned: true}}, refuses, "read take release", MintError{refusal.Answer{Code: "invalid_grant", RetryAfter: time.Hour}}, true},
		{"no access token", fake{}, func(context.Context, codec.Fields) (codec.Fields, error) {
			return codec.Fields{RefreshToken: "r2"}, nil
		}, "read take release", rules.ErrInvalidToken, false},
		{"stored at the second attempt", fake{fails: []error{driver.ErrUnavailable}}, minted, "read take commit commit release", nil, false},
		{"not stored", fake{fails: []error{driver.ErrConflict, driver.ErrDenied}}, minted, "read take commit commit release", ErrNotPersisted, false},
		{"stored without what does not fit", fake{fails: []error{rules.ErrTooLarge}}, full, "read take commit commit release", nil, false},
		{"stored without what has no room", fake{fails: []error{rules.ErrInvalidToken}}, full, "read take commit commit release", nil, false},
		{"too large without that", fake{fails: []error{rules.ErrTooLarge, rules.ErrTooLarge}}, full, "read take commit commit release", ErrNotPersisted, false},
		{"too large, and nothing to leave out", fake{fails: []error{rules.ErrTooLarge}}, minted, "read take commit release", ErrNotPersisted, false},
		{"deleted", fake{fails: []error{driver.ErrNotFound}}, minted, "read take commit release", ErrNotPersisted, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := c.fake
			f.Fields = expired
			e := &Engine{
				Attempts: 3, Grace: time.Hour, Patience: time.Hour, Digest: refusal.Digest, Now: func() time.Time { return now },
				Wait: func(context.Context, time.Duration) error { return nil }, Logger: slog.New(slog.DiscardHandler),
			}
			got, err := e.Refresh(t.Context(), "1", "old", &f, c.mint)
			if m, ok := err.(MintError); ok && !errors.Is(c.err, err) {
				err = m.Err
			}
			if !errors.Is(err, c.err) {
				t.Errorf("Refresh returned error %v, want %v", err, c.err)
			}
			if usable := c.err == nil || errors.Is(c.err, ErrNotPersisted); usable != (got.AccessToken == "new") {
				t.Errorf("Refresh returned the access token %q", got.AccessToken)
			}
			if want := strings.Fields(c.calls); !slices.Equal(f.calls, want) {
				t.Errorf("the calls are %v, want %v", f.calls, want)
			}
			if c.err == nil && len(c.fake.fails) > 0 && got.Scope+got.IDToken+got.Extra != "" {
				t.Errorf("Refresh returned what is not stored: %q", got.Scope)
			}
			if (f.kept != nil) != c.kept {
				t.Errorf("Release kept %+v", f.kept)
			}
		})
	}
}

// TestRefreshThrottled checks that a refresh gives up after Patience if the service throttles
// every call.
func TestRefreshThrottled(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]func(f *fake){
		"reads": func(f *fake) { f.reads = slices.Repeat([]error{driver.ErrThrottled}, 1000) },
		"takes": func(f *fake) { f.takes = slices.Repeat([]error{driver.ErrThrottled}, 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{}
				record(f)
				e := &Engine{Attempts: 3, Patience: 30 * time.Second, Digest: refusal.Digest, Now: time.Now, Wait: driverkit.Sleep}
				began := time.Now()
				_, err := e.Refresh(t.Context(), "1", "old", f, func(context.Context, codec.Fields) (codec.Fields, error) {
					t.Error("mint was called")
					return codec.Fields{}, nil
				})
				if !errors.Is(err, driver.ErrThrottled) {
					t.Errorf("Refresh returned error %v", err)
				}
				if took := time.Since(began); took < 30*time.Second || took > 34*time.Second {
					t.Errorf("Refresh took %v", took)
				}
				if len(f.calls) > 60 {
					t.Errorf("Refresh made %d calls", len(f.calls))
				}
			})
		})
	}
}

// TestRefreshPanics checks that the right is released if mint panics.
func TestRefreshPanics(t *testing.T) {
	t.Parallel()
	f := &fake{}
	e := &Engine{Attempts: 1, Digest: refusal.Digest, Now: time.Now}
	func() {
		defer func() { _ = recover() }()
		_, _ = e.Refresh(t.Context(), "1", "old", f, func(context.Context, codec.Fields) (codec.Fields, error) { panic("mint") })
	}()
	if want := []string{"read", "take", "release"}; !slices.Equal(f.calls, want) {
		t.Errorf("the calls are %v, want %v", f.calls, want)
	}
}
