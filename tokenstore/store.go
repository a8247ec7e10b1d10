package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/flight"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/backoff"
)

// A Store is the TokenStore on a driver.
//
// Its methods are safe for concurrent use. A Store starts no goroutine that
// outlives the call that started it, and keeps no token in memory between calls.
type Store struct {
	driver     driver.Secrets
	properties driver.Properties
	o          *Options                                   // behind a pointer: package fmt prints what is in unexported fields
	wait       func(context.Context, time.Duration) error // sleeps; tests count instead
	flights    flight.Group[Token]
	leases     leases // of other processes, that Refresh has watched
	closed     atomic.Bool
	fitting    atomic.Bool          // the store has a marker, and the keys fit it
	encrypts   atomic.Pointer[bool] // whether the codec does; nil: not known yet
}

// Format prints s as its type. Package fmt would print the keys within it.
func (s *Store) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "*tokenstore.Store(%s)", s.properties.Name)
}

var (
	_ TokenStore = (*Store)(nil)
	_ Refresher  = (*Store)(nil)
)

// New returns a Store on d. It does no I/O. opts may be nil.
func New(d driver.Secrets, opts *Options) (*Store, error) {
	if d == nil {
		return nil, errors.New("tokenstore: the driver is nil")
	}
	o, err := opts.complete()
	if err != nil {
		return nil, err
	}
	properties := d.Properties()
	if c, ok := o.Codec.(codec.Placed); ok {
		o.Codec = c.At(properties.Place)
	}
	return &Store{driver: d, properties: properties, o: &o, wait: backoff.Sleep}, nil
}

// Close releases what the driver acquired; not the client that the driver was
// given. The Store must not be used afterwards: its methods fail with an error
// matching ErrUnavailable.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.error("close", "", s.driver.Close())
}

// error makes the one *Error that a method returns.
func (s *Store) error(op, id string, err error) error {
	return NewError(op, s.properties.Name, id, err)
}

// begin checks what every method checks first.
func (s *Store) begin(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("%w: the store is closed", ErrUnavailable)
	}
	return ctx.Err()
}

// FindToken implements TokenStore.
func (s *Store) FindToken(ctx context.Context, like Token) (Token, error) {
	t, err := s.find(ctx, like)
	return t, s.error("find", like.ID, err)
}

// FindTokenByID implements TokenStore.
func (s *Store) FindTokenByID(ctx context.Context, id string) (Token, error) {
	t, err := s.find(ctx, Token{ID: id})
	return t, s.error("find by ID", id, err)
}

func (s *Store) find(ctx context.Context, like Token) (Token, error) {
	if err := s.begin(ctx); err != nil {
		return Token{}, err
	}
	if err := Validate(like); err != nil {
		return Token{}, err
	}
	if KeyOf(like) == KeyNone {
		_, err := Select(like, nil)
		return Token{}, err
	}
	_, found, err := s.only(ctx, s.reader(false), like)
	if err != nil {
		return Token{}, err
	}
	if found.Former.GrantToken {
		like.GrantToken = ""
	}
	if found.Former.RefreshToken {
		like.RefreshToken = ""
	}
	return Merge(found.Token, like), nil
}

// only returns the record that like describes. The error matches ErrNotFound if
// there is none, and is an *UnreadableError if that, or which one it is, depends
// on a record that cannot be read.
func (s *Store) only(ctx context.Context, r *reader, like Token) (record, Candidate, error) {
	records, err := s.matches(ctx, r, like)
	if err != nil {
		return record{}, Candidate{}, err
	}
	candidates := s.candidates(records, like)
	i, err := Select(like, candidates)
	if unread := r.unread(); unread != nil && (errors.Is(err, ErrNotFound) || err == nil && !settled(like, candidates[i])) {
		return record{}, Candidate{}, unread
	}
	if errors.Is(err, ErrNotFound) {
		err = s.behind(like, err)
	}
	if err != nil {
		return record{}, Candidate{}, err
	}
	return records[i], candidates[i], nil
}

// behind returns err, that nothing like like is found, with a word on how far the
// search for it may be behind.
func (s *Store) behind(like Token, err error) error {
	if _, terms := s.keys(like); len(terms) == 0 || s.properties.ListLag == 0 {
		return err
	}
	by := map[Key]string{
		KeyID: "an ID that the caller chose", KeyUser: "user without client",
		KeyAccess: "access token", KeyGrant: "grant or refresh token",
	}[KeyOf(like)]
	lag := "for which there is no documented bound"
	if s.properties.ListLag != driver.Unbounded {
		lag = fmt.Sprintf("by up to %v", s.properties.ListLag)
	}
	return fmt.Errorf("%w: a search by %s may be out of date, %s", err, by, lag)
}

// matches returns the records that like may describe, by the row that applies to
// it. If there may be more, r tells what cannot be read.
func (s *Store) matches(ctx context.Context, r *reader, like Token) ([]record, error) {
	names, terms := s.keys(like)
	records, err := r.collect(ctx, names, terms)
	if err != nil || len(records) > 0 {
		return records, err
	}
	if r.unread() != nil {
		// What cannot be read is the answer, unless more is found.
		return s.seekFurther(ctx, r, like, names)
	}
	missed := s.missing(ctx)
	records, err = s.seekFurther(ctx, r, like, names)
	if wrong := missed(err == nil && len(records) == 0 && r.unread() == nil); wrong != nil {
		return nil, wrong
	}
	return records, err
}

// seekFurther looks for what like describes where it is not looked for at first:
// names are those that were probed.
func (s *Store) seekFurther(ctx context.Context, r *reader, like Token, names []string) (records []record, err error) {
	if like.ID != "" && derived(like.ID) {
		// The record may have been absorbed by another, or Rekey has moved it, and
		// the alias was removed.
		records, err = r.collect(ctx, nil, s.formerTerms(like.ID))
	}
	if err == nil && len(records) == 0 && r.unread() == nil && !r.fresh && s.properties.ReadLag > 0 {
		for _, name := range names {
			if err := r.seek(ctx, name, r.reread); err != nil {
				return nil, err
			}
		}
		records, err = r.records(ctx)
	}
	return records, err
}

// keys returns the names to probe and the terms to search for, by the row that
// applies to like, under each of the name keys.
func (s *Store) keys(like Token) (names []string, terms []term) {
	for _, under := range s.namings() {
		n, t := under.keysOf(like)
		names, terms = append(names, n...), append(terms, t...)
	}
	if len(s.o.OtherNameKeys) > 0 {
		slices.Sort(names)
		names = slices.Compact(names) // an ID is one name under all keys
	}
	return names, terms
}

func (s *Store) keysOf(like Token) (names []string, terms []term) {
	switch KeyOf(like) {
	case KeyID:
		if derived(like.ID) {
			return []string{like.ID}, nil
		}
		return nil, []term{s.idTerm(like.ID)}
	case KeyUser:
		names = []string{s.userName(like.UserName, like.ClientID)}
		if like.ClientID == "" {
			terms = []term{s.userTerm(like.UserName)}
		}
	case KeyAccess:
		name := s.accessName(like.AccessToken)
		names = []string{name}
		terms = []term{{"access", name[1:]}}
	case KeyGrant:
		like.AccessToken = ""
		for _, name := range s.tokenNames(like) {
			names = append(names, name)
			if t, ok := nameTerm(name); ok {
				terms = append(terms, t)
			}
		}
	case KeyNone:
	}
	return names, terms
}

// All returns an iterator over all records, in no particular order and with
// bounded memory. A record that cannot be read is yielded as a Token that has
// only an ID, the name of its secret, together with an *UnreadableError, and the
// iteration goes on. An error that is yielded with the zero Token ends it. A record that gets its user meanwhile may be yielded with
// its old ID and its new one.
func (s *Store) All(ctx context.Context) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		for rec, err := range s.all(ctx) {
			if !yield(rec.current, s.error("list", rec.current.ID, err)) {
				return
			}
		}
	}
}

func (s *Store) all(ctx context.Context) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		if err := s.begin(ctx); err != nil {
			yield(record{}, err)
			return
		}
		for named, err := range ours(s.secrets(ctx)) {
			var rec record
			if err == nil {
				rec, err = s.listed(ctx, named)
				if errors.Is(err, ErrNotFound) {
					continue
				}
			}
			err = listedErr(ctx, named.Name, err)
			if onlyUnreadable(err) != nil {
				rec = record{current: Token{ID: named.Name}}
			}
			if !yield(rec, err) || err != nil && onlyUnreadable(err) == nil {
				return
			}
		}
	}
}

// secrets yields what driver.List yields, without the marker.
func (s *Store) secrets(ctx context.Context) iter.Seq2[driver.Named, error] {
	return func(yield func(driver.Named, error) bool) {
		for named, err := range s.driver.List(ctx) {
			if named.Name != markerName && !yield(named, err) {
				return
			}
		}
	}
}

// listed returns the record in a listed secret. One that has moved elsewhere is
// listed there: the error matches ErrNotFound.
func (s *Store) listed(ctx context.Context, named driver.Named) (record, error) {
	e, err := s.entry(named.Name, named.Secret)
	if err != nil {
		return record{}, err
	}
	if e.target() != nil {
		return record{}, ErrNotFound
	}
	rec, err := s.reader(false).view(ctx, e)
	if errors.Is(err, ErrNotFound) && s.properties.ReadLag > 0 && len(e.record.Joining) > 0 {
		// What it waits for may have moved to it since, and is not listed itself.
		rec, err = s.reader(true).view(ctx, e)
	}
	return rec, err
}

// GetTokens implements TokenStore.
func (s *Store) GetTokens(ctx context.Context) ([]Token, error) {
	var records []record
	var unread []*UnreadableError
	joined := map[codec.Ref]bool{}
	for rec, err := range s.all(ctx) {
		if u := onlyUnreadable(err); u != nil {
			unread = append(unread, u)
			continue
		}
		if err != nil {
			return nil, s.error("list", "", err)
		}
		for _, p := range rec.pending {
			joined[p.ref()] = true
		}
		for _, ref := range rec.record.Absorbed {
			joined[ref] = true
		}
		records = append(records, rec)
	}
	tokens := make([]Token, 0, len(records))
	for _, rec := range records {
		// A record that moved while the list was read may have been read before
		// it did, and its target after.
		if !joined[rec.ref()] {
			tokens = append(tokens, rec.current)
		}
	}
	slices.SortFunc(tokens, func(a, b Token) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, s.error("list", "", joinUnreadable(unread))
}
