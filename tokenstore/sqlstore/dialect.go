package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// A Dialect is a kind of database.
type Dialect string

// The supported dialects. MySQL is also the dialect of MariaDB.
const (
	SQLite Dialect = "sqlite"
	MySQL  Dialect = "mysql"
)

func (d Dialect) new(table string) (dialect, error) {
	switch d {
	case SQLite:
		return &sqlite{table: table}, nil
	case MySQL:
		return &mysql{table: table}, nil
	}
	return nil, fmt.Errorf("sqlstore: unknown dialect %q", string(d))
}

// A dialect implements the operations that differ between the kinds of databases.
type dialect interface {
	// open inspects the database, and returns an error if its connections are
	// unsuitable.
	open(ctx context.Context, db *sql.DB) error

	// check returns an error if the SDKs' table, which must exist, is unsuitable.
	check(ctx context.Context, db *sql.DB) error

	// inspect returns the columns of a table, or nil if the table does not exist.
	inspect(ctx context.Context, q querier, table string) ([]found, error)

	// create returns the statements that create the SDKs' table, the table of notes and the table
	// of extensions. A statement has no effect if its table exists.
	create() (table, notes, extensions string)

	// idText returns the expression that converts a row's ID for a comparison with the
	// column row_id of the table of extensions.
	idText() string

	// missingIndexes returns the columns that lack a necessary index.
	missingIndexes(ctx context.Context, q querier) ([]string, error)

	// prepare configures conn before a transaction. In a SQLite file, deletions then overwrite
	// the data, and SQLite writes pages only when the transaction ends.
	prepare(ctx context.Context, conn *sql.Conn) error

	// scrub removes the remains of deleted rows from the files of the database. If the database has
	// more than limit bytes, scrub only empties the write-ahead log. noLimit permits any size.
	scrub(ctx context.Context, db *database, limit int64) error

	// remnants returns a description of the remains of deleted rows, or "" if there are none.
	remnants(ctx context.Context, db *database) (string, error)

	// widen changes a column of limited size so that it can hold longer values.
	widen(ctx context.Context, q querier, name string) error

	// begin returns the statement that begins a writing transaction.
	begin() string

	// forUpdate returns the suffix of a SELECT that prevents other programs from writing
	// the selected rows.
	forUpdate() string

	// biggestID returns the query for the largest ID that is a number of up to ten
	// digits.
	biggestID() string

	// lockTable keeps other users of this package from writing until the caller calls release. It does
	// nothing if the statement that begin returns takes such a lock.
	lockTable(ctx context.Context, conn *sql.Conn) (release func(), err error)

	// tryLock takes the right to refresh the record with the given ID. It returns a nil *held and a
	// nil error if the right is already held.
	tryLock(ctx context.Context, db *sql.DB, id string) (*held, error)

	// locked reports whether a process holds the right to refresh the record with the given ID.
	locked(ctx context.Context, db *sql.DB, id string) (bool, error)

	// classed wraps err, the error from a statement, and adds an error class for callers. It returns a
	// temporary error as an again error. It omits the text of err if that text may contain a value.
	classed(err error) error

	// outside reports whether err is the error from a ROLLBACK without a transaction.
	outside(err error) bool
}

// A found describes a column of an existing table.
type found struct {
	name string
	column
}
