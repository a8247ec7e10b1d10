// Package ledger stores records of tokens in a secret manager. It names and labels the stored
// secrets, writes them by compare-and-swap, and merges a record without a user into the
// record of a user. Package rules decides which records and fields a token changes.
//
// An entry is one stored secret. To move an entry to another entry, a writer first freezes
// the entry, by a reference to the other entry. A writer then merges the frozen entry into
// the other entry. A merged entry becomes a redirect to the other entry, or is deleted. A
// record is an entry, together with the frozen entries that have moved to the entry. Searches
// return only records.
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
	NameKeys  [][]byte // keys of names; the first is the current key; a nil element means no key
	IndexKeys [][]byte // keys of labels; writes use the first, searches use all; a nil element means no key
	Codec     codec.Codec
	Now       func() time.Time
	Logger    *slog.Logger
	NoAccess  bool // a record gets no label for its access token
	Attempts  int  // maximum number of attempts of an operation

	Observer *observe.Observer // observes the calls of the driver; may be nil
}

// A Ledger reads and writes the entries of one store. The methods of a Ledger are safe for
// concurrent use.
type Ledger struct {
	Config
	Driver     driver.Secrets
	Leaser     driver.Leaser    // Driver, if it is a Leaser; else nil
	Labeler    driver.Labeler   // Driver, if it is a Labeler; else nil
	Sweeper    driver.Sweeper   // Driver, if it is a Sweeper; else nil
	Inspector  driver.Inspector // Driver, if it is an Inspector; else nil
	Properties driver.Properties

	// Wait waits for a duration, or until the context is done. New sets Wait to
	// driverkit.Sleep, and tests replace Wait.
	Wait func(context.Context, time.Duration) error

	// NewNonce returns a nonce. New sets NewNonce to Nonce, and tests replace NewNonce.
	NewNonce func() string

	keysFit  atomic.Bool          // set if the store is known to have a marker that the keys fit
	encrypts atomic.Pointer[bool] // whether the codec encrypts; nil until keyed has tested the codec

	many chan namerAt // holds the last result of NamerForMany while no call uses the result
}

// New returns a Ledger that stores entries through d. New does no I/O.
func New(d driver.Secrets, c Config) *Ledger {
	properties := d.Properties()
	if placed, ok := c.Codec.(codec.Placed); ok {
		c.Codec = placed.At(properties.Place)
	}
	l := &Ledger{Config: c, Properties: properties, Wait: driverkit.Sleep, NewNonce: Nonce, many: make(chan namerAt, 1)}
	l.Driver, l.Leaser = observed.Secrets(d, c.Observer), observed.Leaser(d, c.Observer)
	l.Sweeper, l.Inspector = observed.Sweeper(d, c.Observer), observed.Inspector(d, c.Observer)
	l.Labeler, _ = d.(driver.Labeler)
	l.many <- namerAt{}
	return l
}

// Entries yields the entry of each secret that the driver lists, except the marker of keys
// and the probes of doctor.Measure. An *UnreadableError concerns only the secret with the
// Name of the yielded entry. Any other error ends the iteration. Entries leaves out the
// unreadable secrets of other programs: the secrets whose names no store derives.
func (l *Ledger) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return l.entries(ctx, own(l.list(ctx, func(driver.Named, error) {})))
}

// AllEntries is like Entries, but also yields the unreadable secrets of other programs. It calls
// the function aside with each listed probe of doctor.Measure, and with the driver's error for
// that probe.
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

// list yields the secrets that the driver lists. For the marker and the probes of
// doctor.Measure, list instead calls the function aside.
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
