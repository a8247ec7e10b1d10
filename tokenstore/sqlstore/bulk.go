package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// SaveAll saves tokens as SaveToken saves each of them, one after the other, but
// in one transaction, and without a search of the table for each. Either all of
// them are saved, and returned as they are stored, in their order; or none is, and
// the error says which one cannot be. Other writers wait meanwhile.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	saved := make([]tokenstore.Token, len(tokens))
	err := ctx.Err()
	if err == nil {
		err = s.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) { return x.saveAll(ctx, tokens, saved) })
	}
	if err != nil {
		return nil, wrap("save all", "", err)
	}
	return saved, nil
}

// Fits returns, for each token, why the table cannot hold it, or nil. It is about
// the token alone: other records, and whether its ID is taken, do not matter. An
// ID may be missing. The errors match tokenstore.ErrInvalidToken or
// tokenstore.ErrTooLarge. What the database refuses besides, such as a character
// that a column lacks, shows when it is saved.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	if err := ctx.Err(); err != nil {
		return nil, wrap("check", "", err)
	}
	errs := make([]error, len(tokens))
	for i, t := range tokens {
		err := tokenstore.Validate(t)
		if err == nil {
			err = s.checkRoom(ctx, tokenstore.Plan{Record: -1, Token: t})
		}
		errs[i] = wrap("check", t.ID, err)
	}
	return errs, nil
}

// DeleteAll removes those of the records that are still as they are given, field
// by field, in one transaction, and returns how many that were. A record that has
// changed since stays. In SQLite nothing of those removed is left in the files of the
// database; if that fails they are removed all the same, and the error says so.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	rows := map[codec.Row]bool{}
	for _, t := range tokens {
		rows[rowset.Row(t)] = true
	}
	if err = ctx.Err(); err == nil {
		err = s.update(ctx, nil, func(ctx context.Context, x *tx) (bool, error) {
			v, err := x.read(ctx, all)
			if err != nil {
				return false, err
			}
			var ids []string
			for i, r := range v.Records {
				if v.Damage[i] == nil && rows[rowset.Row(r.Token)] {
					ids = append(ids, r.Token.ID)
				}
			}
			deleted = len(ids)
			if deleted == 0 {
				return false, nil
			}
			return true, x.remove(ctx, ids...)
		})
	}
	if err == nil {
		s.unscrubbed.Store(true)
		err = s.scrubDeleted(ctx, noLimit)
	}
	return deleted, wrap("delete all", "", err)
}

// saveAll applies the plan of each token to the table.
func (x *tx) saveAll(ctx context.Context, tokens, saved []tokenstore.Token) (changed bool, err error) {
	v, err := x.read(ctx, all)
	if err != nil {
		return false, err
	}
	index := v.Index()
	var next int64 // the ID of the next new record; 0: not known yet
	for i, t := range tokens {
		p, err := index.Plan(t)
		if saved[i] = p.Token; err == nil && p.Changed {
			if p.Record < 0 && p.Token.ID == "" {
				p.Token.ID, err = x.nextOf(ctx, &next)
			}
			if err == nil {
				saved[i], err = x.apply(ctx, v, p)
			}
		}
		switch {
		case err != nil:
			return false, fmt.Errorf("token %d of %d: %w", i+1, len(tokens), err)
		case !p.Changed:
			continue
		}
		changed = true
		n, ok := codec.IDNumber(saved[i].ID)
		if ok && next > 0 {
			next = max(next, n+1)
		}
		if len(p.Absorb) > 0 {
			if v, err = x.read(ctx, all); err != nil {
				return false, err
			}
			index = v.Index()
			continue
		}
		row := p.Record
		if row < 0 {
			row = len(v.rows)
			v.rows = append(v.rows, codec.Row{})
		}
		v.rows[row] = rowset.Row(saved[i])
		index.Store(row, tokenstore.Candidate{Token: saved[i], Updated: time.Unix(n, 0)})
	}
	return changed, nil
}

// nextOf returns the ID for a new row. It asks the database only if next is not
// known.
func (x *tx) nextOf(ctx context.Context, next *int64) (string, error) {
	if *next == 0 {
		id, err := x.nextID(ctx)
		if err != nil {
			return "", err
		}
		*next, _ = codec.IDNumber(id)
	}
	return strconv.FormatInt(*next, 10), nil
}
