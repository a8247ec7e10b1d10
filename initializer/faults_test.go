package initializer_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// logs collects log output. It is safe for concurrent use.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// outages makes calls to a store fail, and counts the calls.
type outages struct {
	mu     sync.Mutex
	reads  bool
	writes bool
	blind  bool
	full   bool
	calls  int
}

// set determines whether reads and writes fail.
func (o *outages) set(reads, writes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads, o.writes = reads, writes
}

// throttle determines whether all calls fail with a throttling error.
func (o *outages) throttle(full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = full
}

// lag determines whether searches return no records, like those of a service whose search index
// lags.
func (o *outages) lag(blind bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blind = blind
}

func (o *outages) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls
}

func (o *outages) call(write bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	if o.full {
		return fmt.Errorf("%w: the quota is used up", driver.ErrThrottled)
	}
	if write && o.writes || !write && o.reads {
		return fmt.Errorf("%w: there is no network", driver.ErrUnavailable)
	}
	return nil
}

func (o *outages) on(d driver.Secrets) driver.Secrets { return faulty{d, o} }

// faulty is a driver whose calls fail according to its outages.
type faulty struct {
	driver.Secrets
	o *outages
}

func (f faulty) Get(ctx context.Context, name string) (driver.Secret, error) {
	if err := f.o.call(false); err != nil {
		return driver.Secret{}, err
	}
	return f.Secrets.Get(ctx, name)
}

func (f faulty) Fresh(ctx context.Context, name string, than driver.Secret) (driver.Secret, error) {
	if err := f.o.call(false); err != nil {
		return driver.Secret{}, err
	}
	return f.Secrets.Fresh(ctx, name, than)
}

func (f faulty) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	if err := f.o.call(true); err != nil {
		return "", err
	}
	return f.Secrets.Create(ctx, name, p)
}

func (f faulty) Update(ctx context.Context, name string, base driver.Secret, p driver.Payload) (driver.Version, error) {
	if err := f.o.call(true); err != nil {
		return "", err
	}
	return f.Secrets.Update(ctx, name, base, p)
}

func (f faulty) Delete(ctx context.Context, name string, base driver.Secret) error {
	if err := f.o.call(true); err != nil {
		return err
	}
	return f.Secrets.Delete(ctx, name, base)
}

func (f faulty) Properties() driver.Properties {
	p := f.Secrets.Properties()
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	if f.o.blind {
		p.ListLag = 5 * time.Minute
	}
	return p
}

func (f faulty) Lookup(ctx context.Context, labels []driver.Label) iter.Seq2[driver.Named, error] {
	if err := f.o.call(false); err != nil {
		return func(yield func(driver.Named, error) bool) { yield(driver.Named{}, err) }
	}
	f.o.mu.Lock()
	blind := f.o.blind
	f.o.mu.Unlock()
	if blind {
		return func(func(driver.Named, error) bool) {}
	}
	return f.Secrets.Lookup(ctx, labels)
}

// simple hides the optional interfaces of a store, such as tokenstore.Refresher.
type simple struct{ tokenstore.TokenStore }
