package refreshing

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// A fake is a Record and its Right that play a script and remember their calls.
type fake struct {
	State
	old   *stored.Failure // what a read that may be out of date tells of a refusal
	takes []error         // of Take, in turn; errHeld: another process has the right
	fails []error         // of Commit, in turn
	calls []string
	kept  *stored.Failure
}

func (f *fake) call(name string) { f.calls = append(f.calls, name) }

func (f *fake) Read(_ context.Context, newest bool) (State, error) {
	s := f.State
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
	refuses := func(context.Context, codec.Fields) (codec.Fields, error) { return codec.Fields{}, refused }
	for _, c := range []struct {
		name  string
		fake  fake
		mint  Mint
		calls string
		err   error // nil: the new token is returned
		kept  bool
	}{
		{"minted", fake{}, minted, "read take commit release", nil, false},
		{"held by another process", fake{takes: []error{errHeld, errHeld}}, minted, "read take read take read take commit release", nil, false},
		{"lost", fake{takes: []error{ErrLost, ErrStale}}, minted, "read take newest take newest take commit release", nil, false},
		{"lost in each attempt", fake{takes: []error{ErrLost, ErrLost, ErrLost}}, minted, "read take newest take newest take", driver.ErrConflict, false},
		{"held between losses", fake{takes: []error{ErrLost, ErrLost, errHeld, ErrLost}}, minted, "read take newest take newest take read take newest take commit release", nil, false},
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
		{"deleted", fake{fails: []error{driver.ErrNotFound}}, minted, "read take commit release", ErrNotPersisted, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := c.fake
			f.Fields = expired
			e := &Engine{
				Attempts: 3, Grace: time.Hour, Digest: refusal.Digest, Now: func() time.Time { return now },
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
			if (f.kept != nil) != c.kept {
				t.Errorf("Release kept %+v", f.kept)
			}
		})
	}
}

// TestRefreshPanics has a mint that never returns: the right is released.
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
