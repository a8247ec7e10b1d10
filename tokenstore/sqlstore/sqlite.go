package sqlstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
)

// sqlite is the dialect of SQLite.
type sqlite struct {
	table string
	path  string // of the database file; empty: it is in memory
}

func (d *sqlite) open(ctx context.Context, db *sql.DB) error {
	err := db.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&d.path)
	if err != nil {
		return err
	}
	if d.path != "" {
		// Two names of one file have one lock.
		if path, err := filepath.EvalSymlinks(d.path); err == nil {
			d.path = path
		}
	}
	return nil
}

// check returns an error if each connection to a database in memory has one of its
// own: then they do not all see the table.
func (d *sqlite) check(ctx context.Context, db *sql.DB) error {
	if d.path != "" || db.Stats().MaxOpenConnections == 1 {
		return nil
	}
	for range 2 {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close() // at the end: the next one has to be another
		columns, err := d.inspect(ctx, conn, d.table)
		if err != nil {
			return err
		}
		if len(columns) == 0 {
			return setUp("each connection has a database in memory of its own: open it with cache=shared, or call SetMaxOpenConns(1)")
		}
	}
	return nil
}

// inspect finds no limits: SQLite does not keep to those that a table declares.
func (d *sqlite) inspect(ctx context.Context, q querier, table string) (all []found, err error) {
	err = eachRow(ctx, q, func(rows *sql.Rows) error {
		var f found
		err := rows.Scan(&f.name, &f.notNull)
		all = append(all, f)
		return err
	}, `SELECT name, "notnull" FROM pragma_table_info(?) ORDER BY cid`, table)
	return all, err
}

func (d *sqlite) create() (table, notes string) {
	return createTable(d.table, "text", ""), createNotes(d.table, "")
}

// begin takes the lock of the database that only one writer has at a time, of all
// programs, before anything is read. A transaction that took it only when it
// writes would fail if another one had written since.
func (d *sqlite) begin() string { return "BEGIN IMMEDIATE" }

func (d *sqlite) forUpdate() string { return "" }

func (d *sqlite) biggestID() string {
	return "SELECT MAX(CAST(id AS INTEGER)) FROM `" + d.table + "` WHERE length(id) BETWEEN 1 AND 10 AND id NOT GLOB '*[^0-9]*'"
}

// lockTable does nothing: see begin.
func (d *sqlite) lockTable(context.Context, *sql.Conn) (func(), error) { return func() {}, nil }

// inMemory are the records of databases in memory that are being refreshed.
var inMemory sync.Map // of memoryRecord

// A memoryRecord is a record of a database in memory. Nothing but the *sql.DB
// tells such databases apart.
type memoryRecord struct {
	db        *sql.DB
	table, id string
}

func (d *sqlite) tryLock(_ context.Context, db *sql.DB, id string) (*held, error) {
	if d.path == "" {
		key := memoryRecord{db, d.table, id}
		if _, busy := inMemory.LoadOrStore(key, true); busy {
			return nil, nil
		}
		return &held{unlock: func() { inMemory.Delete(key) }}, nil
	}
	digest := sha256.Sum256([]byte(d.table + "\x00" + id))
	about, err := os.Stat(d.path)
	if err != nil {
		return nil, err
	}
	f, err := lockfile.TryLock(d.path+"."+hex.EncodeToString(digest[:8])+".refresh.lock", about)
	if f == nil {
		return nil, err
	}
	return &held{unlock: func() { lockfile.Remove(f) }}, nil
}

// sqliteClasses are the classes of SQLite's errors, whose texts begin alike in all
// drivers. They hold no values.
var sqliteClasses = []struct {
	text  string
	class error
}{
	{"database is locked", errBusy},
	{"database table is locked", errBusy},
	{"database schema is locked", errBusy},
	{"unique constraint failed", errDuplicate},
	{"readonly database", tokenstore.ErrDenied},
	{"not authorized", tokenstore.ErrDenied},
	{"permission denied", tokenstore.ErrDenied},
	{"disk image is malformed", tokenstore.ErrCorrupt},
	{"file is not a database", tokenstore.ErrCorrupt},
	{"unable to open database file", tokenstore.ErrRefused},
	{"no such table", tokenstore.ErrRefused},
	{"no such column", tokenstore.ErrRefused},
	{"no such function", tokenstore.ErrRefused},
	{"has no column named", tokenstore.ErrRefused},
	{"syntax error", tokenstore.ErrRefused},
	{"constraint failed", tokenstore.ErrRefused}, // one that the SDKs' table lacks
}

func (d *sqlite) classed(err error) error {
	if foreign := (*lockfile.ForeignError)(nil); errors.As(err, &foreign) {
		return classed(tokenstore.ErrRefused, err)
	}
	text := strings.ToLower(err.Error())
	for _, c := range sqliteClasses {
		if strings.Contains(text, c.text) {
			return ofClass(c.class, err)
		}
	}
	return classed(tokenstore.ErrUnavailable, err)
}

func (d *sqlite) outside(err error) bool {
	return strings.Contains(err.Error(), "no transaction is active")
}

// createTable returns the statement that creates the SDKs' table, as their
// documentation has it, but with columns of the type text for what may be longer than
// theirs.
func createTable(name, text, options string) string {
	var columns strings.Builder
	for _, c := range columnNames {
		columns.WriteString(c + " " + cmp.Or(ownTypes[c], text) + ", ")
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS `%s` (%sprimary key (id))%s", name, columns.String(), options)
}

// ownTypes are the types of the columns whose values are short. The values of the
// others come from the authorization server.
var ownTypes = map[string]string{
	"id": "varchar(10) NOT NULL", "user_name": "varchar(255)", "client_id": "varchar(255)", "expiry_time": "varchar(20)",
}

func createNotes(name, options string) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS `%s%s` (name varchar(64) NOT NULL, note text NOT NULL, primary key (name))%s", name, notesSuffix, options)
}
