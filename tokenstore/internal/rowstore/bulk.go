package rowstore

import (
	"context"
	"fmt"
	"strconv"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/candidates"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rules"
)

// SaveAll saves tokens in one Update, with the same result as a call of SaveToken for each
// token, in order. It returns the record that each save stored. If a token cannot be saved,
// SaveAll saves none, and the error contains the position of that token.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) (saved []tokenstore.Token, err error) {
	defer s.wrap(&err, "save all", "")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (changed bool, err error) {
		saved, changed, err = saveAll(ctx, rows, tokens)
		return changed, err
	})
	if err != nil {
		return nil, err
	}
	return saved, nil
}

func saveAll(ctx context.Context, rows *Rows, tokens []tokenstore.Token) (saved []tokenstore.Token, changed bool, err error) {
	b := bulk{}
	b.adopt(rows)
	for i, t := range tokens {
		p, err := b.save(ctx, t.Fields())
		if err != nil {
			return nil, false, fmt.Errorf("token %d of %d: %w", i+1, len(tokens), err)
		}
		changed = changed || p.Action != rules.Nothing
		saved = append(saved, tokenstore.FromFields(p.Fields))
	}
	return saved, changed, nil
}

// A bulk saves several tokens, one after another, to one Rows. Each save sees the results of the
// earlier saves.
type bulk struct {
	*Rows
	index candidates.Index
	next  int64 // the ID of the next new record; 0 if it is not known yet
}

func (b *bulk) adopt(rows *Rows) {
	b.Rows, b.index = rows, candidates.New(rows.records)
}

// save saves f. It returns the plan of the save, with the stored record in Fields.
func (b *bulk) save(ctx context.Context, f codec.Fields) (rules.Plan, error) {
	p, err := b.readable(b.index.Plan(f))
	if err != nil || p.Action == rules.Nothing {
		return p, err
	}
	if p.Record < 0 && p.ID == "" {
		if p.ID, err = b.nextID(ctx); err != nil {
			return p, err
		}
	}
	if p.Fields, err = b.apply(ctx, p); err != nil {
		return p, err
	}
	if n, ok := codec.IDNumber(p.ID); ok && b.next > 0 {
		b.next = max(b.next, n+1)
	}
	if len(p.Absorb) > 0 { // a removal changes the indices of later rows
		rows, err := b.Reread(ctx)
		if err == nil {
			b.adopt(rows)
		}
		return p, err
	}
	row := p.Record
	if row < 0 {
		row = len(b.index.Records)
		b.damage = append(b.damage, nil)
	}
	b.index.Put(row, b.candidate(row, p.Fields))
	return p, nil
}

// nextID returns the ID of a new row. It gets the first ID from the table, and then counts up.
func (b *bulk) nextID(ctx context.Context) (string, error) {
	if b.next == 0 {
		id, err := b.NextID(ctx)
		if err != nil {
			return "", err
		}
		b.next, _ = codec.IDNumber(id)
	}
	return strconv.FormatInt(b.next, 10), nil
}

// Fits returns one error for each token: the reason why the table cannot hold the token, or nil. It
// does not compare the tokens with stored records. The ID of a token may be empty. If ctx is
// done or Table.Fits fails, errs is nil and err is the reason.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) (errs []error, err error) {
	defer s.wrap(&err, "check", "")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fits, err := s.table.Fits(ctx)
	if err != nil {
		return nil, err
	}
	errs = make([]error, len(tokens))
	for i, t := range tokens {
		if errs[i] = rules.Validate(t.Fields()); errs[i] == nil {
			errs[i] = fits(t.Fields())
		}
		s.wrap(&errs[i], "check", t.ID)
	}
	return errs, nil
}

// DeleteAll removes, in one Update, the records that equal an element of tokens in every field. It
// keeps all other records, and returns the number of removed records.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	defer s.wrap(&err, "delete all", "")
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	given := map[codec.Fields]bool{}
	for _, t := range tokens {
		given[t.Fields()] = true
	}
	var gone, absent []string
	err = s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (changed bool, err error) {
		absent = rows.lacking(tokens)
		gone, err = rows.erase(ctx, func(f codec.Fields) bool { return given[f] })
		return len(gone) > 0, err
	})
	if err != nil {
		return 0, err
	}
	// An earlier call that was interrupted may have removed the absent records.
	return len(gone), s.table.Erased(ctx, append(absent, gone...), true)
}

// lacking returns the IDs of the tokens for which there is no row.
func (r *Rows) lacking(tokens []tokenstore.Token) (ids []string) {
	have := map[string]bool{}
	for _, c := range r.records {
		have[c.ID] = true
	}
	for _, t := range tokens {
		if !have[t.ID] {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

// erase removes the readable records for which match returns true, and returns their IDs.
func (r *Rows) erase(ctx context.Context, match func(codec.Fields) bool) (ids []string, err error) {
	var rows []int
	for i, c := range r.records {
		if r.damage[i] == nil && match(c.Fields) {
			rows = append(rows, i)
			ids = append(ids, c.ID)
		}
	}
	if len(rows) > 0 {
		err = r.Remove(ctx, rows, true)
	}
	return ids, err
}
