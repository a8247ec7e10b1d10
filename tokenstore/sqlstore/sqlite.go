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
	"slices"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/lockfile"
)

type sqlite struct {
	table string
	path  string // of the database file; empty for a database in memory
}

func (d *sqlite) open(ctx context.Context, db *sql.DB) error {
	err := db.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&d.path)
	if err != nil {
		return err
	}
	if d.path != "" {
		// A symbolic link to the file must lead to the same lock.
		if path, err := filepath.EvalSymlinks(d.path); err == nil {
			d.path = path
		}
	}
	return nil
}

// check returns an error if each connection has its own database in memory, because the table then
// exists for only one connection.
func (d *sqlite) check(ctx context.Context, db *sql.DB) error {
	if d.path != "" || db.Stats().MaxOpenConnections == 1 {
		return nil
	}
	for range 2 {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close() // closed at the end, so that the next connection is a different one
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

// inspect returns columns without limits, because SQLite does not enforce declared limits.
func (d *sqlite) inspect(ctx context.Context, q querier, table string) (all []found, err error) {
	err = eachRow(ctx, q, func(rows *sql.Rows) error {
		var f found
		err := rows.Scan(&f.name, &f.notNull)
		all = append(all, f)
		return err
	}, `SELECT name, "notnull" FROM pragma_table_info(?) ORDER BY cid`, table)
	return all, err
}

func (d *sqlite) create() (table, notes, extensions string) {
	return createTable(d.table, "text", "", ""), createNotes(d.table, ""), createExtensions(d.table, "text", "text", "")
}

func (d *sqlite) idText() string { return "CAST(id AS TEXT)" }

// missingIndexes considers a column indexed if some index begins with the column and is not
// partial.
func (d *sqlite) missingIndexes(ctx context.Context, q querier) ([]string, error) {
	missing := slices.Clone(indexed)
	err := eachRow(ctx, q, func(rows *sql.Rows) error {
		var column sql.NullString // NULL for an expression
		err := rows.Scan(&column)
		missing = slices.DeleteFunc(missing, func(c string) bool { return strings.EqualFold(c, column.String) })
		return err
	}, "SELECT i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE l.partial = 0 AND i.seqno = 0", d.table)
	return missing, err
}

// begin takes the database's write lock, which excludes all other writers, before the transaction
// reads. With a plain BEGIN, SQLite would refuse the lock at the first write if another program had
// written after the transaction's first read.
func (d *sqlite) begin() string { return "BEGIN IMMEDIATE" }

func (d *sqlite) forUpdate() string { return "" }

func (d *sqlite) biggestID() string {
	return "SELECT MAX(CAST(id AS INTEGER)) FROM `" + d.table + "` WHERE length(id) BETWEEN 1 AND 10 AND id NOT GLOB '*[^0-9]*'"
}

// lockTable does nothing: see begin.
func (d *sqlite) lockTable(context.Context, *sql.Conn) (func(), error) { return func() {}, nil }

// inMemory holds, for all databases in memory, the records that are being refreshed.
var inMemory sync.Map // the keys are of type memoryRecord

// A memoryRecord identifies a record of a database in memory. Only the *sql.DB
// distinguishes such databases.
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
		return &held{unlock: func(context.Context) { inMemory.Delete(key) }}, nil
	}
	about, err := os.Stat(d.path)
	if err != nil {
		return nil, err
	}
	f, err := lockfile.TryLock(d.lockPath(id), about)
	if f == nil {
		return nil, err
	}
	return &held{unlock: func(context.Context) { lockfile.Remove(f) }}, nil
}

func (d *sqlite) lockPath(id string) string {
	digest := sha256.Sum256([]byte(d.table + "\x00" + id))
	return d.path + "." + hex.EncodeToString(digest[:8]) + ".refresh.lock"
}

func (d *sqlite) locked(_ context.Context, db *sql.DB, id string) (bool, error) {
	if d.path == "" {
		_, busy := inMemory.Load(memoryRecord{db, d.table, id})
		return busy, nil
	}
	_, busy, err := lockfile.Peek(d.lockPath(id), 0)
	return busy, err
}

// sqliteClasses maps parts of SQLite's error texts, in lower case, to classes. The first entry
// whose text occurs in an error determines the class. The texts come from SQLite, not from a
// driver, and contain no values.
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
	{"constraint failed", tokenstore.ErrRefused}, // a constraint that the SDKs' table does not have
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

// createTable returns the statement that creates the SDKs' table. text is the type of the columns
// that are not in ownTypes. The text in keys follows the primary key, and the text in options ends
// the statement.
func createTable(name, text, keys, options string) string {
	var columns strings.Builder
	for _, c := range columnNames {
		columns.WriteString(c + " " + cmp.Or(ownTypes[c], text) + ", ")
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS `%s` (%sprimary key (id)%s)%s", name, columns.String(), keys, options)
}

// ownTypes are the types of the columns with short values. The values of the other columns can
// be long, because the authorization server chooses most of them.
var ownTypes = map[string]string{
	"id": "varchar(10) NOT NULL", "user_name": "varchar(255)", "client_id": "varchar(255)", "expiry_time": "varchar(20)",
}

func createNotes(name, options string) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS `%s%s` (name varchar(64) NOT NULL, note text NOT NULL, primary key (name))%s", name, notesSuffix, options)
}
