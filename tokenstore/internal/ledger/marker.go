package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// ErrWrongKeys means that the store was written with keys that the Ledger does not have.
var ErrWrongKeys = rules.ErrWrongKeys

// markerName is the name of the marker, the secret that identifies the keys of a store. It
// does not have the form of a record's name.
const markerName = "keys"

const markerVersion = 1

// A marker identifies the keys of a store without containing the keys. It holds a digest of
// each name key and index key, and an empty record in each form that records have. Keys have
// at least 128 bits, which should be random, so that a digest does not help to find a key.
//
// A store without keys needs no marker. The keys of a Ledger fit a store if the Ledger has
// every key that the marker identifies. The Ledger can then find and read all records.
type marker struct {
	Version int      `json:"v"`
	Salt    string   `json:"salt"`    // makes the digests of one key in two stores differ
	Names   []string `json:"names"`   // digests of the name keys; records are created under the first key
	Labels  []string `json:"labels"`  // digests of the index keys
	Records [][]byte `json:"records"` // an empty record in each form of the codec
	Nonce   string   `json:"nonce"`   // makes the data of each write different
}

// unkeyed replaces the digest of a nil key in a marker.
const unkeyed = "none"

func (m marker) digest(kind string, key []byte) string {
	if key == nil {
		return unkeyed
	}
	return Digest(key, "marker", kind, m.Salt)
}

// known reports whether each digest is the digest of one of the keys.
func (m marker) known(kind string, digests []string, keys [][]byte) bool {
	return !slices.ContainsFunc(digests, func(d string) bool {
		return !slices.ContainsFunc(keys, func(key []byte) bool { return m.digest(kind, key) == d })
	})
}

// A storedMarker is a marker as it was read. The zero value stands for a store without a
// marker.
type storedMarker struct {
	marker
	exists bool
	secret driver.Secret
}

// keyed reports whether l writes names or labels under a key, or encrypts records.
func (l *Ledger) keyed() (bool, error) {
	if l.NameKeys[0] != nil || l.IndexKeys[0] != nil {
		return true, nil
	}
	if known := l.encrypts.Load(); known != nil {
		return *known, nil
	}
	form, err := l.form()
	if err != nil {
		return false, err
	}
	_, err = stored.Decode(form)
	encrypts := err != nil
	l.encrypts.Store(&encrypts)
	return encrypts, nil
}

// form returns an empty record in the form that l writes.
func (l *Ledger) form() ([]byte, error) {
	return l.encode(markerName, stored.Record{Born: l.NewNonce()})
}

func (l *Ledger) reads(form []byte) error {
	_, err := l.decode(markerName, form)
	return err
}

// writes reports whether an encoded record, the parameter form, has the form that the codec writes.
// If the codec is not a codec.Rotating, writes reports only whether the codec can decode the
// record.
func (l *Ledger) writes(form []byte) bool {
	c, ok := l.Codec.(codec.Rotating)
	return l.reads(form) == nil && (!ok || c.Current(markerName, form))
}

// readMarker reads the marker. If newest is set, it reads the newest state; the driver may make
// several requests for this read. If the store has no marker, readMarker returns the zero
// storedMarker. The error is an *UnreadableError unless the context has ended.
func (l *Ledger) readMarker(ctx context.Context, newest bool) (storedMarker, error) {
	var secret driver.Secret
	var err error
	if newest {
		secret, err = l.Driver.Fresh(ctx, markerName, driver.Secret{})
	} else {
		secret, err = l.Driver.Get(ctx, markerName)
	}
	switch {
	case errors.Is(err, driver.ErrNotFound):
		return storedMarker{}, nil
	case err != nil:
		return storedMarker{}, OfListed(ctx, markerName, err)
	}
	m := storedMarker{exists: true, secret: secret}
	if json.Unmarshal(secret.Data, &m.marker) != nil || m.Version != markerVersion || len(m.Names) == 0 {
		return m, Unreadable(markerName, fmt.Errorf("%w: it is not a marker of keys, version %d", driver.ErrCorrupt, markerVersion))
	}
	return m, nil
}

// checkMarker returns an error that matches ErrWrongKeys if m identifies a key that l does
// not have.
func (l *Ledger) checkMarker(m storedMarker) error {
	switch {
	case !m.exists:
		return nil
	case !m.known("name", m.Names, l.NameKeys):
		return fmt.Errorf("%w: its names were made with another key for names", ErrWrongKeys)
	case !m.known("label", m.Labels, l.IndexKeys):
		return fmt.Errorf("%w: its labels were made with a key that is not given", ErrWrongKeys)
	}
	for _, form := range m.Records {
		if err := l.reads(form); err != nil {
			return fmt.Errorf("%w: its records: %w", ErrWrongKeys, err)
		}
	}
	return nil
}

// CheckKeys checks that the keys of l fit the newest marker. The error is an *UnreadableError
// if the marker cannot be read, and matches ErrWrongKeys if the keys do not fit.
func (l *Ledger) CheckKeys(ctx context.Context) error {
	m, err := l.readMarker(ctx, true)
	if err != nil {
		return err
	}
	return l.checkMarker(m)
}

// missed checks the keys before an operation reports that a record does not exist. The error
// matches ErrWrongKeys if the keys of l do not fit the store.
//
// missed reads the marker again on each call until it has found that the keys fit. It does
// not remember that the marker is absent, because another process may write the marker.
func (l *Ledger) missed(ctx context.Context) error {
	if l.keysFit.Load() {
		return nil
	}
	m, err := l.readMarker(ctx, false)
	if err != nil {
		return err
	}
	if err := l.checkMarker(m); err != nil {
		return err
	}
	if m.exists {
		l.keysFit.Store(true)
		return nil
	}
	if keyed, err := l.keyed(); err != nil || !keyed {
		return err
	}
	_, _, err = l.sample(ctx)
	return err
}

// Missing runs missed in the background while the caller looks for a record. The caller must
// call the returned function. If needed is set, that function waits for missed and returns the
// error that missed returned. Otherwise, that function cancels missed and returns nil.
func (l *Ledger) Missing(ctx context.Context) func(needed bool) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.missed(ctx) }()
	return func(needed bool) error {
		defer cancel()
		if !needed {
			cancel()
		}
		err := <-done
		if !needed {
			return nil
		}
		return err
	}
}

// markerAttempts is the maximum number of attempts to write the marker. Attempts compete only
// if several processes start, or change keys, at the same time.
const markerAttempts = 10

// NamerForNew returns the Namer for new records. It first checks that the keys of l fit the
// store, and adds to the marker the index key and the form of records that l writes. The
// error matches ErrWrongKeys if the keys do not fit. Call NamerForNew before each creation,
// because another process may have added keys since the last call.
func (l *Ledger) NamerForNew(ctx context.Context) (Namer, error) {
	m, err := l.ensureMarker(ctx, nil)
	if err != nil {
		return Namer{}, err
	}
	if !m.exists {
		return l.Namer(), nil
	}
	for _, n := range l.Namers() {
		if m.digest("name", n.key) == m.Names[0] {
			return n, nil
		}
	}
	return Namer{}, fmt.Errorf("%w: its names were made with another key for names", ErrWrongKeys)
}

// namerLasts is how long NamerForMany relies on one result of NamerForNew. A single call with
// retries can take as long.
const namerLasts = 5 * time.Second

// A namerAt is a result of NamerForNew, with the time of the call.
type namerAt struct {
	Namer
	at time.Time
}

// NamerForMany is like NamerForNew, but relies on an earlier result for up to namerLasts. It
// is for operations that create many records one after another.
func (l *Ledger) NamerForMany(ctx context.Context) (Namer, error) {
	select {
	case last := <-l.many:
		defer func() { l.many <- last }()
		now := l.Now()
		if passed := now.Sub(last.at); last.at.IsZero() || passed < 0 || passed >= namerLasts {
			n, err := l.NamerForNew(ctx)
			if err != nil {
				return n, err
			}
			last = namerAt{n, now}
		}
		return last.Namer, nil
	case <-ctx.Done():
		return Namer{}, ctx.Err()
	}
}

// ensureMarker reads and checks the marker. It adds the index key and the form of records
// that l writes. Unless change is nil, ensureMarker also passes the marker to change. That
// function may edit the marker, and reports whether it did. If the store has no marker, l writes
// with no keys, and change is nil, ensureMarker writes no marker.
func (l *Ledger) ensureMarker(ctx context.Context, change func(*marker) bool) (storedMarker, error) {
	keyed, err := l.keyed()
	if err != nil {
		return storedMarker{}, err
	}
	var last error
	for n := range markerAttempts {
		m, err := l.readMarker(ctx, n > 0 || len(l.NameKeys) > 1)
		if err != nil {
			return m, err
		}
		if err := l.checkMarker(m); err != nil {
			return m, err
		}
		if !m.exists && !keyed && change == nil {
			return m, nil
		}
		next, err := l.nextMarker(ctx, m, change)
		if err != nil {
			return m, err
		}
		if next == nil {
			l.keysFit.Store(true)
			return m, nil
		}
		if last = l.writeMarker(ctx, m, *next); last != nil && !rereads(last) {
			return m, last
		}
	}
	return storedMarker{}, notWritten(last)
}

func notWritten(err error) error {
	return fmt.Errorf("the marker of the store's keys was not written: %w", err)
}

// rereads reports whether err, an error from writeMarker, may mean that another process has written
// the marker or that the response was lost.
func rereads(err error) bool {
	return isOneOf(err, driver.ErrConflict, driver.ErrExists, driver.ErrNotFound, driver.ErrUnavailable)
}

// nextMarker returns the marker to write over m, or nil if m needs no change.
func (l *Ledger) nextMarker(ctx context.Context, m storedMarker, change func(*marker) bool) (*marker, error) {
	next := m.marker
	changed := !m.exists
	if !m.exists {
		next = marker{Version: markerVersion, Salt: l.NewNonce()}
		if err := l.describe(ctx, &next); err != nil {
			return nil, err
		}
	}
	next.Labels, next.Records = slices.Clone(next.Labels), slices.Clone(next.Records)
	if d := next.digest("label", l.IndexKeys[0]); !slices.Contains(next.Labels, d) {
		next.Labels, changed = append(next.Labels, d), true
	}
	if !slices.ContainsFunc(next.Records, l.writes) {
		form, err := l.form()
		if err != nil {
			return nil, err
		}
		next.Records, changed = append(next.Records, form), true
	}
	if change != nil {
		changed = change(&next) || changed
	}
	if !changed {
		return nil, nil
	}
	return &next, nil
}

// describe adds to m the keys of a store without a marker. If the store has records, any
// index key of l may be in use, and so may the unencrypted form of records if l reads that
// form.
func (l *Ledger) describe(ctx context.Context, m *marker) error {
	n, empty, err := l.sample(ctx)
	if err != nil {
		return err
	}
	m.Names = []string{m.digest("name", n.key)}
	if empty {
		return nil
	}
	for _, key := range l.IndexKeys {
		m.Labels = append(m.Labels, m.digest("label", key))
	}
	plain, err := stored.Encode(stored.Record{Born: l.NewNonce()})
	if err == nil && l.reads(plain) == nil {
		m.Records = append(m.Records, plain)
	}
	return err
}

func (l *Ledger) writeMarker(ctx context.Context, base storedMarker, m marker) error {
	m.Nonce = l.NewNonce()
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	p := driver.Payload{Data: data, Incarnation: m.Salt}
	if !base.exists {
		_, err = l.Driver.Create(ctx, markerName, p)
	} else {
		_, err = l.Driver.Update(ctx, markerName, base.secret, p)
	}
	return err
}

// sampleSize is the maximum number of records that sample reads.
const sampleSize = 16

// sample reads some records of a store without a marker, and returns the Namer that fits the
// most names. It also reports whether the store is empty. If no record identifies a Namer,
// sample returns the Namer without a key if l has that Namer, and otherwise l.Namer(). The
// error matches ErrWrongKeys if no record fits the keys of l and at least one record
// contradicts the keys.
func (l *Ledger) sample(ctx context.Context) (n Namer, empty bool, err error) {
	namers := l.Namers()
	fits, looked, best := make([]int, len(namers)), 0, 0
	var misfit error
	for named, err := range l.list(ctx, func(driver.Named, error) {}) {
		if err != nil && named.Name == "" {
			return Namer{}, false, err
		}
		if looked++; looked > sampleSize {
			break
		}
		if err != nil {
			continue // an unreadable record does not identify the keys
		}
		i, err := l.namedBy(named)
		if i >= 0 {
			fits[i]++
		} else if err != nil && misfit == nil {
			misfit = err
		}
	}
	for i := range fits {
		if fits[i] > fits[best] {
			best = i
		}
	}
	switch {
	case fits[best] > 0:
		return namers[best], false, nil
	case misfit != nil:
		return Namer{}, false, fmt.Errorf("%w: %v", ErrWrongKeys, misfit) // %v, so that the error has only one class
	case slices.ContainsFunc(l.NameKeys, func(key []byte) bool { return key == nil }):
		return Namer{}, looked == 0, nil
	}
	return l.Namer(), looked == 0, nil
}

// namedBy returns the index of the Namer that fits a listed record. It returns -1 and an
// error if no Namer fits or the record cannot be decoded. It returns -1 and nil if the record
// does not show which Namer fits.
func (l *Ledger) namedBy(named driver.Named) (int, error) {
	e, err := l.toEntry(Name(named.Name), named.Secret)
	if err != nil {
		return -1, err
	}
	if e.Target() != nil || !rules.HasCredential(e.Token) {
		return -1, nil
	}
	labelled := slices.ContainsFunc(l.Namers(), func(n Namer) bool {
		is := l.CompareLabels(n, e.Record)
		return is.Fitting+len(is.Old) > 0 || len(is.Unkeyed)+len(is.Unknown) == 0
	})
	i := slices.IndexFunc(l.Namers(), func(n Namer) bool { return n.Fits(e) })
	if !labelled || i < 0 {
		return -1, fmt.Errorf("the name or the labels of the secret %q were made with other keys", named.Name)
	}
	return i, nil
}

// adopt makes sure, after a write, that a store with keys has a marker. It only logs a failure,
// because this process does not need the marker, and the next write calls adopt again.
func (l *Ledger) adopt(ctx context.Context) {
	if l.keysFit.Load() {
		return
	}
	if keyed, err := l.keyed(); err != nil || !keyed {
		return
	}
	if _, err := l.ensureMarker(ctx, nil); err != nil {
		l.Logger.WarnContext(ctx, "tokenstore: the marker of the store's keys could not be written", "error", err.Error())
	}
}

// removeMarker removes the marker of an empty store, so that new records can have other
// keys.
func (l *Ledger) removeMarker(ctx context.Context) error {
	secret, err := l.Driver.Fresh(ctx, markerName, driver.Secret{})
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = l.Driver.Delete(ctx, markerName, secret)
	}
	if err != nil {
		return fmt.Errorf("secret %q was not deleted: %w", markerName, err)
	}
	l.keysFit.Store(false)
	return nil
}

// AnnounceKeys adds the current keys to the marker. Call AnnounceKeys before the first write
// under new keys. If dry is set, AnnounceKeys only checks the marker. settled reports whether
// the current name key was the only name key in the marker before the call.
func (l *Ledger) AnnounceKeys(ctx context.Context, dry bool) (settled bool, err error) {
	m, err := l.readMarker(ctx, true)
	if err == nil {
		err = l.checkMarker(m)
	}
	settled = m.exists && slices.Equal(m.Names, []string{m.digest("name", l.NameKeys[0])})
	if err != nil || dry {
		return settled, err
	}
	keyed, err := l.keyed()
	if err != nil || !m.exists && !keyed && len(l.NameKeys) == 1 {
		return settled, err
	}
	_, err = l.ensureMarker(ctx, func(m *marker) bool {
		d := m.digest("name", l.NameKeys[0])
		if slices.Contains(m.Names, d) {
			return false
		}
		m.Names = append(slices.Clone(m.Names), d)
		return true
	})
	return settled, err
}

// SettleKeys removes all keys except the current keys from the marker. If the current keys
// are nil and the codec does not encrypt, SettleKeys removes the marker. changed reports
// whether a write of SettleKeys may have been applied. If changed is true, another process may
// have created a record under the old keys just before the write.
func (l *Ledger) SettleKeys(ctx context.Context) (changed bool, err error) {
	keyed, err := l.keyed()
	if err != nil {
		return false, err
	}
	var last error
	for range markerAttempts {
		m, err := l.readMarker(ctx, true)
		switch {
		case err != nil:
			return changed, err
		case !m.exists:
			return changed, nil
		}
		next := m.marker
		next.Names = []string{m.digest("name", l.NameKeys[0])}
		next.Labels = []string{m.digest("label", l.IndexKeys[0])}
		next.Records = slices.DeleteFunc(slices.Clone(m.Records), func(form []byte) bool { return !l.writes(form) })
		switch {
		case !keyed:
			err = l.Driver.Delete(ctx, markerName, m.secret)
		case slices.Equal(next.Names, m.Names) && slices.Equal(next.Labels, m.Labels) && len(next.Records) == len(m.Records):
			return changed, nil
		default:
			err = l.writeMarker(ctx, m, next)
		}
		if err != nil && !rereads(err) {
			return changed, err
		}
		last, changed = err, changed || err == nil || errors.Is(err, driver.ErrUnavailable)
	}
	return changed, notWritten(last)
}
