package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Search returns an iterator over the records whose UserName, ClientID, Issuer and Resource
// equal those of like. A field that is empty in like matches every value. The given token must
// have a UserName or a ClientID. If it has neither, or has a field other than these four, the
// iterator yields only an error matching ErrInvalidToken.
//
// The iterator yields each record once, ordered by ID. After the records, the iterator yields
// an error that wraps an *UnreadableError for each unreadable record that may match. The Token
// beside that error has only an ID, the name of the secret. An error with the zero Token ends
// the iteration.
//
// Search does not read the whole store, and may miss a write that returned less than ListLag
// ago. If like has a UserName and a ClientID, only ReadLag applies to the record with exactly
// the UserName, ClientID, Issuer and Resource of like. The error matches ErrWrongKeys if the
// Options lack a key of the store, because Search would miss the records that were written
// with that key.
func (s *Store) Search(ctx context.Context, like Token) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		records, unread, err := s.search(ctx, like.Fields())
		if err != nil {
			yield(Token{}, s.error("search", "", err))
			return
		}
		for _, rec := range records {
			if !yield(FromFields(rec), nil) {
				return
			}
		}
		for _, u := range unread {
			if !yield(Token{ID: u.Name}, s.error("search", u.Name, u)) {
				return
			}
		}
	}
}

// search returns the records that Search yields for like, ordered by ID, and an error for each
// unreadable record that may match.
func (s *Store) search(ctx context.Context, like codec.Fields) (found []codec.Fields, unread []*UnreadableError, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	if err := rules.ValidateSearch(like); err != nil {
		return nil, nil, err
	}
	missed := s.ledger.Missing(ctx)
	v := s.ledger.View(false)
	records, err := s.labelled(ctx, v, like)
	unread = v.Aside()
	wrong := missed(err == nil)
	switch {
	case err != nil:
		return nil, nil, err
	case errors.Is(wrong, ErrWrongKeys), wrong != nil && len(records) == 0 && len(unread) == 0:
		return nil, nil, wrong
	}
	for _, rec := range records {
		if rules.Within(like, rec.Token) { // a label may belong to an earlier state of the record
			found = append(found, rec.Token)
		}
	}
	slices.SortStableFunc(found, func(a, b codec.Fields) int { return cmp.Compare(a.ID, b.ID) })
	return found, unread, nil
}

// labelled returns all records with the label for like.UserName or, if like has no UserName,
// the label for like.ClientID. If searches lag, labelled also reads, by its name, the record
// with exactly the user and client of like.
func (s *Store) labelled(ctx context.Context, v *ledger.View, like codec.Fields) ([]ledger.Entry, error) {
	names, terms := s.ledger.SearchKeys(like)
	records, err := v.Search(ctx, names, terms)
	named := func(rec ledger.Entry) bool { return slices.Contains(names, rec.Name) }
	if err != nil || v.Current() || slices.ContainsFunc(records, named) {
		return records, err
	}
	for _, name := range names {
		// The read by name did not find the record, but may have been out of date.
		if err := v.Seek(ctx, name, true); err != nil {
			return nil, err
		}
	}
	return v.Records(ctx)
}
