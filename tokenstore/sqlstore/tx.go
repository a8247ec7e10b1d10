package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowset"
)

// endTimeout is how long the statement may take that ends a transaction or gives a
// lock back. The caller's context does not break it off: its outcome would not be
// known.
const endTimeout = 30 * time.Second

func ending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// A tx is a transaction that no other writer of this package shares its time with.
type tx struct {
	*Store
	conn *sql.Conn
}

// update changes the table. change is called in a transaction, and may be called
// again in another one if other programs write at the same time. It runs on conn,
// or on a connection of the pool if that is nil.
func (s *Store) update(ctx context.Context, conn *sql.Conn, change func(context.Context, *tx) (changed bool, err error)) error {
	given := conn != nil
	if !given {
		// One goroutine at a time takes a connection to wait on. One that has its
		// own must not queue up behind those who wait for the pool.
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.patiently(ctx, func(ctx context.Context) error {
		conn := conn
		if conn == nil {
			c, err := s.db.Conn(ctx)
			if err != nil {
				return s.failed(ctx, err)
			}
			defer c.Close()
			conn = c
		}
		release, err := s.dialect.lockTable(ctx, conn)
		if err != nil {
			return s.failed(ctx, err)
		}
		defer release()
		err = s.attempt(ctx, &tx{s, conn}, change)
		if readOnly := (readOnlyError{}); errors.As(err, &readOnly) {
			s.renew(ctx, conn)
			if given {
				return readOnly
			}
		}
		return err
	})
}

// attempt runs change in a transaction, and commits it if it has changed anything.
func (s *Store) attempt(ctx context.Context, x *tx, change func(context.Context, *tx) (bool, error)) error {
	committed := false
	defer func() {
		if !committed {
			x.rollBack(ctx)
		}
	}()
	if err := s.dialect.secure(ctx, x.conn); err != nil {
		return s.failed(ctx, err)
	}
	if _, err := x.conn.ExecContext(ctx, s.dialect.begin()); err != nil {
		return s.failed(ctx, err)
	}
	changed, err := change(ctx, x)
	if err != nil || !changed {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	end, cancel := ending(ctx)
	defer cancel()
	if _, err := x.conn.ExecContext(end, "COMMIT"); err != nil {
		return s.failed(ctx, err)
	}
	committed = true
	s.writes.Add(1)
	return nil
}

// rollBack ends a transaction that was not committed, if it was begun at all.
func (x *tx) rollBack(ctx context.Context) {
	end, cancel := ending(ctx)
	defer cancel()
	if _, err := x.conn.ExecContext(end, "ROLLBACK"); err != nil && !x.dialect.outside(err) {
		discard(x.conn)
	}
}

// discard closes a connection in an unknown state, so that nobody gets it. The
// server rolls back and unlocks what it held.
func discard(conn *sql.Conn) { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) }

// renew closes a connection whose server takes no writes, and those of the pool that
// nothing uses: after a failover they lead to that server, too.
func (s *Store) renew(ctx context.Context, conn *sql.Conn) {
	discard(conn)
	for range s.db.Stats().Idle {
		c, err := s.db.Conn(ctx)
		if err != nil {
			return
		}
		discard(c)
		_ = c.Close()
	}
}

// read returns the rows that meet the condition, and keeps other programs from
// changing them until the transaction ends.
func (x *tx) read(ctx context.Context, c condition) (*view, error) {
	return x.query(ctx, x.conn, c, x.dialect.forUpdate())
}

func (x *tx) exec(ctx context.Context, statement string, args ...any) (sql.Result, error) {
	result, err := x.conn.ExecContext(ctx, statement, args...)
	return result, x.failed(ctx, err)
}

// check returns an error if the plan cannot be carried out.
func (s *Store) check(p tokenstore.Plan) error {
	t := p.Token
	if p.Record < 0 && t.ID != "" {
		if s.anyID {
			if err := rowset.CheckNewID(t.ID); err != nil {
				return err
			}
		} else if n, ok := codec.IDNumber(t.ID); !ok || n == 0 || t.ID[0] == '0' {
			return fmt.Errorf("%w: an ID is a number from 1 to %d", tokenstore.ErrInvalidToken, lastID)
		}
	}
	if err := rowset.CheckSize(t); err != nil {
		return err
	}
	return s.table.check(rowset.Row(t))
}

// apply does what the plan for the view says, and returns what is stored.
func (x *tx) apply(ctx context.Context, v *view, p tokenstore.Plan) (t tokenstore.Token, err error) {
	if err := x.check(p); err != nil {
		return t, err
	}
	t = p.Token
	if p.Record < 0 {
		if t.ID == "" {
			if t.ID, err = x.nextID(ctx); err != nil {
				return t, err
			}
		}
		return t, x.insert(ctx, t)
	}
	if len(p.Absorb) > 0 {
		var ids []string
		for _, i := range p.Absorb {
			ids = append(ids, v.Records[i].Token.ID)
		}
		if err := x.remove(ctx, ids...); err != nil {
			return t, err
		}
	}
	return t, x.replace(ctx, v.rows[p.Record], v.Records[p.Record].Token, t)
}

// insert adds a row for t.
func (x *tx) insert(ctx context.Context, t tokenstore.Token) error {
	r := rowset.Row(t)
	var args []any
	for i, c := range columns {
		args = append(args, x.table.value(i, *c.of(&r)))
	}
	_, err := x.exec(ctx, "INSERT INTO "+x.table.quoted()+" ("+columnList+") VALUES ("+marks(len(args))+")", args...)
	if err != nil {
		return err
	}
	return x.holds(ctx, r)
}

// replace changes the row of the record was to that of t. It touches only the
// columns in which they differ.
func (x *tx) replace(ctx context.Context, row codec.Row, was, t tokenstore.Token) error {
	before, after := rowset.Row(was), rowset.Row(t)
	var sets []string
	var args []any
	for i, c := range columns {
		if value := *c.of(&after); value != *c.of(&before) {
			sets = append(sets, c.name+" = ?")
			args = append(args, x.table.value(i, value))
			*c.of(&row) = value
		}
	}
	if len(sets) == 0 {
		return nil // there was only something to absorb
	}
	_, err := x.exec(ctx, "UPDATE "+x.table.quoted()+" SET "+strings.Join(sets, ", ")+" WHERE id = ?", append(args, row.ID)...)
	if err != nil {
		return err
	}
	return x.holds(ctx, row)
}

// holds returns an error if the table does not hold the row as it was written: a
// column may lack a character of it, or some of its room, and a server that is not
// strict then stores something else. The transaction is rolled back.
func (x *tx) holds(ctx context.Context, want codec.Row) error {
	v, err := x.query(ctx, x.conn, condition{"id = ?", []any{want.ID}}, "")
	if err != nil {
		return err
	}
	if len(v.rows) != 1 {
		return fmt.Errorf("%w: the table cannot hold the ID", tokenstore.ErrInvalidToken)
	}
	for _, c := range columns {
		if *c.of(&v.rows[0]) != *c.of(&want) {
			return fmt.Errorf("%w: the table cannot hold %s as it is", tokenstore.ErrInvalidToken, c.name)
		}
	}
	return nil
}

// chunk is how many rows one statement removes: there are limits to the number of
// its parameters.
const chunk = 500

// remove removes the rows with the IDs, which were read in this transaction, and
// what is kept about them.
func (x *tx) remove(ctx context.Context, ids ...string) error {
	var last int64
	for some := range slices.Chunk(ids, chunk) {
		var args []any
		for _, id := range some {
			args = append(args, id)
			if n, ok := codec.IDNumber(id); ok {
				last = max(last, n)
			}
		}
		result, err := x.exec(ctx, "DELETE FROM "+x.table.quoted()+" WHERE id IN ("+marks(len(args))+")", args...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != int64(len(some)) {
			return fmt.Errorf("%w: several rows have one ID", tokenstore.ErrCorrupt)
		}
	}
	return x.forget(ctx, ids, last)
}

// marks returns n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// lastID is the last number that the column of the SDKs has room for.
const lastID = 9_999_999_999

// nextID returns the ID for a new row: the number after the biggest ID that there
// is or was, as a number. The SDKs compare IDs as text, and find "9" bigger than
// "10" for ever.
func (x *tx) nextID(ctx context.Context) (string, error) {
	var biggest sql.NullInt64
	if err := x.conn.QueryRowContext(ctx, x.dialect.biggestID()).Scan(&biggest); err != nil {
		return "", x.failed(ctx, err)
	}
	if biggest.Int64 >= lastID {
		return "", fmt.Errorf("%w: there is no ID after %d", tokenstore.ErrInvalidToken, biggest.Int64)
	}
	used, err := x.used(ctx)
	if err != nil {
		return "", err
	}
	if used < lastID {
		biggest.Int64 = max(biggest.Int64, used)
	}
	return strconv.FormatInt(biggest.Int64+1, 10), nil
}
