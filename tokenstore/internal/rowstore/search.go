package rowstore

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// Search returns an iterator over the records whose UserName, ClientID, Issuer and Resource equal
// those of the token like, ordered by ID. An empty field of the token matches every value. If the
// token has neither a UserName nor a ClientID, or has a field other than these four, the iterator
// yields an error matching tokenstore.ErrInvalidToken.
//
// After the records, the iterator yields an error for each damaged row that may match. The error
// wraps a *tokenstore.UnreadableError. The Token beside the error has only an ID: that of the row
// or, if the row has none, the result of Rows.Place. An error with the zero Token ends the
// iteration.
func (s *Store) Search(ctx context.Context, like tokenstore.Token) iter.Seq2[tokenstore.Token, error] {
	return func(yield func(tokenstore.Token, error) bool) {
		rows, err := s.search(ctx, like.Fields())
		if err != nil {
			yield(tokenstore.Token{}, s.Wrap("search", "", err))
			return
		}
		records, damaged := rows.within(like.Fields())
		for _, f := range records {
			if !yield(tokenstore.FromFields(f), nil) {
				return
			}
		}
		for _, i := range damaged {
			id := cmp.Or(rows.records[i].ID, rows.Place(i))
			err := &tokenstore.UnreadableError{Name: id, Err: rows.damage[i]}
			if !yield(tokenstore.Token{ID: id}, s.Wrap("search", id, err)) {
				return
			}
		}
	}
}

// search returns at least the rows that Search yields for the token like.
func (s *Store) search(ctx context.Context, like codec.Fields) (*Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := rules.ValidateSearch(like); err != nil {
		return nil, err
	}
	return s.table.Read(ctx, &like)
}

// within returns the readable records that match the token like in a search, ordered by ID. It also
// returns the indices of the damaged rows that may match.
func (r *Rows) within(like codec.Fields) (records []codec.Fields, damaged []int) {
	for i, c := range r.records {
		switch {
		case r.damage[i] == nil && rules.Within(like, c.Fields):
			records = append(records, c.Fields)
		case r.damage[i] != nil && rules.Within(undamaged(like, c.Fields), c.Fields):
			damaged = append(damaged, i)
		}
	}
	slices.SortStableFunc(records, func(a, b codec.Fields) int { return cmp.Compare(a.ID, b.ID) })
	return records, damaged
}

// undamaged returns a copy of the token like. If f, a damaged row, lacks an Issuer or Resource, the
// copy lacks it too. These two fields have no column, and the damage may be in the extension that
// holds them.
func undamaged(like, f codec.Fields) codec.Fields {
	if f.Issuer == "" {
		like.Issuer = ""
	}
	if f.Resource == "" {
		like.Resource = ""
	}
	return like
}
