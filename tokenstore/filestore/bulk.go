package filestore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// SaveAll saves tokens as SaveToken saves each of them, one after the other, but
// reads and replaces the file only once. Either all of them are saved, and
// returned as they are stored, in their order; or none is, and the error says
// which one cannot be.
func (s *Store) SaveAll(ctx context.Context, tokens []tokenstore.Token) ([]tokenstore.Token, error) {
	var saved []tokenstore.Token
	err := ctx.Err()
	if err == nil {
		err = s.update(ctx, func(v *view) (changed bool, err error) {
			var errs []error
			saved, errs, changed = v.saveAll(tokens, s.o.AnyID)
			for i, err := range errs {
				if err != nil {
					return false, fmt.Errorf("token %d of %d: %w", i+1, len(tokens), err)
				}
			}
			return changed, nil
		})
	}
	if err != nil {
		return nil, wrap("save all", "", err)
	}
	return saved, nil
}

// Fits returns, for each token, why the file cannot hold it, or nil. It is about
// the token alone: other records, and whether its ID is taken, do not matter. An
// ID may be missing. The errors match tokenstore.ErrInvalidToken or
// tokenstore.ErrTooLarge.
func (s *Store) Fits(ctx context.Context, tokens []tokenstore.Token) ([]error, error) {
	err := ctx.Err()
	var v *view
	if err == nil {
		v, err = s.read(ctx)
	}
	if err != nil {
		return nil, wrap("check", "", err)
	}
	errs := make([]error, len(tokens))
	for i, t := range tokens {
		errs[i] = wrap("check", t.ID, v.fits(t, s.o.AnyID))
	}
	return errs, nil
}

func (v *view) fits(t tokenstore.Token, anyID bool) error {
	if err := tokenstore.Validate(t); err != nil {
		return err
	}
	if t.ID == "" {
		t.ID = "1"
	}
	_, err := v.apply(tokenstore.Plan{Record: -1, Token: t}, anyID)
	if err == nil {
		v.file.Delete(v.file.Len() - 1)
	}
	return err
}

// DeleteAll removes those of the records that are still as they are given, field
// by field, with one replacement of the file, and returns how many that were. A
// record that has changed since stays.
func (s *Store) DeleteAll(ctx context.Context, tokens []tokenstore.Token) (deleted int, err error) {
	rows := map[codec.Row]bool{}
	for _, t := range tokens {
		rows[rowset.Row(t)] = true
	}
	if err = ctx.Err(); err == nil {
		err = s.update(ctx, func(v *view) (changed bool, err error) {
			deleted = 0
			for i, r := range slices.Backward(v.Records) {
				if v.Damage[i] == nil && rows[rowset.Row(r.Token)] {
					v.remove(i)
					deleted++
				}
			}
			return deleted > 0, nil
		})
	}
	if err != nil {
		return 0, wrap("delete all", "", err)
	}
	for _, t := range tokens {
		s.forgetRefusal(t.ID)
	}
	return deleted, nil
}

// saveAll applies the plan of each token to the view. Those that have an error
// leave it as it is.
func (v *view) saveAll(tokens []tokenstore.Token, anyID bool) (saved []tokenstore.Token, errs []error, changed bool) {
	saved, errs = make([]tokenstore.Token, len(tokens)), make([]error, len(tokens))
	x := v.Index()
	var next int64 // the ID of the next new record; 0: not known yet
	for i, t := range tokens {
		p, err := x.Plan(t)
		saved[i] = p.Token
		if err == nil && p.Changed {
			if p.Record < 0 && p.Token.ID == "" {
				p.Token.ID, err = v.nextID(&next)
			}
			if err == nil {
				saved[i], err = v.apply(p, anyID)
			}
		}
		errs[i] = err
		if err != nil || !p.Changed {
			continue
		}
		changed = true
		if n, ok := codec.IDNumber(saved[i].ID); ok && next > 0 {
			next = max(next, n+1)
		}
		if len(p.Absorb) > 0 {
			// Rows were removed, and those behind them have moved up.
			now := look(v.file, v.info)
			now.used, now.removed = v.used, v.removed
			*v = *now
			x = v.Index()
			continue
		}
		row := p.Record
		if row < 0 {
			row = len(v.Records)
		}
		x.Store(row, tokenstore.Candidate{Token: saved[i], Updated: time.Unix(int64(row), 0)})
	}
	return saved, errs, changed
}

// nextID returns the ID for a new record. It looks at the rows only if next is
// not known.
func (v *view) nextID(next *int64) (string, error) {
	if *next > 0 {
		return strconv.FormatInt(*next, 10), nil
	}
	id, err := v.file.NextID(v.used)
	if err != nil {
		return "", fmt.Errorf("%w: %w", tokenstore.ErrInvalidToken, err)
	}
	*next, _ = codec.IDNumber(id)
	return id, nil
}
