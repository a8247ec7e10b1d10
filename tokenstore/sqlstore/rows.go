package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/rowstore"
)

// A database is the table of a Store, and the database that it is in.
type database struct {
	pool        *sql.DB
	dialect     dialect
	table       table
	anyID       bool
	lockTimeout time.Duration
	logger      *slog.Logger

	turn       chan struct{} // held by the goroutine that writes, of those that need a connection for it
	writes     atomic.Int64  // how many changes were committed; tests count
	unscrubbed atomic.Bool   // the files may hold what was deleted
}

// columnNames are those of the SDKs' table, in its order: some of them read rows by
// position.
var columnNames = codec.ColumnNames()

// columnList is the list of all columns, for statements.
var columnList = strings.Join(columnNames, ", ")

// A row is the text of its columns: what programs have written in different ways
// stays different. The first column is the ID.
type row []string

// A table is what is known of the table.
type table struct {
	name    string
	columns atomic.Pointer[[]column] // they may be given more room meanwhile
	notes   bool                     // there is the second table
}

// A column is what a column of the table can hold.
type column struct {
	limit   int  // characters; 0: no limit is known
	bytes   bool // the limit is one of bytes
	notNull bool
}

// quoted returns the name as it stands in statements.
func (t *table) quoted() string { return "`" + t.name + "`" }

// check returns an error if the table cannot hold a record. A server that is not
// strict would cut its values off and say nothing.
func (t *table) check(r row) error {
	have := *t.columns.Load()
	for i, value := range r {
		limit, unit := have[i].limit, "characters"
		n := utf8.RuneCountInString(value)
		if have[i].bytes {
			n, unit = len(value), "bytes"
		}
		if limit == 0 || n <= limit {
			continue
		}
		class := tokenstore.ErrTooLarge
		if i == 0 {
			class = tokenstore.ErrInvalidToken // it is the wrong kind of ID
		}
		return narrowError{fmt.Errorf("%w: %s has %d %s, the column holds %d", class, columnNames[i], n, unit, limit), columnNames[i]}
	}
	return nil
}

// value returns what is stored for a field. SDKs store NULL for a field that a record
// lacks, and read the empty text as the same.
func (t *table) value(i int, field string) any {
	if field == "" && !(*t.columns.Load())[i].notNull {
		return nil
	}
	return field
}

// A condition says which rows are read. The empty one is that of none.
type condition struct {
	text string
	args []any
}

// describedBy returns the condition that every row meets which f may describe. Nil
// describes all rows. The database may compare without regard to case, accents or
// blanks at the end: rowstore compares bytes afterwards.
func describedBy(f *codec.Fields) condition {
	if f == nil {
		return condition{text: "1 = 1"}
	}
	var c condition
	or := func(column, value string) {
		if value == "" {
			return
		}
		if c.text != "" {
			c.text += " OR "
		}
		c.text += column + " = ?"
		c.args = append(c.args, value)
	}
	or("id", f.ID)
	or("user_name", f.UserName)
	if f.UserName == "" {
		or("access_token", f.AccessToken)
		or("refresh_token", f.RefreshToken)
		or("grant_token", f.GrantToken)
	}
	return c
}

// A querier is a *sql.DB or a *sql.Conn.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// eachRow calls scan for each row of a query's result.
func eachRow(ctx context.Context, q querier, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// query returns the rows that meet the condition. Its errors are those of failed.
func (db *database) query(ctx context.Context, q querier, c condition, suffix string) (rows []row, err error) {
	if c.text == "" {
		return nil, nil
	}
	err = eachRow(ctx, q, func(found *sql.Rows) error {
		fields := make([]sql.NullString, len(columnNames))
		into := make([]any, len(fields))
		for i := range fields {
			into[i] = &fields[i]
		}
		err := found.Scan(into...)
		r := make(row, len(fields))
		for i, field := range fields {
			r[i] = field.String
		}
		rows = append(rows, r)
		return err
	}, "SELECT "+columnList+" FROM "+db.table.quoted()+" WHERE "+c.text+suffix, c.args...)
	if err != nil {
		return nil, db.failed(ctx, err)
	}
	return rows, nil
}

// Read implements rowstore.Source.
func (db *database) Read(ctx context.Context, about *codec.Fields) (*rowstore.Rows, error) {
	return db.read(ctx, db.pool, about)
}

func (db *database) read(ctx context.Context, q querier, about *codec.Fields) (rows *rowstore.Rows, err error) {
	err = db.patiently(ctx, func(ctx context.Context) error {
		found, err := db.query(ctx, q, describedBy(about), "")
		rows = rowsOf(found)
		return err
	})
	return rows, err
}

// rowsOf returns the rows that were found. IDs are counted up, and rows have no time.
func rowsOf(found []row) *rowstore.Rows {
	rows := &rowstore.Rows{Numbered: true}
	for _, r := range found {
		f, damage := codec.ParseColumns(r)
		rows.Add(f, damage, fmt.Sprintf("row %q", f.ID))
	}
	return rows
}
