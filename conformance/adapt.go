package conformance

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Store returns a Store for RunStore and Bench. The functions Open and Reopen of the result call
// tokenstore.New with a driver from b and a copy of opts. A nil opts means the default options. In
// the copy, Now is a clock that Store.Forward advances. If opts.Logger is nil, the copy has a
// Logger whose output Store.Trace returns. To read the Properties, Store opens one driver with
// b.Open, and closes the driver.
func (b Driver) Store(t testing.TB, opts *tokenstore.Options) Store {
	t.Helper()
	d := b.Open(t)
	p := d.Properties()
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	a := &adapter{b: b, drivers: map[tokenstore.TokenStore]*observer{}}
	if opts != nil {
		a.opts = *opts
	}
	s := Store{
		Open:      a.open,
		Reopen:    a.reopen,
		MaxRecord: p.MaxSize,
		ListLag:   p.ListLag,
		ReadLag:   p.ReadLag,
		Forward:   func(_ testing.TB, s tokenstore.TokenStore, d time.Duration) { a.of(s).log.ahead.Add(int64(d)) },
		Corrupt:   a.corrupt,
		Refuse:    a.refuse,
		Lose:      a.lose,
		Writes:    func(_ testing.TB, s tokenstore.TokenStore) int64 { return a.of(s).log.writes.Load() },
		Trace:     func(_ testing.TB, s tokenstore.TokenStore) []string { return a.of(s).log.lines() },
		Calls:     b.Calls,
		Timeout:   b.Timeout,
	}
	if p.ReadLag > 0 {
		s.Stale = a.stale
	}
	if b.Settle != nil {
		s.Settle = func(t testing.TB, s tokenstore.TokenStore) { b.Settle(t, a.of(s).Secrets) }
	}
	return s
}

// An adapter implements the functions of a Store on a Driver. An adapter is safe for concurrent
// use.
type adapter struct {
	b    Driver
	opts tokenstore.Options

	mu      sync.Mutex
	drivers map[tokenstore.TokenStore]*observer
}

func (a *adapter) open(t testing.TB) tokenstore.TokenStore {
	t.Helper()
	return a.store(t, &observer{Secrets: a.b.Open(t), log: &observed{labels: map[string][]driver.Label{}, refused: map[string]error{}, stale: map[string]driver.Secret{}}})
}

func (a *adapter) reopen(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore {
	t.Helper()
	d := a.of(s)
	return a.store(t, &observer{Secrets: a.b.Reopen(t, d.Secrets), log: d.log})
}

func (a *adapter) store(t testing.TB, d *observer) tokenstore.TokenStore {
	t.Helper()
	opts := a.opts
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	opts.Now = func() time.Time { return now().Add(time.Duration(d.log.ahead.Load())) }
	var watched driver.Secrets = d
	if l, ok := d.Secrets.(driver.Leaser); ok {
		watched = leasingObserver{d, l}
	}
	s, err := tokenstore.New(watched, &opts)
	if err != nil {
		t.Fatalf("tokenstore.New: %v", err)
	}
	a.mu.Lock()
	a.drivers[s] = d
	a.mu.Unlock()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.drivers, s)
	})
	return s
}

// of returns the driver of s, or nil if s is closed or was not opened by the adapter.
func (a *adapter) of(s tokenstore.TokenStore) *observer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drivers[s]
}

// corrupt makes the record with the given ID unreadable by removing the last byte of the
// record's data. The rest of the data still contains the tokens.
func (a *adapter) corrupt(t testing.TB, s tokenstore.TokenStore, id string) {
	t.Helper()
	d := a.of(s)
	if a.b.Settle != nil {
		a.b.Settle(t, d.Secrets)
	}
	base, err := d.Secrets.Fresh(t.Context(), id, driver.Secret{})
	if err != nil || len(base.Data) < 2 {
		t.Fatalf("Fresh(%q): %d bytes of data, error %v", id, len(base.Data), err)
	}
	d.log.mu.Lock()
	base.Labels = slices.Clone(d.log.labels[id])
	d.log.mu.Unlock()
	p := driver.Payload{Data: base.Data[:len(base.Data)-1], Labels: base.Labels}
	if _, err := d.Secrets.Update(t.Context(), id, base, p); err != nil {
		t.Fatalf("Update(%q): %v", id, err)
	}
}

// refuse makes reads of the record with the given ID fail with the error reason on all handles. A
// nil reason ends the refusal.
func (a *adapter) refuse(_ testing.TB, s tokenstore.TokenStore, id string, reason error) {
	log := a.of(s).log
	log.mu.Lock()
	defer log.mu.Unlock()
	log.refused[id] = reason
}

// stale captures the current state of the record with the given ID. After the returned function is
// called, the next Get of the record returns the captured state.
func (a *adapter) stale(t testing.TB, s tokenstore.TokenStore, id string) (arm func()) {
	t.Helper()
	d := a.of(s)
	now, err := d.Secrets.Fresh(t.Context(), id, driver.Secret{})
	if err != nil {
		t.Fatalf("Fresh(%q): %v", id, err)
	}
	return func() {
		d.log.mu.Lock()
		defer d.log.mu.Unlock()
		d.log.stale[id] = now
	}
}

// lose makes the next Delete fail with an error matching driver.ErrUnavailable, without
// deleting the record.
func (a *adapter) lose(_ testing.TB, s tokenstore.TokenStore) {
	a.of(s).log.lost.Store(true)
}

// An observer is a driver that records its writes, labels and notes in log, and injects the
// faults that log holds.
type observer struct {
	driver.Secrets
	log *observed
}

// An observed holds the state that the observers of all handles on a namespace share: the recorded
// writes, labels and notes, and the faults to inject. An observed is safe for concurrent use.
type observed struct {
	writes atomic.Int64
	ahead  atomic.Int64 // time by which the clock of the stores was advanced

	mu     sync.Mutex
	text   bytes.Buffer
	names  []string
	labels map[string][]driver.Label // labels in the last commit of each secret

	refused map[string]error         // errors for secrets that cannot be read
	stale   map[string]driver.Secret // result of the next Get of each secret

	lost atomic.Bool // the next Delete fails without deleting the record
}

// before removes and returns the state that o.stale holds for the named secret, if any.
func (o *observed) before(name string) (driver.Secret, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.stale[name]
	delete(o.stale, name)
	return s, ok
}

// refusal returns the error that reads of the named secret must return, or nil.
func (o *observed) refusal(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refused[name]
}

// Write implements io.Writer for the Logger of a store.
func (o *observed) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// lines returns the recorded names, labels and notes, and the log output.
func (o *observed) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append(slices.Clone(o.names), o.text.String())
}

func (o *observed) wrote(name string, p driver.Payload, err error) {
	o.writes.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names = append(o.names, name)
	for _, l := range p.Labels {
		o.names = append(o.names, l.Key+" "+l.Value+" "+l.Nonce)
	}
	if err == nil {
		o.labels[name] = slices.Clone(p.Labels)
	}
}

// Create implements driver.Secrets.
func (d *observer) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := d.Secrets.Create(ctx, name, p)
	d.log.wrote(name, p, err)
	return v, err
}

// Update implements driver.Secrets.
func (d *observer) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	v, err := d.Secrets.Update(ctx, name, base, p)
	d.log.wrote(name, p, err)
	return v, err
}

// Delete implements driver.Secrets.
func (d *observer) Delete(ctx context.Context, name string, base driver.Secret) error {
	if d.log.lost.Swap(false) {
		return fmt.Errorf("%w: the call was lost", driver.ErrUnavailable)
	}
	err := d.Secrets.Delete(ctx, name, base)
	d.log.wrote(name, driver.Payload{}, err)
	return err
}

// Get implements driver.Secrets.
func (d *observer) Get(ctx context.Context, name string) (driver.Secret, error) {
	if err := d.log.refusal(name); err != nil {
		return driver.Secret{}, err
	}
	if s, ok := d.log.before(name); ok {
		return s, nil
	}
	return d.Secrets.Get(ctx, name)
}

// Fresh implements driver.Secrets.
func (d *observer) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if err := d.log.refusal(name); err != nil {
		return driver.Secret{}, err
	}
	return d.Secrets.Fresh(ctx, name, than)
}

// List implements driver.Secrets.
func (d *observer) List(ctx context.Context) iter.Seq2[driver.Named, error] {
	return d.refusing(d.Secrets.List(ctx))
}

// refusing returns an iterator over the values of seq. For each refused secret, the iterator
// yields only the name, with the error from d.log.
func (d *observer) refusing(seq iter.Seq2[driver.Named, error]) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range seq {
			if reason := d.log.refusal(named.Name); reason != nil {
				named, err = driver.Named{Name: named.Name}, reason
			}
			if !yield(named, err) {
				return
			}
		}
	}
}

// Lookup implements driver.Secrets.
func (d *observer) Lookup(ctx context.Context, any []driver.Label) iter.Seq2[driver.Named, error] {
	d.log.mu.Lock()
	for _, l := range any {
		d.log.names = append(d.log.names, l.Key+" "+l.Value+" "+l.Nonce)
	}
	d.log.mu.Unlock()
	return d.refusing(d.Secrets.Lookup(ctx, any))
}

// A leasingObserver is an observer of a driver.Leaser.
type leasingObserver struct {
	*observer
	leaser driver.Leaser
}

// Note implements driver.Leaser.
func (d leasingObserver) Note(ctx context.Context, name string, base driver.Secret, note string) error {
	d.log.mu.Lock()
	d.log.names = append(d.log.names, name, note)
	d.log.mu.Unlock()
	return d.leaser.Note(ctx, name, base, note)
}
