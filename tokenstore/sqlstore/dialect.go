package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// A Dialect is a kind of database.
type Dialect string

// The dialects. MySQL includes MariaDB.
const (
	SQLite Dialect = "sqlite"
	MySQL  Dialect = "mysql"
)

// new returns the implementation of the dialect for the named table.
func (d Dialect) new(table string) (dialect, error) {
	switch d {
	case SQLite:
		return &sqlite{table: table}, nil
	case MySQL:
		return &mysql{table: table}, nil
	}
	return nil, fmt.Errorf("sqlstore: unknown dialect %q", string(d))
}

// A dialect implements the differences between the databases.
type dialect interface {
	// open inspects the database, and returns an error if its connections are
	// unsuitable.
	open(ctx context.Context, db *sql.DB) error

	// check returns an error if the existing table is unsuitable.
	check(ctx context.Context, db *sql.DB) error

	// inspect returns the columns of a table, or nil if the table does not exist.
	inspect(ctx context.Context, q querier, table string) ([]found, error)

	// create returns the statements that create the SDKs' table and the tables of notes and
	// of extensions, unless they exist.
	create() (table, notes, extensions string)

	// idText returns the expression that converts a row's ID for a comparison with the
	// column row_id of the table of extensions.
	idText() string

	// missingIndexes returns the columns that lack a necessary index.
	missingIndexes(ctx context.Context, q querier) ([]string, error)

	// prepare configures conn before a transaction. In a SQLite file, deletions then overwrite
	// the data, and pages are written when the transaction ends.
	prepare(ctx context.Context, conn *sql.Conn) error

	// scrub removes the remains of deleted rows from the files of a database of at most limit
	// bytes. The limit noLimit means any size.
	scrub(ctx context.Context, db *database, limit int64) error

	// remnants describes where remains of deleted rows may exist, or returns "".
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

	// lockTable keeps other processes that use this package from writing until the caller calls
	// release.
	lockTable(ctx context.Context, conn *sql.Conn) (release func(), err error)

	// tryLock takes the right to refresh the record with the ID. It returns a nil *held and a nil
	// error if another process holds the right.
	tryLock(ctx context.Context, db *sql.DB, id string) (*held, error)

	// locked reports whether a process has the right to refresh the record with the ID.
	locked(ctx context.Context, db *sql.DB, id string) (bool, error)

	// classed returns err, the error of a statement, with a class for callers or as an again
	// error. It omits a text that may contain a value.
	classed(err error) error

	// outside reports whether err is the error of a ROLLBACK without a
	// transaction.
	outside(err error) bool
}

// A found describes a column of an existing table.
type found struct {
	name string
	column
}
