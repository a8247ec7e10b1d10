package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

type mysql struct {
	table    string
	database string
}

func (d *mysql) open(ctx context.Context, db *sql.DB) error {
	var database, results sql.NullString
	var client, connection string
	var autocommit bool
	err := db.QueryRowContext(ctx, "SELECT DATABASE(), @@character_set_client, @@character_set_connection, @@character_set_results, @@autocommit").
		Scan(&database, &client, &connection, &results, &autocommit)
	if err != nil {
		return err
	}
	for _, set := range []string{client, connection, results.String} {
		if set != "utf8mb4" {
			return setUp("a connection speaks the character set %q, and has to speak utf8mb4: see the parameter charset of the data source name", set)
		}
	}
	switch {
	case !database.Valid:
		return setUp("no database is selected: put its name into the data source name")
	case !autocommit:
		return setUp("autocommit is off, and reads would never see what others write")
	}
	d.database = database.String
	return nil
}

// check returns an error if the table's engine has no transactions.
func (d *mysql) check(ctx context.Context, db *sql.DB) error {
	var engine, transactions sql.NullString
	err := db.QueryRowContext(ctx, "SELECT t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE "+
		"WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = ?", d.table).Scan(&engine, &transactions)
	switch {
	case err != nil:
		return err
	case engine.Valid && transactions.String != "YES":
		return setUp("the table %q is in the engine %s, which has no transactions: ALTER TABLE %s ENGINE=InnoDB", d.table, engine.String, d.table)
	}
	return nil
}

func (d *mysql) inspect(ctx context.Context, q querier, table string) (all []found, err error) {
	err = eachRow(ctx, q, func(rows *sql.Rows) error {
		var f found
		var kind, nullable string
		var limit sql.NullInt64
		err := rows.Scan(&f.name, &kind, &limit, &nullable)
		f.limit = int(min(limit.Int64, 1<<30))
		kind = strings.ToLower(kind)
		f.bytes = kind != "varchar" && kind != "char" // limits of other types are in bytes
		f.notNull = nullable == "NO"
		all = append(all, f)
		return err
	}, "SELECT COLUMN_NAME, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, IS_NULLABLE FROM information_schema.COLUMNS "+
		"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION", table)
	return all, err
}

// longText is the type of the columns that are not in ownTypes. Such a column holds up to 65,535
// bytes. Its collation is not binary, because the Python SDK's connector returns text with a
// binary collation as bytes. Package rowstore compares bytes regardless of the collation.
const longText = "text CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"

// create sets the engine, character set and collation. The default engine of an old server may lack
// transactions. The default character set may lack most characters, and the default collation may
// ignore case.
func (d *mysql) create() (table, notes, extensions string) {
	const options = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
	return createTable(d.table, longText, ", KEY (user_name)", options), createNotes(d.table, options),
		createExtensions(d.table, "varbinary(255)", "mediumtext", options)
}

// idText converts the ID to bytes, so that the character set and collation of the SDKs'
// column do not matter.
func (d *mysql) idText() string { return "CAST(CONVERT(id USING utf8mb4) AS BINARY)" }

// missingIndexes returns nil. Indexes of an existing table are its operator's responsibility,
// because DDL in MySQL waits for all users of the table. A new table has an index on user_name, but
// none on the tokens. If an index on a token existed, a program that uses an SDK would lock a row
// before the index entry of the row. A search of this package that locks rows would lock the index
// entry first. The two transactions could then deadlock, and the server would roll back one of
// them.
func (d *mysql) missingIndexes(context.Context, querier) ([]string, error) { return nil, nil }

func (d *mysql) begin() string { return "START TRANSACTION" }

// forUpdate locks the selected rows. Without an index, it locks all rows and, at the default
// isolation level, the gaps for new rows. Programs with an SDK do not use the lock of lockTable,
// but must wait for these locks.
func (d *mysql) forUpdate() string { return " FOR UPDATE" }

func (d *mysql) biggestID() string {
	return "SELECT MAX(CAST(id AS UNSIGNED)) FROM `" + d.table + "` WHERE id REGEXP '^[0-9]{1,10}$'"
}

// lockName returns the name of the lock for the table and parts. The name is a digest, because
// MySQL limits the name of a lock to 64 characters. The digest includes the name of the database,
// because all databases of a server share the names of locks.
func (d *mysql) lockName(parts ...string) string {
	h := sha256.New()
	for _, part := range append([]string{strings.ToLower(d.database), strings.ToLower(d.table)}, parts...) {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return "tokenkeep " + hex.EncodeToString(h.Sum(nil)[:20])
}

// lockTable takes a lock named after the table. Row locks are not enough: if two transactions find
// no row for a user and both insert a row, each transaction blocks the other. The server then rolls
// back one of the transactions.
func (d *mysql) lockTable(ctx context.Context, conn *sql.Conn) (release func(), err error) {
	name := d.lockName()
	wait := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	switch got, err := d.lock(ctx, conn, name, wait); {
	case err != nil:
		return nil, err
	case !got:
		return nil, context.DeadlineExceeded
	}
	return func() {
		end, cancel := ending(ctx)
		defer cancel()
		d.unlock(end, conn, name)
	}, nil
}

func (d *mysql) tryLock(ctx context.Context, db *sql.DB, id string) (*held, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	name := d.lockName(id)
	got, err := d.lock(ctx, conn, name, 0)
	if err != nil || !got {
		_ = conn.Close()
		return nil, err
	}
	return &held{conn: conn, unlock: func(ctx context.Context) {
		d.unlock(ctx, conn, name)
		_ = conn.Close()
	}}, nil
}

func (d *mysql) locked(ctx context.Context, db *sql.DB, id string) (bool, error) {
	var holder sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?)", d.lockName(id)).Scan(&holder)
	return holder.Valid, err
}

// lock takes a named lock, which the server releases when the connection ends. lock waits for at
// most the duration wait, rounded up to seconds, and reports whether it took the lock.
func (d *mysql) lock(ctx context.Context, conn *sql.Conn, name string, wait time.Duration) (bool, error) {
	var got sql.NullInt64
	seconds := int64((wait + time.Second - 1) / time.Second)
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", name, seconds).Scan(&got); err != nil {
		discard(conn) // the connection may hold the lock
		return false, err
	}
	if !got.Valid {
		return false, errors.New("GET_LOCK has failed")
	}
	return got.Int64 == 1, nil
}

// unlock releases a named lock. If the release fails, unlock closes conn, and the server then
// releases the lock.
func (d *mysql) unlock(ctx context.Context, conn *sql.Conn, name string) {
	if _, err := conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", name); err != nil {
		discard(conn)
	}
}

// numbers matches the number at the beginning of a server's error, as drivers format the error.
var numbers = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)^error ([0-9]{4})\b`) })

// mysqlClasses maps the numbers of the server's errors to classes. If bare is set, the server's
// text may quote a value of a column, so errors have only the number.
var mysqlClasses = map[int]struct {
	class error
	bare  bool
}{
	1205: {class: errBusy},      // a row was locked for too long
	1213: {class: errBusy},      // a deadlock
	1020: {class: errBusy},      // a row has changed since it was read
	1062: {class: errDuplicate}, // a duplicate in a unique index
	1044: {class: tokenstore.ErrDenied},
	1045: {class: tokenstore.ErrDenied},
	1142: {class: tokenstore.ErrDenied},
	1143: {class: tokenstore.ErrDenied},
	1227: {class: tokenstore.ErrDenied},
	1290: {class: errReadOnly}, // the server is read-only
	1698: {class: tokenstore.ErrDenied},
	1792: {class: errReadOnly}, // the transaction is read-only
	1836: {class: errReadOnly}, // the server is being upgraded, and read-only
	3100: {class: errReadOnly}, // this member of a group takes no writes
	1406: {class: tokenstore.ErrTooLarge},
	1264: {class: tokenstore.ErrInvalidToken}, // a number is out of range
	1267: {class: tokenstore.ErrInvalidToken}, // two collations that cannot be compared
	1366: {class: tokenstore.ErrInvalidToken, bare: true},
	1977: {class: tokenstore.ErrInvalidToken, bare: true}, // a character that the target character set lacks
	3854: {class: tokenstore.ErrInvalidToken, bare: true}, // a character that the target character set lacks
	3988: {class: tokenstore.ErrInvalidToken, bare: true}, // a character that the target character set lacks
	1040: {class: tokenstore.ErrUnavailable},              // too many connections
	1203: {class: tokenstore.ErrUnavailable},              // too many connections of a user
	1046: {class: tokenstore.ErrRefused},                  // no database is selected
	1048: {class: tokenstore.ErrRefused},                  // an additional column may not be NULL
	1049: {class: tokenstore.ErrRefused},                  // no such database
	1054: {class: tokenstore.ErrRefused},                  // no such column
	1064: {class: tokenstore.ErrRefused, bare: true},      // the server has a different SQL syntax
	1071: {class: tokenstore.ErrRefused},                  // a key is too long
	1115: {class: tokenstore.ErrRefused},                  // no such character set
	1118: {class: tokenstore.ErrRefused},                  // a row is too long
	1146: {class: tokenstore.ErrRefused},                  // no such table
	1170: {class: tokenstore.ErrRefused},                  // an index on a column of the type text
	1193: {class: tokenstore.ErrRefused},                  // no such variable
	1235: {class: tokenstore.ErrRefused},                  // not supported by this server
	1273: {class: tokenstore.ErrRefused},                  // no such collation
	1286: {class: tokenstore.ErrRefused},                  // no such engine
	1305: {class: tokenstore.ErrRefused},                  // no such function
	1364: {class: tokenstore.ErrRefused},                  // an additional column has no default
	1451: {class: tokenstore.ErrRefused, bare: true},      // a foreign key
	1452: {class: tokenstore.ErrRefused, bare: true},      // a foreign key
	3819: {class: tokenstore.ErrRefused, bare: true},      // a CHECK constraint
	4025: {class: tokenstore.ErrRefused, bare: true},      // a CHECK constraint
	3024: {class: tokenstore.ErrUnavailable},              // the query took too long
	1317: {class: tokenstore.ErrUnavailable},              // the query was interrupted
}

// mysqlSetUp lists parts of error texts of drivers and package tls. An error with one of these
// parts persists until an operator changes the data source name or the server.
var mysqlSetUp = []string{
	"x509:", "does not support TLS", "authentication plugin", "old password", "cleartext", "function database() does not exist", "syntax error",
}

func (d *mysql) classed(err error) error {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return again{error: classed(tokenstore.ErrUnavailable, err), few: true} // the pool opens another connection
	}
	m := numbers().FindStringSubmatch(err.Error())
	if m == nil {
		for _, text := range mysqlSetUp {
			if strings.Contains(err.Error(), text) {
				return classed(tokenstore.ErrRefused, err)
			}
		}
		return classed(tokenstore.ErrUnavailable, err)
	}
	n, _ := strconv.Atoi(m[1])
	c, known := mysqlClasses[n]
	if !known {
		c.class, c.bare = tokenstore.ErrUnavailable, true
	}
	if c.bare {
		err = fmt.Errorf("the server's error %d", n)
	}
	return ofClass(c.class, err)
}

func (d *mysql) outside(error) bool { return false }
