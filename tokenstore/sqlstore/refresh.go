package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// Lock implements rowstore.Table.
func (db *database) Lock(ctx context.Context, id string) (rowstore.Lock, error) {
	var err error
	for range fewAttempts {
		held, lockErr := db.dialect.tryLock(ctx, db.pool, id)
		if held == nil {
			return nil, db.failed(ctx, lockErr)
		}
		l := &refreshLock{database: db, id: id, held: held}
		if err = l.ready(ctx); err == nil {
			return l, nil
		}
		l.Release(ctx, true)
		// If the server is read-only, try again: the connection may date from before a failover.
		if readOnly := (readOnlyError{}); !errors.As(err, &readOnly) {
			break
		}
	}
	return nil, err
}

// Peek implements rowstore.Table.
func (db *database) Peek(ctx context.Context, id string) (note string, leased bool, err error) {
	if leased, err = db.dialect.locked(ctx, db.pool, id); err != nil {
		return "", false, db.failed(ctx, err)
	}
	note, err = db.note(ctx, db.pool, refusalNote(id))
	return note, leased, err
}

// ready returns an error if the record is not writable. Lock calls ready, so that Refresh does
// not request a token that it could not store.
func (l *refreshLock) ready(ctx context.Context) error {
	return l.update(ctx, l.conn(), func(ctx context.Context, x *tx) (bool, error) {
		_, err := x.exec(ctx, "UPDATE "+x.table.quoted()+" SET access_token = access_token WHERE id = ?", l.id)
		return false, err
	})
}

// A held is a lock that gives its holder the right to refresh a record.
type held struct {
	// conn is the connection that holds the lock, or nil if the lock does not belong to a connection.
	// While conn works, the holder executes all statements on conn, because the pool may have no other
	// connection.
	conn *sql.Conn

	// unlock releases the lock. If ctx is done before the server releases the lock, unlock closes
	// conn, so that the server releases the lock.
	unlock func(ctx context.Context)
}

// A refreshLock is the rowstore.Lock of a record.
type refreshLock struct {
	*database
	id     string
	held   *held
	noted  bool // there may be a note with a refusal
	broken bool // the connection has failed
}

func (l *refreshLock) querier() querier {
	if c := l.conn(); c != nil {
		return c
	}
	return l.pool
}

// conn returns the lock's connection. It returns nil if the connection has failed, or if the lock
// has no connection.
func (l *refreshLock) conn() *sql.Conn {
	if l.broken {
		return nil
	}
	return l.held.conn
}

// Read implements rowstore.Source.
func (l *refreshLock) Read(ctx context.Context, about *codec.Fields) (*rowstore.Rows, error) {
	return l.read(ctx, l.querier(), about)
}

// Update implements rowstore.Source. It widens columns that are too narrow for a new token.
func (l *refreshLock) Update(ctx context.Context, about *codec.Fields, change rowstore.Change) error {
	err := l.change(ctx, changing(about, change))
	for n := 0; n < len(columnNames)-len(ownTypes) && err != nil && l.makeRoom(ctx, err); n++ {
		err = l.change(ctx, changing(about, change))
	}
	return err
}

// Note implements rowstore.Lock.
func (l *refreshLock) Note(ctx context.Context) string {
	text, err := l.note(ctx, l.querier(), refusalNote(l.id))
	if err != nil {
		return ""
	}
	l.noted = text != ""
	return text
}

// SetNote implements rowstore.Lock.
func (l *refreshLock) SetNote(ctx context.Context, text string) error {
	return l.change(ctx, func(ctx context.Context, x *tx) (bool, error) {
		x.about = &codec.Fields{ID: l.id}
		// A note about a deleted record would never be removed.
		if _, err := x.Reread(ctx); err != nil || len(x.rows) == 0 {
			return false, err
		}
		return true, x.setNote(ctx, refusalNote(l.id), text)
	})
}

// change calls update with the lock's connection. If the lock's connection has failed, change uses
// a connection of the pool, and another process may have taken the lock.
func (l *refreshLock) change(ctx context.Context, change func(context.Context, *tx) (bool, error)) error {
	if c := l.conn(); c != nil && c.PingContext(ctx) != nil {
		l.broken = true
	}
	err := l.update(ctx, l.conn(), change)
	if readOnly := (readOnlyError{}); errors.As(err, &readOnly) {
		// Return a temporary error, because a failover takes time: Refresh then retries for up to
		// LeaseTTL.
		return fmt.Errorf("%w: %s", tokenstore.ErrUnavailable, err)
	}
	return err
}

// Release implements rowstore.Lock.
func (l *refreshLock) Release(ctx context.Context, keep bool) {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if !keep && l.noted {
		err := l.change(ctx, func(ctx context.Context, x *tx) (bool, error) {
			return true, x.dropNotes(ctx, refusalNote(l.id))
		})
		if err != nil {
			l.logger.WarnContext(ctx, "sqlstore: what was kept of a refusal could not be removed", "id", l.id)
		}
	}
	l.held.unlock(ctx)
}
