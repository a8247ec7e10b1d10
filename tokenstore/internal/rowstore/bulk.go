package rowstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/candidates"
)

// SaveAll saves tokens as SaveToken saves each of them, one after the other, in one
// Update. It saves all of them, and returns what is stored in their order, or none.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	var saved []tokenstore.Token
	err := ctx.Err()
	if err == nil {
		err = s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (changed bool, err error) {
			saved, changed, err = saveAll(ctx, rows, tokens)
			return changed, err
		})
	}
	if err != nil {
		return nil, s.Wrap("save all", "", err)
	}
	return saved, nil
}

func saveAll(ctx context.Context, rows *Rows, tokens []tokenstore.Token) (saved []tokenstore.Token, changed bool, err error) {
	b := bulk{}
	b.adopt(rows)
	saved = make([]tokenstore.Token, len(tokens))
	for i, t := range tokens {
		one := false
		if saved[i], one, err = b.save(ctx, t); err != nil {
			return nil, false, fmt.Errorf("token %d of %d: %w", i+1, len(tokens), err)
		}
		changed = changed || one
	}
	return saved, changed, nil
}

// A bulk is the rows while several tokens are saved to them.
type bulk struct {
	*Rows
	index candidates.Index
	next  int64 // the ID of the next new record; 0: not known yet
}

func (b *bulk) adopt(rows *Rows) {
	b.Rows, b.index = rows, candidates.Index{}
	for i, c := range rows.records {
		b.index.Put(i, c)
	}
}

func (b *bulk) save(ctx context.Context, t tokenstore.Token) (saved tokenstore.Token, changed bool, err error) {
	p, err := b.readable(b.index.Plan(t))
	if err != nil || !p.Changed {
		return p.Token, false, err
	}
	if p.Record < 0 && p.Token.ID == "" {
		if p.Token.ID, err = b.nextID(ctx); err != nil {
			return p.Token, false, err
		}
	}
	if saved, err = b.apply(ctx, p); err != nil {
		return saved, false, err
	}
	if n, ok := codec.IDNumber(saved.ID); ok && b.next > 0 {
		b.next = max(b.next, n+1)
	}
	if len(p.Absorb) > 0 { // the rows behind a removed one have other indices now
		rows, err := b.Reread(ctx)
		if err == nil {
			b.adopt(rows)
		}
		return saved, true, err
	}
	row := p.Record
	if row < 0 {
		row = len(b.index.Records)
		b.damage = append(b.damage, nil)
	}
	b.index.Put(row, b.candidate(row, saved))
	return saved, true, nil
}

// nextID asks the table for the ID of a new row once, and counts.
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

// Fits returns, for each token, why the table cannot hold it, or nil. Other records do
// not matter, and the ID may be missing.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	err := ctx.Err()
	var fits func(tokenstore.Token) error
	if err == nil {
		fits, err = s.table.Fits(ctx)
	}
	if err != nil {
		return nil, s.Wrap("check", "", err)
	}
	errs := make([]error, len(tokens))
	for i, t := range tokens {
		err := tokenstore.Validate(t)
		if err == nil {
			err = fits(t)
		}
		errs[i] = s.Wrap("check", t.ID, err)
	}
	return errs, nil
}

// DeleteAll removes the records that are still as they are given, field by field, in
// one Update, and returns their number. A record that has changed stays.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	given := map[codec.Row]bool{}
	ids := make([]string, 0, len(tokens))
	for _, t := range tokens {
		given[Row(t)] = true
		ids = append(ids, t.ID)
	}
	if err = ctx.Err(); err == nil {
		err = s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (changed bool, err error) {
			deleted, _, err = rows.erase(ctx, func(t tokenstore.Token) bool { return given[Row(t)] })
			return deleted > 0, err
		})
	}
	if err != nil {
		return 0, s.Wrap("delete all", "", err)
	}
	return deleted, s.Wrap("delete all", "", s.table.Erased(ctx, ids, true))
}

// erase removes the records that can be read and that one asks to be removed. It
// returns their number and IDs.
func (r *Rows) erase(ctx context.Context, which func(tokenstore.Token) bool) (n int, ids []string, err error) {
	var rows []int
	for i, c := range r.records {
		if r.damage[i] == nil && which(c.Token) {
			rows = append(rows, i)
			ids = append(ids, c.Token.ID)
		}
	}
	if len(rows) > 0 {
		err = r.Remove(ctx, rows, true)
	}
	return len(rows), ids, err
}

// DeleteTokens implements tokenstore.TokenStore. Records that cannot be read stay, and
// the error says which.
func (s *Store) DeleteTokens(ctx context.Context) error {
	return s.Wrap("delete all", "", s.deleteTokens(ctx))
}

func (s *Store) deleteTokens(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rows, err := s.table.Read(ctx, nil)
	if err != nil {
		return err
	}
	var ids []string
	var damage error
	if len(rows.records) > 0 {
		err = s.table.Update(ctx, nil, func(ctx context.Context, rows *Rows) (changed bool, err error) {
			damage = errors.Join(rows.damage...)
			_, ids, err = rows.erase(ctx, func(tokenstore.Token) bool { return true })
			return len(ids) > 0, err
		})
	}
	if err != nil {
		return err
	}
	return errors.Join(damage, s.table.Erased(ctx, ids, true))
}
