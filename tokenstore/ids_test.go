package tokenstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// consented saves the tokens of a consent under id, or under a derived ID if id is empty,
// and then assigns the record to Ann. consented returns the ID that the record had without a
// user.
func consented(t *testing.T, s *tokenstore.Store, id string, n int) string {
	t.Helper()
	code := saved(t, s, token{ID: id, ClientID: "c1", GrantToken: tokenstore.Secret(fmt.Sprintf("%sg%d", canary, n)),
		RefreshToken: tokenstore.Secret(fmt.Sprintf("%sr%d", canary, n)), ExpiresAt: at(int64(n)).UTC()})
	saved(t, s, token{ID: code.ID, UserName: "ann"})
	return code.ID
}

func TestFindTokenByEarlierID(t *testing.T) {
	t.Parallel()
	const consents = 40
	for _, lag := range []time.Duration{0, 5 * time.Minute, driver.Unbounded} {
		f := newFaulty()
		f.list = lag
		now := time.Now()
		s := storeOn(t, f, &tokenstore.Options{Now: func() time.Time { return now }})
		var ids []string
		for i := range consents {
			id := ""
			if i%2 == 0 {
				id = fmt.Sprintf("own-%d", i)
			}
			ids = append(ids, consented(t, s, id, i))
			now = now.Add(30 * time.Hour)
			saved(t, s, token{UserName: "ann", ClientID: "c1", APIDomain: fmt.Sprintf("https://%d.example", i)})
		}
		ann, err := s.FindToken(t.Context(), token{UserName: "ann", ClientID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			if got, err := s.FindTokenByID(t.Context(), id); err != nil || got != ann {
				t.Errorf("lag %v: ID %d, %q, finds %q, %v", lag, i, id, got.ID, err)
			}
			ann.AccessToken = tokenstore.Secret(fmt.Sprintf("%sa%d", canary, i))
			if got, err := s.SaveToken(t.Context(), token{ID: id, UserName: "ann", AccessToken: ann.AccessToken, ExpiresAt: ann.ExpiresAt}); err != nil || got != ann {
				t.Errorf("lag %v: a save by ID %d, %q, brings %q, %v", lag, i, id, got.ID, err)
			}
		}
		only(t, s, ann)
		for named, err := range f.memory.List(t.Context()) {
			if err != nil || len(named.Labels) > 32 {
				t.Errorf("lag %v: %q has %d labels, error %v", lag, named.Name, len(named.Labels), err)
			}
		}
		if err := s.DeleteToken(t.Context(), ids[3]); err != nil {
			t.Errorf("lag %v: DeleteToken: %v", lag, err)
		}
		for i, id := range ids {
			if _, err := s.FindTokenByID(t.Context(), id); !errors.Is(err, tokenstore.ErrNotFound) {
				t.Errorf("lag %v: ID %d finds the deleted record: %v", lag, i, err)
			}
		}
		for named, err := range f.memory.List(t.Context()) {
			if err != nil || bytes.Contains(named.Data, []byte(canary)) {
				t.Errorf("lag %v: %q still holds a token, error %v", lag, named.Name, err)
			}
		}
	}
}

func (f *faulty) names(t *testing.T) []string {
	t.Helper()
	var names []string
	for name, err := range f.memory.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestAliasRemoved(t *testing.T) {
	t.Parallel()
	for lag, wait := range map[time.Duration]time.Duration{5 * time.Minute: 10*time.Minute + time.Second, driver.Unbounded: 24*time.Hour + 5*time.Minute + time.Second} {
		f := newFaulty()
		f.list = lag
		now := time.Now()
		s := storeOn(t, f, &tokenstore.Options{Now: func() time.Time { return now }})
		id := consented(t, s, "own", 1)
		code := f.names(t)
		code = slices.DeleteFunc(code, func(name string) bool { return name[0] == 'u' })
		ann := token{UserName: "ann", ClientID: "c1"}
		save := func() {
			t.Helper()
			ann.APIDomain += "x"
			saved(t, s, ann)
		}
		for _, pass := range []time.Duration{time.Minute, wait - 2*time.Minute} {
			now = now.Add(pass)
			save()
			if n := len(f.names(t)); n != 2 {
				t.Fatalf("lag %v: %d secrets %v after the promotion, want the record and the alias", lag, n, pass)
			}
		}
		f.calls = nil
		save()
		if len(f.calls) != 2 {
			t.Errorf("lag %v: a save with nothing to remove makes the calls %v", lag, f.calls)
		}
		now = now.Add(2 * time.Minute)
		save()
		if names := f.names(t); len(names) != 1 || names[0][0] != 'u' {
			t.Errorf("lag %v: the secrets are %q, want the one of the record", lag, names)
		}
		save()
		f.calls = nil
		save()
		if len(f.calls) != 2 {
			t.Errorf("lag %v: a save after the alias was removed makes the calls %v", lag, f.calls)
		}
		for _, by := range append(code, id) {
			if got, err := s.FindTokenByID(t.Context(), by); err != nil || got.UserName != "ann" {
				t.Errorf("lag %v: %q finds %q, %v", lag, by, got.ID, err)
			}
		}
	}
}

// A labelless is a driver that reports only the labels of user and client, like the driver of
// a service without room for other labels.
type labelless struct{ driver.Secrets }

func (l labelless) Inspect(context.Context) iter.Seq2[driver.Inspection, error] {
	return func(func(driver.Inspection, error) bool) {}
}

func (l labelless) Present(_ context.Context, _ string, labels []driver.Label) ([]driver.Label, error) {
	return slices.DeleteFunc(slices.Clone(labels), func(l driver.Label) bool { return l.Key != "user" && l.Key != "client" }), nil
}

func (l labelless) Unlabel(context.Context, string, []driver.Label) error { return nil }

func (l labelless) Probe(context.Context) iter.Seq2[driver.Probed, error] {
	return func(func(driver.Probed, error) bool) {}
}

func TestAliasKeptWithoutLabels(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	s := storeOn(t, labelless{f}, nil)
	id := consented(t, s, "", 1)
	for i := range 3 {
		saved(t, s, token{UserName: "ann", ClientID: "c1", APIDomain: fmt.Sprint(i)})
	}
	for found, err := range s.Check(t.Context(), &doctor.CheckOptions{Repair: true, Purge: true, Grace: -1}) {
		if err != nil || found.Kind == doctor.KindAlias {
			t.Errorf("%v, %v", found, err)
		}
	}
	if names := f.names(t); len(names) != 2 || !slices.Contains(names, id) {
		t.Errorf("the secrets are %q, want the record and its alias %q", names, id)
	}
}

func TestCheckRepairAlias(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		after, grace time.Duration
		left         int
	}{{time.Minute, 0, 2}, {11 * time.Minute, 0, 1}, {11 * time.Minute, time.Hour, 2}, {0, -1, 1}} {
		f := newFaulty()
		f.list = 5 * time.Minute
		now := time.Now()
		s := storeOn(t, f, &tokenstore.Options{Now: func() time.Time { return now }})
		id := consented(t, s, "", 1)
		now = now.Add(c.after)
		for found, err := range s.Check(t.Context(), &doctor.CheckOptions{Repair: true, Grace: c.grace}) {
			if err != nil || found.Err != nil {
				t.Errorf("%v: %v, %v", c, found, err)
			}
		}
		if n := len(f.names(t)); n != c.left {
			t.Errorf("%v after the promotion, with grace %v, a repair leaves %d secrets, want %d", c.after, c.grace, n, c.left)
		}
		if got, err := s.FindTokenByID(t.Context(), id); err != nil || got.UserName != "ann" {
			t.Errorf("%v: the code's ID finds %q, %v", c, got.ID, err)
		}
	}
}
