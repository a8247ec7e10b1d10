package sqlstore

import (
	"cmp"
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

// A database is the rowstore.Table of a Store.
type database struct {
	pool        *sql.DB
	dialect     dialect
	table       table
	anyID       bool
	lockTimeout time.Duration
	logger      *slog.Logger

	turn       chan struct{} // held by the goroutine that writes with a connection of the pool, or scrubs
	writes     atomic.Int64  // number of committed changes; for tests
	unscrubbed atomic.Bool   // the files may contain deleted data
}

// columnNames are the columns of the SDKs' table. Their order matters, because some SDKs
// read rows by position.
var columnNames = codec.ColumnNames()

var columnList = strings.Join(columnNames, ", ")

// A row holds the stored text of its columns, the ID first. Different texts can denote the same
// expiry time. extension is the text of the row's rowstore.Extension, which is stored in a separate
// table.
type row struct {
	columns   []string
	extension string
}

func rowOf(f codec.Fields) (r row, err error) {
	r.columns = f.Columns()
	r.extension, err = rowstore.EncodeExtension(f)
	return r, err
}

// A table describes the SDKs' table.
type table struct {
	name    string
	columns atomic.Pointer[[]column] // replaced by reinspect, because another program may widen columns
	notes   bool                     // the table of notes exists

	extensions atomic.Bool // the table of extensions exists
}

// A column describes which values fit a column of the table.
type column struct {
	limit   int  // in characters; 0 means no known limit
	bytes   bool // limit is in bytes
	notNull bool
}

func (t *table) quoted() string { return "`" + t.name + "`" }

// check returns a narrowError if one of the values in columns is too long for its column. A
// server that is not in strict mode would silently truncate the value.
func (t *table) check(columns []string) error {
	have := *t.columns.Load()
	for i, value := range columns {
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
			class = tokenstore.ErrInvalidToken // the column cannot hold IDs of this form
		}
		return narrowError{fmt.Errorf("%w: %s has %d %s, the column holds %d", class, columnNames[i], n, unit, limit), columnNames[i]}
	}
	return nil
}

// value returns the value to store in the i-th column: NULL if field is empty and the column
// permits NULL, and otherwise field. The SDKs also store NULL for an absent value, and treat an
// empty string as NULL.
func (t *table) value(i int, field string) any {
	if field == "" && !(*t.columns.Load())[i].notNull {
		return nil
	}
	return field
}

// A condition selects the rows to read. The empty condition selects no row.
type condition struct {
	text string
	args []any
}

// describedBy returns a condition that is true for every row that may match f. If f is nil, the
// condition is true for all rows. The database may ignore case, accents or trailing spaces in
// comparisons; rowstore compares bytes afterwards.
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
	if c.text == "" { // only Search describes rows by the client alone
		or("client_id", f.ClientID)
	}
	return c
}

// A querier is a *sql.DB or a *sql.Conn.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// eachRow calls scan for each row in the result of a query, until scan returns an error.
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

// selection returns a SELECT, without WHERE, of all rows with their extensions.
func (db *database) selection() string {
	if !db.table.extensions.Load() {
		return "SELECT " + columnList + ", NULL FROM " + db.table.quoted()
	}
	return "SELECT " + columnList + ", e.extension FROM " + db.table.quoted() +
		" LEFT JOIN " + db.table.quotedExtensions() + " e ON e.row_id = " + db.dialect.idText()
}

// query returns the rows that meet c. It appends suffix to the SELECT, and passes errors through
// db.failed.
func (db *database) query(ctx context.Context, q querier, c condition, suffix string) (rows []row, err error) {
	if c.text == "" {
		return nil, nil
	}
	if err := db.lookForExtensions(ctx, q); err != nil {
		return nil, err
	}
	err = eachRow(ctx, q, func(found *sql.Rows) error {
		fields := make([]sql.NullString, len(columnNames)+1)
		into := make([]any, len(fields))
		for i := range fields {
			into[i] = &fields[i]
		}
		err := found.Scan(into...)
		text := make([]string, len(fields))
		for i, field := range fields {
			text[i] = field.String
		}
		rows = append(rows, row{text[:len(columnNames)], text[len(columnNames)]})
		return err
	}, db.selection()+" WHERE "+c.text+suffix, c.args...)
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
	err = db.withRetries(ctx, func(ctx context.Context) error {
		found, err := db.query(ctx, q, describedBy(about), "")
		rows = rowsOf(found)
		return err
	})
	return rows, err
}

// rowsOf converts rows of the table. The table does not record when a row was changed, so the row
// with the larger ID counts as newer.
func rowsOf(found []row) *rowstore.Rows {
	rows := &rowstore.Rows{Numbered: true, Place: func(i int) string { return fmt.Sprintf("row %q", found[i].columns[0]) }}
	for _, r := range found {
		f, damage := codec.ParseColumns(r.columns)
		damage = cmp.Or(damage, rowstore.ApplyExtension(&f, r.extension))
		rows.Add(f, damage)
	}
	return rows
}
