package tokenstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// markerName is the name of the secret that says which keys a store is under. No
// record's name has this form.
const markerName = "keys"

// markerVersion is the version of the marker that this package writes.
const markerVersion = 1

// A marker says which keys a store is under, and holds none of them: a digest under
// each key of names and labels, and a record without content in each form that
// records have. Keys are random and have 128 bits or more, so that a digest is of
// no help in finding one.
//
// A store without keys has no marker. A handle fits a store if it knows every key
// that the marker tells of: it finds all that is there, and reads it.
type marker struct {
	Version int      `json:"v"`
	Salt    string   `json:"salt"`    // of the digests: two stores under one key do not show it
	Names   []string `json:"names"`   // the first is the one that records are created under
	Labels  []string `json:"labels"`  // of the keys that labels are by
	Records [][]byte `json:"records"` // as the codec encodes a record without content
	Nonce   string   `json:"nonce"`   // of this write
}

// unkeyed is the digest of no key.
const unkeyed = "none"

func (m marker) digest(kind string, key []byte) string {
	if key == nil {
		return unkeyed
	}
	return digest(key, "marker", kind, m.Salt)
}

// known reports whether each digest is that of one of the keys.
func (m marker) known(kind string, digests []string, keys [][]byte) bool {
	return !slices.ContainsFunc(digests, func(d string) bool {
		return !slices.ContainsFunc(keys, func(key []byte) bool { return m.digest(kind, key) == d })
	})
}

// A storedMarker is a marker as it was read. The zero value is that of a store
// without one.
type storedMarker struct {
	marker
	there  bool
	secret driver.Secret
}

// nameKeys returns the keys that records may be named by, NameKey first.
func (s *Store) nameKeys() [][]byte { return append([][]byte{s.o.NameKey}, s.o.OtherNameKeys...) }

// under returns the store as it is when records are named by key alone.
func (s *Store) under(key []byte) *Store {
	o := *s.o
	o.NameKey, o.OtherNameKeys = key, nil
	return &Store{driver: s.driver, properties: s.properties, o: &o, wait: s.wait}
}

// namings returns the store under each of its name keys, NameKey first.
func (s *Store) namings() []*Store {
	if len(s.o.OtherNameKeys) == 0 {
		return []*Store{s}
	}
	var all []*Store
	for _, key := range s.nameKeys() {
		all = append(all, s.under(key))
	}
	return all
}

// keyed reports whether what the store writes is under any key.
func (s *Store) keyed() (bool, error) {
	if s.o.NameKey != nil || s.o.IndexKeys[0] != nil {
		return true, nil
	}
	if known := s.encrypts.Load(); known != nil {
		return *known, nil
	}
	form, err := s.form()
	if err != nil {
		return false, err
	}
	_, err = codec.JSON.Decode(markerName, form)
	encrypts := err != nil
	s.encrypts.Store(&encrypts)
	return encrypts, nil
}

// form returns a record without content in the form that the store writes.
func (s *Store) form() ([]byte, error) {
	return s.o.Codec.Encode(markerName, codec.Record{Born: nonce()})
}

// reads reports why the codec does not read a form.
func (s *Store) reads(form []byte) error {
	_, err := s.o.Codec.Decode(markerName, form)
	return err
}

// writes reports whether a form is the one that the codec writes.
func (s *Store) writes(form []byte) bool {
	if c, ok := s.o.Codec.(codec.Rotating); ok {
		return c.Current(markerName, form)
	}
	return s.reads(form) == nil
}

// readMarker reads the marker, in one call unless fresh is set.
func (s *Store) readMarker(ctx context.Context, fresh bool) (storedMarker, error) {
	var secret driver.Secret
	var err error
	if fresh {
		secret, err = s.driver.Fresh(ctx, markerName, driver.Secret{})
	} else {
		secret, err = s.driver.Get(ctx, markerName)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return storedMarker{}, nil
	case err != nil:
		return storedMarker{}, unreadable(markerName, err)
	}
	m := storedMarker{there: true, secret: secret}
	if json.Unmarshal(secret.Data, &m.marker) != nil || m.Version != markerVersion || len(m.Names) == 0 {
		return m, unreadable(markerName, fmt.Errorf("%w: it is not what a store says of its keys, in version %d", ErrCorrupt, markerVersion))
	}
	return m, nil
}

// fitsMarker returns an error matching ErrWrongKeys if the store is under a key
// that this handle does not know.
func (s *Store) fitsMarker(m storedMarker) error {
	switch {
	case !m.there:
		return nil
	case !m.known("name", m.Names, s.nameKeys()):
		return fmt.Errorf("%w: its names are by another NameKey", ErrWrongKeys)
	case !m.known("label", m.Labels, s.o.IndexKeys):
		return fmt.Errorf("%w: its labels are by a key that is not among IndexKeys", ErrWrongKeys)
	}
	for _, form := range m.Records {
		if err := s.reads(form); err != nil {
			return fmt.Errorf("%w: its records: %w", ErrWrongKeys, err)
		}
	}
	return nil
}

// missed is asked before it is said that there is no such record. It returns an
// error matching ErrWrongKeys if the store is under other keys.
//
// That the keys fit is remembered. That there is no marker is not: another process
// may write one.
func (s *Store) missed(ctx context.Context) error {
	if s.fitting.Load() {
		return nil
	}
	m, err := s.readMarker(ctx, false)
	if err != nil {
		return err
	}
	if err := s.fitsMarker(m); err != nil {
		return err
	}
	if m.there {
		s.fitting.Store(true)
		return nil
	}
	if keyed, err := s.keyed(); err != nil || !keyed {
		return err
	}
	_, _, err = s.sample(ctx)
	return err
}

// missing begins to read the marker while the caller goes on looking for a record.
// The function that it returns ends that: if the answer is needed, it waits for what
// missed returns, and otherwise it breaks the read off and returns nil.
func (s *Store) missing(ctx context.Context) func(needed bool) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.missed(ctx) }()
	return func(needed bool) error {
		defer cancel()
		if needed {
			return <-done
		}
		cancel()
		<-done
		return nil
	}
}

// markerAttempts is how often a marker is written that others write too. Only
// processes that begin with the same keys at the same time do.
const markerAttempts = 10

// naming returns the name key that a record is created under, after it has made
// sure that the store is under the keys of this handle, and says so. It is asked
// before each creation: another process may have brought in keys since.
func (s *Store) naming(ctx context.Context) (key []byte, err error) {
	m, err := s.ensureMarker(ctx, nil)
	if err != nil {
		return nil, err
	}
	if !m.there {
		return s.o.NameKey, nil
	}
	for _, key := range s.nameKeys() {
		if m.digest("name", key) == m.Names[0] {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%w: its names are by another NameKey", ErrWrongKeys)
}

// ensureMarker reads the marker, checks it, and adds what this handle writes and
// change asks for. change may be nil; it returns false if there is nothing to be
// changed. A handle without keys adds no marker.
func (s *Store) ensureMarker(ctx context.Context, change func(*marker) bool) (storedMarker, error) {
	keyed, err := s.keyed()
	if err != nil {
		return storedMarker{}, err
	}
	var last error
	for n := range markerAttempts {
		m, err := s.readMarker(ctx, n > 0 || len(s.o.OtherNameKeys) > 0)
		if err != nil {
			return m, err
		}
		if err := s.fitsMarker(m); err != nil {
			return m, err
		}
		if !m.there && !keyed && change == nil {
			return m, nil
		}
		next, err := s.nextMarker(ctx, m, change)
		if err != nil {
			return m, err
		}
		if next == nil {
			s.fitting.Store(true)
			return m, nil
		}
		if last = s.writeMarker(ctx, m, *next); last != nil && !rereads(last) {
			return m, last
		}
	}
	return storedMarker{}, fmt.Errorf("what the store says of its keys was not written: %w", last)
}

// rereads reports whether after an error of writeMarker the marker is read again:
// another process came first, or the answer was lost.
func rereads(err error) bool {
	return slices.ContainsFunc([]error{ErrConflict, driver.ErrExists, ErrNotFound, ErrUnavailable}, func(class error) bool { return errors.Is(err, class) })
}

// nextMarker returns the marker to be written over m, or nil if m is as it should
// be.
func (s *Store) nextMarker(ctx context.Context, m storedMarker, change func(*marker) bool) (*marker, error) {
	next := m.marker
	changed := !m.there
	if !m.there {
		next = marker{Version: markerVersion, Salt: nonce()}
		if err := s.describe(ctx, &next); err != nil {
			return nil, err
		}
	}
	next.Labels, next.Records = slices.Clone(next.Labels), slices.Clone(next.Records)
	if d := next.digest("label", s.o.IndexKeys[0]); !slices.Contains(next.Labels, d) {
		next.Labels, changed = append(next.Labels, d), true
	}
	if !slices.ContainsFunc(next.Records, s.writes) {
		form, err := s.form()
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

// describe fills in what is found in a store that says nothing of its keys. If it
// has records, each key that this handle reads with may be in use there.
func (s *Store) describe(ctx context.Context, m *marker) error {
	key, empty, err := s.sample(ctx)
	if err != nil {
		return err
	}
	m.Names = []string{m.digest("name", key)}
	if empty {
		return nil
	}
	for _, key := range s.o.IndexKeys {
		m.Labels = append(m.Labels, m.digest("label", key))
	}
	plain, err := codec.JSON.Encode(markerName, codec.Record{Born: nonce()})
	if err == nil && s.reads(plain) == nil {
		m.Records = append(m.Records, plain)
	}
	return err
}

func (s *Store) writeMarker(ctx context.Context, base storedMarker, m marker) error {
	m.Nonce = nonce()
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	p := driver.Payload{Data: data, Incarnation: m.Salt}
	if !base.there {
		_, err = s.driver.Create(ctx, markerName, p)
	} else {
		_, err = s.driver.Update(ctx, markerName, base.secret, p)
	}
	return err
}

// sampleSize is how many records of a store without a marker are looked at.
const sampleSize = 16

// sample looks at some records of a store that says nothing of its keys, and
// returns the name key that they are named by. Without records that is the one that
// all who may use the store know: none if that is among them, else NameKey. If
// nothing fits the keys of this handle, and something does not, the error matches
// ErrWrongKeys.
func (s *Store) sample(ctx context.Context) (key []byte, empty bool, err error) {
	of, n := make([]evidence, len(s.nameKeys())), 0
	var misfit error
	for named, err := range s.secrets(ctx) {
		if err != nil && named.Name == "" {
			return nil, false, err
		}
		if n++; n > sampleSize {
			break
		}
		if err != nil {
			continue // it tells nothing of the keys
		}
		if err := s.fitsSample(named, of); err != nil && misfit == nil {
			misfit = err
		}
	}
	best := -1
	for i, e := range of {
		if e.fits > 0 && (best < 0 || e.fits > of[best].fits) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return s.nameKeys()[best], false, nil
	case misfit != nil:
		return nil, false, fmt.Errorf("%w: %v", ErrWrongKeys, misfit) // of one class
	case slices.ContainsFunc(s.o.OtherNameKeys, func(key []byte) bool { return key == nil }):
		return nil, n == 0, nil
	}
	return s.o.NameKey, n == 0, nil
}

// fitsSample counts by which of the name keys a listed record is named. It returns
// why the record does not fit any of them.
func (s *Store) fitsSample(named driver.Named, of []evidence) error {
	e, err := s.entry(named.Name, named.Secret)
	if err != nil {
		return err
	}
	if e.target() != nil || !hasCredential(e.token()) {
		return nil
	}
	labelled := slices.ContainsFunc(s.namings(), func(under *Store) bool {
		is := (&checker{Store: under}).compare(e.record)
		return is.fitting+len(is.old) > 0 || len(is.unkeyed)+len(is.unknown) == 0
	})
	for i, under := range s.namings() {
		if labelled && (&checker{Store: under}).fits(e) {
			of[i].fits++
			return nil
		}
	}
	return fmt.Errorf("the name or the labels of the secret %q are by other keys", named.Name)
}

// adopt says of a store under keys what keys those are, after a write to a record
// that had been found. It matters to others only: if it fails the next write does
// it.
func (s *Store) adopt(ctx context.Context) {
	if s.fitting.Load() {
		return
	}
	if keyed, err := s.keyed(); err != nil || !keyed {
		return
	}
	if _, err := s.ensureMarker(ctx, nil); err != nil {
		s.o.Logger.WarnContext(ctx, "tokenstore: what the store says of its keys could not be written", "error", err.Error())
	}
}

// removeMarker removes the marker of a store that has become empty, so that it can
// be filled under other keys.
func (s *Store) removeMarker(ctx context.Context) error {
	secret, err := s.driver.Fresh(ctx, markerName, driver.Secret{})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = s.driver.Delete(ctx, markerName, secret)
	}
	if err != nil {
		return fmt.Errorf("secret %q was not deleted: %w", markerName, err)
	}
	s.fitting.Store(false)
	return nil
}
