package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/handover"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lease"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// A Store is a TokenStore that keeps records in a secret manager, through a driver.
//
// The methods of a Store are safe for concurrent use. No goroutine of a Store outlives the
// call that started the goroutine. A Store keeps no token in memory between calls.
type Store struct {
	driver driver.Secrets // as passed to New
	ledger *ledger.Ledger
	o      *Options // behind a pointer, because package fmt prints unexported fields
	engine *refreshing.Engine
	leases *lease.Leases
	closed atomic.Bool
}

// Format prints only the type and driver of s, so that package fmt does not print keys.
func (s *Store) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "*tokenstore.Store(%s)", s.ledger.Properties.Name)
}

var (
	_ TokenStore = (*Store)(nil)
	_ Refresher  = (*Store)(nil)
)

// New returns a Store that uses the driver d. opts may be nil. New does no I/O. It returns an
// error if d is nil or an option is invalid.
func New(d driver.Secrets, opts *Options) (*Store, error) {
	if d == nil {
		return nil, errors.New("tokenstore: the driver is nil")
	}
	o, err := opts.complete()
	if err != nil {
		return nil, err
	}
	s := &Store{o: &o, driver: d, ledger: ledger.New(d, ledger.Config{
		NameKeys:  append([][]byte{o.NameKey}, o.OtherNameKeys...),
		IndexKeys: o.IndexKeys,
		Codec:     o.Codec,
		NoAccess:  o.NoAccessLabel,
		Now:       o.Now,
		Logger:    o.Logger,
		Attempts:  o.Attempts,
		Observer:  o.Observer,
	})}
	s.engine, s.leases = s.newEngine(), s.newLeases()
	return s, nil
}

// Close releases the resources that the driver acquired, but does not close the client that
// was passed to the driver. Operations that begin after Close fail with an error matching
// ErrUnavailable. Later calls of Close return nil.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.error("close", "", s.driver.Close())
}

// error returns err as an *Error of the operation op, or nil if err is nil. id may be empty.
func (s *Store) error(op, id string, err error) error {
	return NewError(op, s.ledger.Properties.Name, id, err)
}

// begin returns an error matching ErrUnavailable if s is closed, and ctx.Err() otherwise.
func (s *Store) begin(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("%w: the store is closed", ErrUnavailable)
	}
	return ctx.Err()
}

// FindToken implements TokenStore.
func (s *Store) FindToken(ctx context.Context, like Token) (Token, error) {
	f, err := s.find(ctx, like.Fields())
	return FromFields(f), s.error("find", like.ID, err)
}

// FindTokenByID implements TokenStore.
func (s *Store) FindTokenByID(ctx context.Context, id string) (Token, error) {
	f, err := s.find(ctx, codec.Fields{ID: id})
	return FromFields(f), s.error("find by ID", id, err)
}

func (s *Store) find(ctx context.Context, like codec.Fields) (codec.Fields, error) {
	if err := s.begin(ctx); err != nil {
		return codec.Fields{}, err
	}
	like, err := rules.Canonical(like)
	if err != nil {
		return codec.Fields{}, err
	}
	if rules.KeyOf(like) == rules.KeyNone {
		_, err := rules.Select(like, nil)
		return codec.Fields{}, err
	}
	rec, match, err := s.only(ctx, s.ledger.View(false), like)
	if err != nil {
		return codec.Fields{}, err
	}
	handover.Keep(ctx, s, rec.Token.ID, rec)
	if match.Former.GrantToken {
		like.GrantToken = ""
	}
	if match.Former.RefreshToken {
		like.RefreshToken = ""
	}
	return rules.Merge(match.Fields, like), nil
}

// only returns the record that like describes, as an entry and as a candidate. The error matches
// ErrNotFound if no record matches, and ErrAmbiguous if several records match and no rule prefers
// one of them. If an unreadable record might match better, the error joins an *UnreadableError for
// each unreadable record that v found.
func (s *Store) only(ctx context.Context, v *ledger.View, like codec.Fields) (ledger.Entry, rules.Candidate, error) {
	records, err := s.matches(ctx, v, like)
	if err != nil {
		return ledger.Entry{}, rules.Candidate{}, err
	}
	candidates := s.ledger.Candidates(records, like)
	i, err := rules.Select(like, candidates)
	if unread := v.Unread(); unread != nil && (errors.Is(err, ErrNotFound) || err == nil && !rules.Settled(like, candidates[i])) {
		return ledger.Entry{}, rules.Candidate{}, unread
	}
	if errors.Is(err, ErrNotFound) {
		err = s.behind(like, err)
	}
	if err != nil {
		return ledger.Entry{}, rules.Candidate{}, err
	}
	return records[i], candidates[i], nil
}

// behind returns err, which must match ErrNotFound. If a search by the fields in like may miss a
// record, behind adds the reason to the text of the error.
func (s *Store) behind(like codec.Fields, err error) error {
	if s.o.NoAccessLabel && rules.KeyOf(like) == rules.KeyAccess {
		return fmt.Errorf("%w: records of this store have no labels of access tokens", err)
	}
	listLag := s.ledger.Properties.ListLag
	if _, terms := s.ledger.Keys(like); len(terms) == 0 || listLag == 0 {
		return err
	}
	by := map[rules.Key]string{
		rules.KeyID: "an ID that the caller chose", rules.KeyUser: "user without client",
		rules.KeyAccess: "access token", rules.KeyGrant: "grant or refresh token",
	}[rules.KeyOf(like)]
	lag := "for which there is no documented bound"
	if listLag != driver.Unbounded {
		lag = fmt.Sprintf("by up to %v", listLag)
	}
	return fmt.Errorf("%w: a search by %s may be out of date, %s", err, by, lag)
}

// matches returns the records that like may describe. After the call, v.Unread returns the
// errors for the unreadable records. If no record is found and the store was written with
// other keys, the error matches ErrWrongKeys.
func (s *Store) matches(ctx context.Context, v *ledger.View, like codec.Fields) ([]ledger.Entry, error) {
	names, terms := s.ledger.Keys(like)
	records, err := v.Search(ctx, names, terms)
	if err != nil || len(records) > 0 {
		return records, err
	}
	if v.Unread() != nil {
		// The keys need no check: if no record matches, the caller returns the error for the
		// unreadable record instead of ErrNotFound.
		return s.furtherMatches(ctx, v, like, names)
	}
	missed := s.ledger.Missing(ctx)
	records, err = s.furtherMatches(ctx, v, like, names)
	if wrong := missed(err == nil && len(records) == 0 && v.Unread() == nil); wrong != nil {
		return nil, wrong
	}
	return records, err
}

// furtherMatches returns the records that like may describe and that the first search
// did not find. The parameter names holds the names that the first search read.
func (s *Store) furtherMatches(ctx context.Context, v *ledger.View, like codec.Fields, names []ledger.Name) (records []ledger.Entry, err error) {
	if ledger.Name(like.ID).Derived() {
		// The record may have been merged into another record or renamed by Rekey. A writer
		// may have removed the entry that led from the old name to the record.
		records, err = v.Search(ctx, nil, s.ledger.FormerTerms(like.ID))
	}
	if err == nil && len(records) == 0 && v.Unread() == nil && !v.Current() {
		for _, name := range names {
			if err := v.Seek(ctx, name, true); err != nil {
				return nil, err
			}
		}
		records, err = v.Records(ctx)
	}
	return records, err
}

// All returns an iterator over all records, in no particular order. The iterator does not
// hold all records in memory. For an unreadable record, the iterator yields an error that
// wraps an *UnreadableError, and continues. The Token beside that error has only an ID, the
// name of the secret. An error with the zero Token ends the iteration. If a record gets a
// user during the iteration, the iterator may yield the record twice, under its old ID and
// under its new ID. All may miss a write that returned less than ListLag ago.
func (s *Store) All(ctx context.Context) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		for rec, err := range s.all(ctx) {
			if !yield(FromFields(rec.Token), s.error("list", rec.Token.ID, err)) {
				return
			}
		}
	}
}

func (s *Store) all(ctx context.Context) iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		if err := s.begin(ctx); err != nil {
			yield(ledger.Entry{}, err)
			return
		}
		for e, err := range s.ledger.Entries(ctx) {
			name := e.Name
			if err == nil {
				if e, err = s.listed(ctx, e); errors.Is(err, ErrNotFound) {
					continue
				}
				err = ledger.OfListed(ctx, string(name), err)
			}
			if ledger.OnlyUnreadable(err) != nil {
				e = ledger.Entry{Token: codec.Fields{ID: string(name)}}
			}
			if !yield(e, err) || err != nil && ledger.OnlyUnreadable(err) == nil {
				return
			}
		}
	}
}

// listed returns the record in e, an entry from a list. The error matches ErrNotFound if e
// holds no token yet. The error also matches ErrNotFound if e has moved, because the list
// then yields the record under another name.
func (s *Store) listed(ctx context.Context, e ledger.Entry) (ledger.Entry, error) {
	if e.Target() != nil {
		return ledger.Entry{}, ErrNotFound
	}
	rec, err := s.ledger.View(false).Record(ctx, e)
	if errors.Is(err, ErrNotFound) && s.ledger.Properties.ReadLag > 0 && len(e.Joining) > 0 {
		// An entry in e.Joining may have moved to e after e was listed. The method all leaves
		// out entries that have moved, so only e can yield the record.
		rec, err = s.ledger.View(true).Record(ctx, e)
	}
	return rec, err
}

// GetTokens implements TokenStore.
func (s *Store) GetTokens(ctx context.Context) ([]Token, error) {
	var records []ledger.Entry
	var unread []*UnreadableError
	merged := map[stored.Ref]bool{}
	for rec, err := range s.all(ctx) {
		if u := ledger.OnlyUnreadable(err); u != nil {
			unread = append(unread, u)
			continue
		}
		if err != nil {
			return nil, s.error("list", "", err)
		}
		for _, from := range rec.Frozen {
			merged[from.Ref()] = true
		}
		for _, ref := range rec.Absorbed {
			merged[ref] = true
		}
		records = append(records, rec)
	}
	tokens := make([]Token, 0, len(records))
	for _, rec := range records {
		// A record that was moved or merged may also be in the list in its earlier state.
		if !merged[rec.Ref()] {
			tokens = append(tokens, FromFields(rec.Token))
		}
	}
	slices.SortFunc(tokens, func(a, b Token) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, s.error("list", "", ledger.JoinUnreadable(unread))
}
