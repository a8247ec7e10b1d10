// Package ledger keeps records in a secret manager. It names and labels entries, reads
// and writes them by compare-and-swap, and moves a record to the record of its user. It
// does not decide about tokens.
//
// An entry is a stored secret. A record is what callers find: an entry, together with
// the frozen entries that have moved to it and are still to be merged into it.
package ledger

import (
	"context"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A Config says how a Ledger names, encodes and retries. All fields have to be set.
type Config struct {
	NameKeys  [][]byte // of names; the first is the present one; nil is no key
	IndexKeys [][]byte // of labels; the first writes, all are searched
	Codec     codec.Codec
	Now       func() time.Time
	Logger    *slog.Logger
	Attempts  int // how often Retry calls an attempt
}

// A Ledger holds the entries of one store. Its methods are safe for concurrent use.
type Ledger struct {
	Config
	Driver     driver.Secrets
	Properties driver.Properties

	// Wait pauses. Tests replace it.
	Wait func(context.Context, time.Duration) error

	keysFit  atomic.Bool          // the store has a marker, and the keys fit it
	encrypts atomic.Pointer[bool] // whether the codec does; nil: not known yet
}

// New returns the Ledger on d. It does no I/O.
func New(d driver.Secrets, c Config) *Ledger {
	properties := d.Properties()
	if placed, ok := c.Codec.(codec.Placed); ok {
		c.Codec = placed.At(properties.Place)
	}
	return &Ledger{Config: c, Driver: d, Properties: properties, Wait: driverkit.Sleep}
}

// Entries yields the entry of each secret that the driver lists, without the marker of
// keys. An *UnreadableError concerns one secret, and comes with an entry of that name.
// Any other error ends the iteration. Entries leaves out unreadable secrets of other
// programs.
func (l *Ledger) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return l.entries(ctx, own(l.list(ctx, func() {})))
}

// AllEntries is like Entries, but leaves out only the marker.
func (l *Ledger) AllEntries(ctx context.Context) iter.Seq2[Entry, error] {
	return l.entries(ctx, l.list(ctx, func() {}))
}

func (l *Ledger) entries(ctx context.Context, listed iter.Seq2[driver.Named, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for named, err := range listed {
			e := Entry{Name: Name(named.Name)}
			if err == nil {
				e, err = l.toEntry(e.Name, named.Secret)
			}
			err = OfListed(ctx, named.Name, err)
			if !yield(e, err) || err != nil && OnlyUnreadable(err) == nil {
				return
			}
		}
	}
}

// list yields the secrets that the driver lists, without the marker. It calls marked if
// the marker is listed.
func (l *Ledger) list(ctx context.Context, marked func()) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range l.Driver.List(ctx) {
			if named.Name == markerName {
				marked()
				continue
			}
			if !yield(named, err) {
				return
			}
		}
	}
}
