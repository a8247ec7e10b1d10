// Package ledger keeps records in a secret manager. It names and labels entries, writes them
// by compare-and-swap, and moves a record to the record of its user. It leaves decisions
// about tokens to package rules.
//
// An entry is a stored secret. An entry that moves to another entry is first frozen, and then
// merged into the other entry. A merged entry becomes a redirect, or is deleted. A record is
// an entry, together with the frozen entries that have moved to it. Callers find only
// records.
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
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/observed"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
)

// A Config configures a Ledger. All fields except NoAccess and Observer must be set.
type Config struct {
	NameKeys  [][]byte // keys of names; the first is the current one; a nil element means no key
	IndexKeys [][]byte // keys of labels; writes use the first, searches use all
	Codec     codec.Codec
	Now       func() time.Time
	Logger    *slog.Logger
	NoAccess  bool // records get no label for their access token
	Attempts  int  // maximum number of attempts of an operation

	Observer *observe.Observer // of the calls of the driver; may be nil
}

// A Ledger reads and writes the entries of one store. Its methods are safe for concurrent
// use.
type Ledger struct {
	Config
	Driver     driver.Secrets
	Leaser     driver.Leaser    // Driver, if it is a Leaser; else nil
	Labeler    driver.Labeler   // Driver, if it is a Labeler; else nil
	Sweeper    driver.Sweeper   // Driver, if it is a Sweeper; else nil
	Inspector  driver.Inspector // Driver, if it is an Inspector; else nil
	Properties driver.Properties

	// Wait is driverkit.Sleep. Tests replace Wait.
	Wait func(context.Context, time.Duration) error

	keysFit  atomic.Bool          // the store has a marker, and the keys fit the marker
	encrypts atomic.Pointer[bool] // whether the codec encrypts; nil until keyed has found out

	many chan namerAt // holds the last Namer of NamerForMany, unless a call is using it
}

// New returns a Ledger on d. New does no I/O.
func New(d driver.Secrets, c Config) *Ledger {
	properties := d.Properties()
	if placed, ok := c.Codec.(codec.Placed); ok {
		c.Codec = placed.At(properties.Place)
	}
	l := &Ledger{Config: c, Properties: properties, Wait: driverkit.Sleep, many: make(chan namerAt, 1)}
	l.Driver, l.Leaser = observed.Secrets(d, c.Observer), observed.Leaser(d, c.Observer)
	l.Sweeper, l.Inspector = observed.Sweeper(d, c.Observer), observed.Inspector(d, c.Observer)
	l.Labeler, _ = d.(driver.Labeler)
	l.many <- namerAt{}
	return l
}

// Entries yields the entry of each secret that the driver lists, except the marker of keys
// and the probes of a measurement. An *UnreadableError concerns only the secret that the
// yielded entry names. Any other error ends the iteration. Entries leaves out secrets of
// other programs that the driver cannot read.
func (l *Ledger) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return l.entries(ctx, own(l.list(ctx, func(driver.Named, error) {})))
}

// AllEntries is like Entries, but also yields the secrets of other programs that the driver
// cannot read. It calls aside for each probe of a measurement.
func (l *Ledger) AllEntries(ctx context.Context, aside func(driver.Named, error)) iter.Seq2[Entry, error] {
	return l.entries(ctx, l.list(ctx, func(named driver.Named, err error) {
		if named.Name != markerName {
			aside(named, err)
		}
	}))
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

// list yields the secrets that the driver lists. For the marker and the probes of a
// measurement, it calls aside instead.
func (l *Ledger) list(ctx context.Context, aside func(driver.Named, error)) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range l.Driver.List(ctx) {
			if named.Name == markerName || Measures(named.Name) {
				aside(named, err)
				continue
			}
			if !yield(named, err) {
				return
			}
		}
	}
}
