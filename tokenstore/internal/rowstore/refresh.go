package rowstore

import (
	"context"
	"encoding/json"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
)

// Refresh implements tokenstore.Refresher.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	t, err := s.refresher.Refresh(ctx, id, &record{Store: s, id: id}, stale, mint)
	return t, s.Wrap("refresh", id, err)
}

// A record is the record with an ID, as one Refresh sees it.
type record struct {
	*Store
	id   string
	rows *Rows // of the last Look
}

// Look implements refreshing.Record.
func (r *record) Look(ctx context.Context) (t tokenstore.Token, err error) {
	if r.rows == nil || r.rows.Current == nil || !r.rows.Current() {
		if r.rows, err = r.table.Read(ctx, &codec.Fields{ID: r.id}); err != nil {
			return tokenstore.Token{}, err
		}
	}
	return r.in(r.rows)
}

// in returns the record as it is in rows.
func (r *record) in(rows *Rows) (tokenstore.Token, error) {
	i, err := rows.choose(codec.Fields{ID: r.id})
	if err != nil {
		return tokenstore.Token{}, err
	}
	return tokenstore.FromFields(rows.records[i].Fields), nil
}

// TryLock implements refreshing.Record.
func (r *record) TryLock(ctx context.Context) (refreshing.Lock, error) {
	l, err := r.table.Lock(ctx, r.id)
	if l == nil {
		return nil, err
	}
	return right{r, l}, nil
}

// A right is the right to refresh a record.
type right struct {
	record *record
	lock   Lock
}

// Look implements refreshing.Lock.
func (r right) Look(ctx context.Context) (tokenstore.Token, error) {
	rows, err := r.lock.Read(ctx, &codec.Fields{ID: r.record.id})
	if err != nil {
		return tokenstore.Token{}, err
	}
	return r.record.in(rows)
}

// Refusal implements refreshing.Lock.
func (r right) Refusal(ctx context.Context) *codec.Failure {
	var f codec.Failure
	if json.Unmarshal([]byte(r.lock.Note(ctx)), &f) != nil {
		return nil
	}
	return &f
}

// Keep implements refreshing.Lock.
func (r right) Keep(ctx context.Context, f *codec.Failure) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return r.lock.SetNote(ctx, string(text))
}

// Update implements refreshing.Lock.
func (r right) Update(ctx context.Context, change func(tokenstore.Token) (tokenstore.Token, error)) error {
	like := codec.Fields{ID: r.record.id}
	return r.lock.Update(ctx, &like, func(ctx context.Context, rows *Rows) (bool, error) {
		i, err := rows.choose(like)
		if err != nil {
			return false, err
		}
		t, err := change(tokenstore.FromFields(rows.records[i].Fields))
		if err != nil || t.Fields() == rows.records[i].Fields {
			return false, err
		}
		return true, rows.Put(ctx, i, t.Fields())
	})
}

// Release implements refreshing.Lock.
func (r right) Release(keep bool) { r.lock.Release(keep) }
