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
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// endTimeout limits a statement that ends an operation, such as COMMIT or the release of a lock.
// The caller's context does not cancel such a statement, because the outcome of a canceled
// statement is unknown.
const endTimeout = 30 * time.Second

func ending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// A tx is a writing transaction. Only one tx at a time runs on a table. A tx implements
// rowstore.Writer for the rows that it last read.
type tx struct {
	*database
	conn  *sql.Conn
	about *codec.Fields
	rows  []row
}

// Update implements rowstore.Source.
func (db *database) Update(ctx context.Context, about *codec.Fields, change rowstore.Change) error {
	return db.update(ctx, nil, changing(about, change))
}

// changing returns a function to pass to update. The function reads the rows that may match about,
// and calls change with these rows.
func changing(about *codec.Fields, change rowstore.Change) func(context.Context, *tx) (bool, error) {
	return func(ctx context.Context, x *tx) (bool, error) {
		x.about = about
		rows, err := x.Reread(ctx)
		if err != nil {
			return false, err
		}
		return change(ctx, rows)
	}
}

// update calls the function change in a transaction on conn or, if conn is nil, on a connection of
// the pool. If the transaction fails with an again error, update repeats the call in a new
// transaction. If the server of a given conn accepts no writes, update closes conn and returns a
// readOnlyError.
func (db *database) update(ctx context.Context, conn *sql.Conn, change func(context.Context, *tx) (changed bool, err error)) error {
	given := conn != nil
	if !given {
		// Only one goroutine at a time occupies a connection of the pool while the goroutine waits for
		// the lock. A goroutine with its own connection must not wait for goroutines that need the pool.
		select {
		case db.turn <- struct{}{}:
			defer func() { <-db.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return db.withRetries(ctx, func(ctx context.Context) error {
		conn := conn
		if conn == nil {
			c, err := db.pool.Conn(ctx)
			if err != nil {
				return db.failed(ctx, err)
			}
			defer c.Close()
			conn = c
		}
		release, err := db.dialect.lockTable(ctx, conn)
		if err != nil {
			return db.failed(ctx, err)
		}
		defer release()
		err = db.attempt(ctx, &tx{database: db, conn: conn}, change)
		if readOnly := (readOnlyError{}); errors.As(err, &readOnly) {
			db.renew(ctx, conn)
			if given {
				return readOnly
			}
		}
		return err
	})
}

// attempt calls the function change in a transaction. attempt commits the transaction if the
// function reports a change and returns no error. Otherwise, attempt rolls the transaction back.
func (db *database) attempt(ctx context.Context, x *tx, change func(context.Context, *tx) (bool, error)) error {
	committed := false
	defer func() {
		if !committed {
			x.rollBack(ctx)
		}
	}()
	if err := db.dialect.prepare(ctx, x.conn); err != nil {
		return db.failed(ctx, err)
	}
	if _, err := x.conn.ExecContext(ctx, db.dialect.begin()); err != nil {
		return db.failed(ctx, err)
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
		return db.failed(ctx, err)
	}
	committed = true
	db.writes.Add(1)
	return nil
}

// rollBack rolls back the transaction, if there is one. If the rollback fails, rollBack closes the
// connection.
func (x *tx) rollBack(ctx context.Context) {
	end, cancel := ending(ctx)
	defer cancel()
	if _, err := x.conn.ExecContext(end, "ROLLBACK"); err != nil && !x.dialect.outside(err) {
		discard(x.conn)
	}
}

// discard closes conn, so that the pool does not reuse a connection in an unknown state. The server
// then rolls back the transaction of conn and releases its locks.
func discard(conn *sql.Conn) { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) }

// renew closes conn, whose server accepts no writes. It also closes all idle connections of the
// pool, because they may lead to the same server.
func (db *database) renew(ctx context.Context, conn *sql.Conn) {
	discard(conn)
	for range db.pool.Stats().Idle {
		c, err := db.pool.Conn(ctx)
		if err != nil {
			return
		}
		discard(c)
		_ = c.Close()
	}
}

// Reread implements rowstore.Writer. It prevents other programs from changing the rows
// until the transaction ends.
func (x *tx) Reread(ctx context.Context) (rows *rowstore.Rows, err error) {
	if x.rows, err = x.query(ctx, x.conn, describedBy(x.about), x.dialect.forUpdate()); err != nil {
		return nil, err
	}
	rows = rowsOf(x.rows)
	rows.Writer = x
	return rows, nil
}

func (x *tx) exec(ctx context.Context, statement string, args ...any) (sql.Result, error) {
	result, err := x.conn.ExecContext(ctx, statement, args...)
	return result, x.failed(ctx, err)
}

// check returns an error if the table cannot hold f. isNew is set for a new row; check then also
// validates the ID.
func (db *database) check(f codec.Fields, isNew bool) error {
	if isNew && f.ID != "" && !db.anyID {
		if n, ok := codec.IDNumber(f.ID); !ok || n == 0 || f.ID[0] == '0' {
			return fmt.Errorf("%w: an ID must be a number from 1 to %d", tokenstore.ErrInvalidToken, lastID)
		}
	}
	if err := rowstore.Check(f, isNew && db.anyID); err != nil {
		return err
	}
	if names := f.Extended(); len(names) > 0 && !db.table.extensions.Load() {
		return fmt.Errorf("%w: there is no table %s for %s, and it may not be created",
			tokenstore.ErrInvalidToken, db.table.name+extensionsSuffix, strings.Join(names, ", "))
	}
	return db.table.check(f.Columns())
}

// Put implements rowstore.Writer.
func (x *tx) Put(ctx context.Context, i int, f codec.Fields) error {
	if err := x.check(f, i < 0); err != nil {
		return err
	}
	r, err := rowOf(f)
	if err != nil {
		return err
	}
	if i < 0 {
		x.rows = append(x.rows, r)
		return x.insert(ctx, r)
	}
	return x.replace(ctx, &x.rows[i], r)
}

func (x *tx) insert(ctx context.Context, r row) error {
	var args []any
	for i, value := range r.columns {
		args = append(args, x.table.value(i, value))
	}
	_, err := x.exec(ctx, "INSERT INTO "+x.table.quoted()+" ("+columnList+") VALUES ("+marks(len(args))+")", args...)
	if err == nil && r.extension != "" {
		err = x.setExtension(ctx, r)
	}
	if err != nil {
		return err
	}
	return x.holds(ctx, r)
}

// replace stores the values from the parameter after in the row r, both in the table and in memory.
// It updates only columns whose values differ. Expiry times that differ only in notation count as
// equal.
func (x *tx) replace(ctx context.Context, r *row, after row) error {
	was, err := codec.ParseColumns(r.columns)
	if err != nil {
		return err
	}
	before := was.Columns()
	var sets []string
	var args []any
	for i, value := range after.columns {
		if value != before[i] {
			sets = append(sets, columnNames[i]+" = ?")
			args = append(args, x.table.value(i, value))
			r.columns[i] = value
		}
	}
	if len(sets) == 0 && r.extension == after.extension {
		return nil // the row already has these values
	}
	if len(sets) > 0 {
		_, err = x.exec(ctx, "UPDATE "+x.table.quoted()+" SET "+strings.Join(sets, ", ")+" WHERE id = ?", append(args, r.columns[0])...)
	}
	if err == nil && r.extension != after.extension {
		r.extension = after.extension
		err = x.setExtension(ctx, *r)
	}
	if err != nil {
		return err
	}
	return x.holds(ctx, *r)
}

// holds returns an error if the stored row differs from want. A value might be too long for its
// column, or have a character that the column's character set lacks. A server that is not in strict
// mode then stores another value.
func (x *tx) holds(ctx context.Context, want row) error {
	rows, err := x.query(ctx, x.conn, condition{"id = ?", []any{want.columns[0]}}, "")
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return fmt.Errorf("%w: the table cannot hold the ID", tokenstore.ErrInvalidToken)
	}
	for i, value := range rows[0].columns {
		if value != want.columns[i] {
			return fmt.Errorf("%w: the table cannot hold %s as it is", tokenstore.ErrInvalidToken, columnNames[i])
		}
	}
	if rows[0].extension != want.extension {
		return fmt.Errorf("%w: the table cannot hold the fields without a column as they are", tokenstore.ErrInvalidToken)
	}
	return nil
}

// chunk is the maximum number of rows that one statement removes, because databases limit
// the number of parameters.
const chunk = 500

// Remove implements rowstore.Writer. It also removes the notes and extensions of the rows.
func (x *tx) Remove(ctx context.Context, rows []int, erase bool) error {
	if erase {
		x.unscrubbed.Store(true)
	}
	var last int64
	ids := make([]string, 0, len(rows))
	for _, i := range rows {
		id := x.rows[i].columns[0]
		ids = append(ids, id)
		if n, ok := codec.IDNumber(id); ok {
			last = max(last, n)
		}
	}
	n, err := x.drop(ctx, x.table.quoted(), "id", ids)
	if err == nil && n != int64(len(ids)) {
		err = fmt.Errorf("%w: several rows have one ID", tokenstore.ErrCorrupt)
	}
	if err == nil {
		err = x.dropExtensions(ctx, ids)
	}
	if err != nil {
		return err
	}
	return x.forget(ctx, ids, last)
}

// drop deletes the rows of a table that have one of the given values in the named column.
func (x *tx) drop(ctx context.Context, table, column string, values []string) (dropped int64, err error) {
	for some := range slices.Chunk(values, chunk) {
		args := make([]any, len(some))
		for i, value := range some {
			args[i] = value
		}
		result, err := x.exec(ctx, "DELETE FROM "+table+" WHERE "+column+" IN ("+marks(len(args))+")", args...)
		if err != nil {
			return dropped, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return dropped, x.failed(ctx, err)
		}
		dropped += n
	}
	return dropped, nil
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// lastID is the largest number that fits the SDKs' column id, which holds ten characters.
const lastID = 9_999_999_999

// NextID implements rowstore.Writer. It returns 1 plus the larger of two IDs: the largest ID in the
// table, and the largest ID of a deleted record, which a note holds. NextID ignores the note if the
// note holds lastID. If the table has the ID lastID, the error matches tokenstore.ErrInvalidToken.
// NextID compares IDs as numbers, unlike the SDKs, which compare them as text.
func (x *tx) NextID(ctx context.Context) (string, error) {
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
