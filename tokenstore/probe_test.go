package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

func secretsOf(t *testing.T, d driver.Secrets) int {
	t.Helper()
	n := 0
	for _, err := range d.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestSameAs(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := storeOn(t, d, nil)
	saved(t, s, token{UserName: "ann", ClientID: "c", RefreshToken: "r"})
	keyed := &tokenstore.Options{NameKey: []byte("0123456789abcdef0123456789abcdef")}
	for name, test := range map[string]struct {
		other driver.Secrets
		opts  *tokenstore.Options
		want  bool
	}{
		"the same":            {d.Reopen(), nil, true},
		"the same, with keys": {d.Reopen(), keyed, true},
		"another":             {memstore.NewDriver(), nil, false},
		"another, with keys":  {memstore.NewDriver(), keyed, false},
	} {
		is, err := s.SameAs(t.Context(), storeOn(t, test.other, test.opts))
		if err != nil || is != test.want {
			t.Errorf("%s: %v, %v", name, is, err)
		}
		if here, there := secretsOf(t, d), secretsOf(t, test.other); here != 1 || there > 1 {
			t.Errorf("%s: %d and %d secrets are left, want 1 and at most 1", name, here, there)
		}
	}
}

// readerOnly is a driver without the permission to create secrets.
type readerOnly struct {
	driver.Secrets
	lag time.Duration
}

func (r readerOnly) Properties() driver.Properties {
	p := r.Secrets.Properties()
	p.ReadLag = r.lag
	return p
}

func (readerOnly) Create(context.Context, string, driver.Payload) (driver.Version, error) {
	return "", driver.ErrDenied
}

func TestSameAsWithoutCreate(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	s := storeOn(t, d, nil)
	for _, lag := range []time.Duration{0, driver.Unbounded} {
		is, err := s.SameAs(t.Context(), storeOn(t, readerOnly{d.Reopen(), lag}, nil))
		if err != nil || !is {
			t.Errorf("lag %v: the same store: %v, %v", lag, is, err)
		}
		is, err = s.SameAs(t.Context(), storeOn(t, readerOnly{memstore.NewDriver(), lag}, nil))
		if is || (err == nil) != (lag == 0) || lag > 0 && !errors.Is(err, tokenstore.ErrDenied) {
			t.Errorf("lag %v: another store: %v, %v", lag, is, err)
		}
	}
}

// thief is a driver whose Create first deletes the existing secret, as another process
// might.
type thief struct{ *memstore.Driver }

func (d thief) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if now, err := d.Get(ctx, name); err == nil {
		if err := d.Delete(ctx, name, now); err != nil {
			return "", err
		}
	}
	return d.Driver.Create(ctx, name, p)
}

// TestSameAsRaced checks that SameAs does not report one store as two if another process
// removes the probe, the secret that SameAs creates. After such a report, a migration from the
// store to itself would delete the records.
func TestSameAsRaced(t *testing.T) {
	t.Parallel()
	d := memstore.NewDriver()
	is, err := storeOn(t, d, nil).SameAs(t.Context(), storeOn(t, thief{d.Reopen()}, nil))
	if !is && err == nil {
		t.Error("one store is said to be two")
	}
}

// TestSameAsKilled checks that no record changes if a process is killed at any write of
// SameAs. The next call of SameAs must remove the probe once the probe is a minute old.
func TestSameAsKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for writes := range int64(5) {
			for _, late := range []bool{false, true} {
				from, to := memstore.NewDriver(), memstore.NewDriver()
				record := saved(t, storeOn(t, to, nil), token{UserName: "ann", ClientID: "c", RefreshToken: "r"})
				dying := doomed(to.Reopen(), writes, late)
				_, _ = storeOn(t, dying, nil).SameAs(t.Context(), storeOn(t, doomed(from.Reopen(), writes-1, late), nil))
				s := storeOn(t, to, nil)
				if got, err := s.GetTokens(t.Context()); err != nil || len(got) != 1 || got[0] != record {
					t.Errorf("killed at write %d: %v, %v", writes, got, err)
				}
				if is, err := s.SameAs(t.Context(), storeOn(t, from, nil)); is || err != nil {
					t.Errorf("killed at write %d, again: %v, %v", writes, is, err)
				}
				if here, there := secretsOf(t, to), secretsOf(t, from); here != 1 || there != 0 {
					t.Errorf("killed at write %d: %d and %d secrets are left", writes, here, there)
				}
			}
		}
	})
}

// TestCheckRemovesAProbe checks that Check removes a probe that SameAs left behind.
func TestCheckRemovesAProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := memstore.NewDriver()
		_, _ = storeOn(t, doomed(d.Reopen(), 1, true), nil).SameAs(t.Context(), storeOn(t, memstore.NewDriver(), nil))
		if secretsOf(t, d) != 1 {
			t.Fatal("no probe is left")
		}
		<-time.After(2 * time.Minute)
		for f, err := range storeOn(t, d, nil).Check(t.Context(), &doctor.CheckOptions{Repair: true}) {
			if err != nil || f.Kind == doctor.KindEmpty && !f.Repaired {
				t.Errorf("%+v, %v", f, err)
			}
		}
		if n := secretsOf(t, d); n != 0 {
			t.Errorf("%d secrets are left", n)
		}
	})
}

// A careless is the driver of a faulty server. If create, update or remove is set, the server
// makes that kind of write without comparing the base with the current state. If drop is set,
// the server confirms updates but does not make them.
type careless struct {
	*memstore.Driver
	create, update, remove, drop bool
}

func (d *careless) base(ctx context.Context, name string, base driver.Secret) driver.Secret {
	if now, err := d.Get(ctx, name); err == nil {
		return now
	}
	return base
}

func (d *careless) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := d.Driver.Create(ctx, name, p)
	if errors.Is(err, driver.ErrExists) && d.create {
		return d.Driver.Update(ctx, name, d.base(ctx, name, driver.Secret{}), p)
	}
	return v, err
}

func (d *careless) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if d.update {
		base = d.base(ctx, name, base)
	}
	if d.drop {
		return "dropped", nil
	}
	return d.Driver.Update(ctx, name, base, p)
}

func (d *careless) Delete(ctx context.Context, name string, base driver.Secret) error {
	if d.remove {
		base = d.base(ctx, name, base)
	}
	return d.Driver.Delete(ctx, name, base)
}

func TestCheckFindsNoCompare(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*careless{
		"creates twice":           {create: true},
		"writes over a new state": {update: true},
		"deletes a new state":     {remove: true},
		"drops a write":           {drop: true},
		"":                        {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d.Driver = memstore.NewDriver()
			saved(t, storeOn(t, d.Reopen(), nil), token{UserName: "ann", ClientID: "c", RefreshToken: "r"})
			var found []string
			for f, err := range storeOn(t, d, nil).Check(t.Context(), &doctor.CheckOptions{Compare: true}) {
				if err != nil {
					t.Fatal(err)
				}
				if f.Kind == doctor.KindNotCompared {
					found = append(found, fmt.Sprint(f.Detail, f.Err))
				}
			}
			if (len(found) == 1) != (name != "") {
				t.Errorf("findings: %q", found)
			}
			if n := secretsOf(t, d.Driver); n != 1 {
				t.Errorf("%d secrets are left, want 1", n)
			}
		})
	}
}

// TestCheckRepairsNotUncompared checks that Check repairs nothing on a server that does not
// compare before it writes.
func TestCheckRepairsNotUncompared(t *testing.T) {
	t.Parallel()
	for _, update := range []bool{false, true} {
		d := &careless{Driver: memstore.NewDriver(), update: update}
		o := &tokenstore.Options{IndexKeys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}
		saved(t, storeOn(t, d.Reopen(), o), token{UserName: "bob", ClientID: "c", RefreshToken: "r2"})
		unmark(t, d.Driver)
		saved(t, storeOn(t, d.Reopen(), nil), token{UserName: "ann", ClientID: "c", RefreshToken: "r"})
		s := storeOn(t, d, o)
		repaired := false
		for f, err := range s.Check(t.Context(), &doctor.CheckOptions{Compare: true, Repair: true, Grace: -1}) {
			if err != nil {
				t.Fatal(err)
			}
			repaired = repaired || f.Repaired
		}
		if repaired == update {
			t.Errorf("the server compares: %v; repaired: %v", !update, repaired)
		}
	}
}
