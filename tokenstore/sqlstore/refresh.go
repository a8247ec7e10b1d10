package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/refreshing"
)

// Refresh implements tokenstore.Refresher. See the package documentation under
// "Refreshing".
//
// The context of mint ends after LeaseTTL. What mint has brought is then stored
// though the caller's context is done: it may be the only copy of a new refresh
// token. If that fails it is tried again for LeaseTTL, and then returned with an
// error matching tokenstore.ErrNotPersisted; so it is at once if the record was
// deleted meanwhile.
func (s *Store) Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint func(context.Context, tokenstore.Token) (tokenstore.Token, error)) (tokenstore.Token, error) {
	t, err := s.refresher.Refresh(ctx, id, record{s, id}, stale, mint)
	return t, wrap("refresh", id, err)
}

// A record is the record with an ID.
type record struct {
	*Store
	id string
}

// Look implements refreshing.Record.
func (r record) Look(ctx context.Context) (tokenstore.Token, error) { return r.look(ctx, r.db) }

func (r record) look(ctx context.Context, q querier) (tokenstore.Token, error) {
	like := tokenstore.Token{ID: r.id}
	v, err := r.read(ctx, q, describedBy(like))
	if err != nil {
		return tokenstore.Token{}, err
	}
	i, err := v.Choose(like)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return v.Records[i].Token, nil
}

// TryLock implements refreshing.Record.
func (r record) TryLock(ctx context.Context) (refreshing.Lock, error) {
	var err error
	for range fewAttempts {
		held, lockErr := r.dialect.tryLock(ctx, r.db, r.id)
		if held == nil {
			return nil, r.failed(ctx, lockErr)
		}
		l := &refreshLock{record: r, held: held}
		if err = l.ready(ctx); err == nil {
			return l, nil
		}
		l.held.unlock()
		// The connection may have been one from before a failover.
		if readOnly := (readOnlyError{}); !errors.As(err, &readOnly) {
			break
		}
	}
	return nil, err
}

// ready returns an error if the record cannot be written, before an authorization
// server is asked for a token that could not be kept.
func (l *refreshLock) ready(ctx context.Context) error {
	return l.update(ctx, l.conn(), func(ctx context.Context, x *tx) (bool, error) {
		_, err := x.exec(ctx, "UPDATE "+x.table.quoted()+" SET access_token = access_token WHERE id = ?", l.id)
		return false, err
	})
}

// A held is a lock on a record.
type held struct {
	// conn is the connection that the lock belongs to. It does all the work
	// meanwhile: the pool may have no other. Nil: it belongs to none.
	conn *sql.Conn

	unlock func()
}

// A refreshLock is the right to refresh a record.
type refreshLock struct {
	record
	held   *held
	noted  bool // there may be a note of a refusal
	broken bool // the connection has failed
}

func (l *refreshLock) querier() querier {
	if c := l.conn(); c != nil {
		return c
	}
	return l.db
}

// conn returns the lock's connection while it is good.
func (l *refreshLock) conn() *sql.Conn {
	if l.broken {
		return nil
	}
	return l.held.conn
}

// Look implements refreshing.Lock.
func (l *refreshLock) Look(ctx context.Context) (tokenstore.Token, error) {
	return l.look(ctx, l.querier())
}

// Refusal implements refreshing.Lock.
func (l *refreshLock) Refusal(ctx context.Context) *codec.Failure {
	f := l.refusal(ctx, l.querier(), l.id)
	l.noted = f != nil
	return f
}

// Keep implements refreshing.Lock.
func (l *refreshLock) Keep(ctx context.Context, f *codec.Failure) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return l.change(ctx, func(ctx context.Context, x *tx) (bool, error) {
		// A record that was deleted meanwhile leaves nothing behind.
		v, err := x.read(ctx, describedBy(tokenstore.Token{ID: l.id}))
		if err != nil || len(v.Records) == 0 {
			return false, err
		}
		return true, x.setNote(ctx, refusalNote(l.id), string(text))
	})
}

// Update implements refreshing.Lock.
func (l *refreshLock) Update(ctx context.Context, change func(tokenstore.Token) (tokenstore.Token, error)) error {
	err := l.updateOnce(ctx, change)
	for n := 0; n < len(tokenColumns) && err != nil && l.makeRoom(ctx, err); n++ {
		err = l.updateOnce(ctx, change)
	}
	return err
}

func (l *refreshLock) updateOnce(ctx context.Context, change func(tokenstore.Token) (tokenstore.Token, error)) error {
	return l.change(ctx, func(ctx context.Context, x *tx) (changed bool, err error) {
		like := tokenstore.Token{ID: l.id}
		v, err := x.read(ctx, describedBy(like))
		if err != nil {
			return false, err
		}
		i, err := v.Choose(like)
		if err != nil {
			return false, err
		}
		t, err := change(v.Records[i].Token)
		if err != nil || t == v.Records[i].Token {
			return false, err
		}
		_, err = x.apply(ctx, v, tokenstore.Plan{Record: i, Token: t, Changed: true})
		return true, err
	})
}

// change is update on the lock's connection, unless that has failed meanwhile.
// Then others may have taken the lock, and the connection is as good as any.
func (l *refreshLock) change(ctx context.Context, change func(context.Context, *tx) (bool, error)) error {
	if c := l.conn(); c != nil && c.PingContext(ctx) != nil {
		l.broken = true
	}
	err := l.update(ctx, l.conn(), change)
	if readOnly := (readOnlyError{}); errors.As(err, &readOnly) {
		// What was minted is tried again until the lease ends: a failover takes its time.
		return fmt.Errorf("%w: %s", tokenstore.ErrUnavailable, err)
	}
	return err
}

// Release implements refreshing.Lock.
func (l *refreshLock) Release(keep bool) {
	if !keep && l.noted {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		err := l.change(ctx, func(ctx context.Context, x *tx) (bool, error) {
			return true, x.dropNotes(ctx, refusalNote(l.id))
		})
		if err != nil {
			l.refresher.Logger.WarnContext(ctx, "sqlstore: what was kept of a refusal could not be removed", "id", l.id)
		}
	}
	l.held.unlock()
}
