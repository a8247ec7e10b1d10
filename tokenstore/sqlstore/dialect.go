package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// A Dialect is the kind of database.
type Dialect string

// The dialects. MySQL stands for MariaDB, too.
const (
	SQLite Dialect = "sqlite"
	MySQL  Dialect = "mysql"
)

// new returns what the dialect does differently, for a table of the given name.
func (d Dialect) new(table string) (dialect, error) {
	switch d {
	case SQLite:
		return &sqlite{table: table}, nil
	case MySQL:
		return &mysql{table: table}, nil
	}
	return nil, fmt.Errorf("sqlstore: unknown dialect %q", string(d))
}

// A dialect is what the databases do differently.
type dialect interface {
	// open finds out what it needs to know of the database, and returns an error
	// if its connections cannot be worked with.
	open(ctx context.Context, db *sql.DB) error

	// check returns an error if the table, which is there, cannot be worked with.
	check(ctx context.Context, db *sql.DB) error

	// inspect returns the columns of a table, or none if it does not exist.
	inspect(ctx context.Context, q querier, table string) ([]found, error)

	// create returns the statements that create the table and the table of notes
	// if they do not exist.
	create() (table, notes string)

	// secure has the connection overwrite what it deletes, where that is a setting of
	// connections.
	secure(ctx context.Context, conn *sql.Conn) error

	// scrub removes what is left of deleted rows from the files of a database that
	// has no more bytes than limit, or noLimit.
	scrub(ctx context.Context, db *database, limit int64) error

	// remnants says where scrub may find something, or returns "".
	remnants(ctx context.Context, db *database) (string, error)

	// widen gives a column of the table more room, if that is limited.
	widen(ctx context.Context, q querier, name string) error

	// begin returns the statement that begins a transaction which writes.
	begin() string

	// forUpdate returns what a SELECT ends with that keeps others from writing to
	// the rows that it reads.
	forUpdate() string

	// biggestID returns the query for the biggest ID that is a number of up to ten
	// digits.
	biggestID() string

	// lockTable keeps other processes of this package from writing, until release
	// is called.
	lockTable(ctx context.Context, conn *sql.Conn) (release func(), err error)

	// tryLock takes the right to refresh the record with the ID. It returns nil if
	// that is another's.
	tryLock(ctx context.Context, db *sql.DB, id string) (*held, error)

	// classed returns the error of a statement with its class, or as again. The
	// text is left out if it may repeat a value.
	classed(err error) error

	// outside reports whether err is that of a ROLLBACK outside of a transaction.
	outside(err error) bool
}

// A found is a column of a table that is there.
type found struct {
	name string
	column
}
