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
		v, err = s.read()
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
	x := v.index()
	var next int64 // the ID of the next new record; 0: not known yet
	for i, t := range tokens {
		p, err := v.planBy(x, t)
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
			*v, x = *now, now.index()
			continue
		}
		x.add(v.store(p.Record, saved[i]), saved[i])
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

// store notes in the view what apply has put into the file, and returns in which
// row.
func (v *view) store(i int, t tokenstore.Token) int {
	if i < 0 {
		i = len(v.Records)
		v.Records = append(v.Records, tokenstore.Candidate{})
		v.Damage = append(v.Damage, nil)
	}
	v.Records[i] = tokenstore.Candidate{Token: t, Updated: time.Unix(int64(i), 0)}
	return i
}

// An index finds the rows that a token may describe, so that what is saved in
// bulk is not compared with every row.
type index map[string][]int

func (v *view) index() index {
	x := index{}
	for i, r := range v.Records {
		x.add(i, r.Token)
	}
	return x
}

func (x index) add(i int, t tokenstore.Token) {
	for _, key := range keys(t) {
		if !slices.Contains(x[key], i) {
			x[key] = append(x[key], i)
		}
	}
}

// keys returns all that a record is known by. A row that has been changed since
// is found by what it had before, too, which does no harm.
func keys(t tokenstore.Token) []string {
	var all []string
	for i, value := range []string{t.ID, t.UserName, string(t.AccessToken), string(t.RefreshToken), string(t.GrantToken)} {
		if value != "" {
			all = append(all, strconv.Itoa(i)+value)
		}
	}
	return all
}

// planBy is Plan, for the rows that the index finds.
func (v *view) planBy(x index, t tokenstore.Token) (tokenstore.Plan, error) {
	var rows []int
	for _, key := range keys(t) {
		rows = append(rows, x[key]...)
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	part := &view{}
	for _, i := range rows {
		part.Records = append(part.Records, v.Records[i])
		part.Damage = append(part.Damage, v.Damage[i])
	}
	p, err := part.Plan(t)
	if err != nil || p.Record < 0 {
		return p, err
	}
	p.Record = rows[p.Record]
	p.Absorb = slices.Clone(p.Absorb)
	for i := range p.Absorb {
		p.Absorb[i] = rows[p.Absorb[i]]
	}
	return p, nil
}
