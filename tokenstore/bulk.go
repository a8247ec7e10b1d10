package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/pace"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Create saves t as SaveToken does, but only if t describes no record. The returned bool reports
// whether Create created a record. If t describes a record, Create changes nothing, and returns
// the zero Token and false without an error. The errors are those of SaveToken. If t has no
// access, refresh or grant token, the error may match ErrNotFound even if t describes a record.
//
// Create is meant for programs that save many records. If t has a UserName and a ClientID
// but no ID, and Options.OtherNameKeys is empty, Create does not search for the record
// first. After Create has checked that the keys of s fit the store, it saves such tokens for
// five seconds without another check.
func (s *Store) Create(ctx context.Context, t Token) (saved Token, created bool, err error) {
	f, created, err := s.createNew(ctx, t.Fields())
	return FromFields(f), created, s.error("create", t.ID, err)
}

func (s *Store) createNew(ctx context.Context, f codec.Fields) (saved codec.Fields, created bool, err error) {
	if err := s.begin(ctx); err != nil {
		return codec.Fields{}, false, err
	}
	f, err = rules.Canonical(f)
	if err != nil {
		return codec.Fields{}, false, err
	}
	one := saver{Store: s, Writer: s.ledger.Writer(), token: f}
	if _, ok := s.onlyName(f); ok {
		return one.createFirst(ctx)
	}
	err = s.ledger.Retry(ctx, "create", func(v *ledger.View) (err error) {
		saved, created, err = one.createIfNew(ctx, v)
		return err
	})
	return saved, created && err == nil, err
}

// onlyName returns the name of the record that f describes, if f has no ID and the record
// can have only one name. Otherwise, onlyName returns false.
func (s *Store) onlyName(f codec.Fields) (ledger.Name, bool) {
	if rules.KeyOf(f) != rules.KeyUser {
		return "", false
	}
	names, terms := s.ledger.Keys(f)
	if len(names) != 1 || len(terms) > 0 {
		return "", false
	}
	return names[0], true
}

// createFirst creates a record under the name that onlyName returns, without a search. It
// returns false and no error if an entry already has that name.
func (s *saver) createFirst(ctx context.Context) (codec.Fields, bool, error) {
	plan, err := rules.PlanSave(s.token, nil)
	if err != nil {
		return codec.Fields{}, false, err
	}
	n, err := s.NamerForMany(ctx)
	if err != nil {
		return codec.Fields{}, false, err
	}
	written, err := s.Writer.Create(ctx, n.Of(plan.Fields), stored.Record{Fields: plan.Fields})
	if errors.Is(err, driver.ErrExists) {
		return codec.Fields{}, false, nil
	}
	return written.Token, err == nil, err
}

// createIfNew creates a record, or returns false and no error if s.token describes an
// existing record.
func (s *saver) createIfNew(ctx context.Context, v *ledger.View) (codec.Fields, bool, error) {
	records, err := s.targets(ctx, v)
	if err != nil {
		return codec.Fields{}, false, err
	}
	plan, err := s.plan(v, records)
	if err != nil || plan.Action != rules.Create {
		return codec.Fields{}, false, err
	}
	saved, err := s.create(ctx, v, plan.Fields)
	return saved, err == nil, err
}

// FindTokens returns every record that a token in the slice like describes, and possibly other
// records. The result is ordered by ID. FindTokens may miss a write that returned less than
// ListLag ago.
//
// FindTokens first lists the names in the store, and then reads only the records that it
// needs. It reads all records if that takes fewer calls, or if a token in like does not
// determine the name of its record.
//
// If FindTokens cannot read some of these records, it returns the other records and an error
// that joins an *UnreadableError for each unreadable record. After any other error, the tokens
// are nil.
func (s *Store) FindTokens(ctx context.Context, like []Token) ([]Token, error) {
	if err := s.begin(ctx); err != nil {
		return nil, s.error("find", "", err)
	}
	there, err := s.names(ctx)
	if err == nil {
		err = s.ledger.Missing(ctx)(true)
	}
	switch {
	case err != nil:
		return nil, s.error("find", "", err)
	case len(there) == 0:
		return []Token{}, nil
	}
	var read []ledger.Name
	for _, t := range like {
		name, ok := s.onlyName(t.Fields())
		if id := ledger.Name(t.ID); id.Derived() && there[id] {
			name, ok = id, true
		}
		switch {
		case !ok:
			return s.GetTokens(ctx)
		case there[name]:
			read = append(read, name)
		}
	}
	if batch := s.ledger.Properties.ListBatch; batch > 1 && len(read) > len(there)/batch {
		return s.GetTokens(ctx)
	}
	return s.readEach(ctx, read)
}

// names returns all names in the store that have the form of a record's name.
func (s *Store) names(ctx context.Context) (map[ledger.Name]bool, error) {
	names := map[ledger.Name]bool{}
	for name, err := range s.ledger.Driver.Names(ctx) {
		if err != nil {
			return nil, err
		}
		if ledger.Name(name).Derived() {
			names[ledger.Name(name)] = true
		}
	}
	return names, nil
}

// readEach returns the records that FindTokenByID finds for the names, each record once and
// ordered by ID. Its errors are those of FindTokens.
func (s *Store) readEach(ctx context.Context, names []ledger.Name) ([]Token, error) {
	var mu sync.Mutex
	tokens, unread := []Token{}, []*UnreadableError(nil)
	pacer := pace.New(func(err error) bool { return errors.Is(err, ErrThrottled) }, 0)
	err := pacer.Each(ctx, len(names), func(ctx context.Context, i int) error {
		f, err := s.find(ctx, codec.Fields{ID: string(names[i])})
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			tokens = append(tokens, FromFields(f))
		case errors.Is(err, ErrNotFound):
			return nil
		case ledger.OfOne(err) && !errors.Is(err, ErrUnavailable):
			unread = append(unread, ledger.Unreadable(names[i], err))
			return nil
		}
		return err
	})
	if err != nil {
		return nil, s.error("find", "", err)
	}
	slices.SortFunc(tokens, func(a, b Token) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(tokens, func(a, b Token) bool { return a.ID == b.ID }), s.error("find", "", ledger.JoinUnreadable(unread))
}
