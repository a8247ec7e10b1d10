package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	driver "github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/internal/mariadb"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/storetest"
)

// TestMain runs the tests or, in a child process, the function child. It then stops the server that
// the tests started.
func TestMain(m *testing.M) {
	code := storetest.Main(m, child)
	stopServer()
	os.Exit(code)
}

// server is the MySQL or MariaDB server of the tests. The first test that needs the server
// starts it and creates a database.
var server struct {
	once     sync.Once
	running  *mariadb.Server
	database string
	err      error
}

func stopServer() {
	if server.running == nil {
		return
	}
	if db, err := sql.Open("mysql", server.running.DSN("")); err == nil {
		_, _ = db.ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+server.database)
		_ = db.Close()
	}
	if err := server.running.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// mysqlDSN returns the data source name of a database on a real server. If no server is installed,
// mysqlDSN skips the test, or fails it if TOKENKEEP_REQUIRE contains "mysql". If the server does
// not start, mysqlDSN fails the test.
func mysqlDSN(t testing.TB) string {
	t.Helper()
	server.once.Do(func() {
		server.running, server.err = mariadb.Start(context.Background())
		if server.err != nil {
			return
		}
		server.database = fmt.Sprintf("tokenkeep_%08x", rand.Uint32())
		var db *sql.DB
		if db, server.err = sql.Open("mysql", server.running.DSN("")); server.err != nil {
			return
		}
		defer db.Close()
		_, server.err = db.ExecContext(context.Background(), "CREATE DATABASE "+server.database+" CHARACTER SET utf8mb4")
	})
	if server.err != nil {
		required := strings.FieldsFunc(os.Getenv("TOKENKEEP_REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
		if slices.Contains(required, "mysql") {
			t.Fatalf("no mysql, which TOKENKEEP_REQUIRE asks for: %v", server.err)
		}
		if !errors.Is(server.err, mariadb.ErrNotInstalled) {
			t.Fatalf("mysql does not start: %v", server.err)
		}
		t.Skipf("no mysql: %v, and %s is not set", server.err, mariadb.EnvDSN)
	}
	return server.running.DSN(server.database)
}

func withParams(t testing.TB, dsn string, params map[string]string) string {
	t.Helper()
	c, err := driver.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if c.Params == nil {
		c.Params = map[string]string{}
	}
	for name, value := range params {
		c.Params[name] = value
	}
	return c.FormatDSN()
}

type backend struct {
	dialect Dialect
	driver  string
	dsn     string
	table   string
	path    string  // of a SQLite file
	memory  *sql.DB // of a SQLite database in memory; closing it discards the database
}

var kinds = []struct {
	name string
	new  func(t testing.TB) *backend
}{
	{"sqlite file", sqliteFile},
	{"sqlite in WAL mode", sqliteWAL},
	{"sqlite in memory", sqliteMemory},
	{"mysql", mysqlTable},
}

func each(t *testing.T, test func(t *testing.T, b *backend)) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			test(t, kind.new(t))
		})
	}
}

func sqliteFile(t testing.TB) *backend {
	path := filepath.Join(t.TempDir(), "zohooauth.db")
	return &backend{dialect: SQLite, driver: "sqlite", dsn: "file:" + path, path: path}
}

func sqliteWAL(t testing.TB) *backend {
	b := sqliteFile(t)
	b.dsn += "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)"
	return b
}

// sqliteMemory returns a backend with a database in memory that all connections of one *sql.DB
// share.
func sqliteMemory(t testing.TB) *backend {
	b := &backend{dialect: SQLite, driver: "sqlite", dsn: fmt.Sprintf("file:memory%x?mode=memory&cache=shared", rand.Uint64())}
	b.memory = b.connect(t)
	return b
}

// mysqlTable returns a backend with a new table name on the server, and drops the tables of the
// backend after the test.
func mysqlTable(t testing.TB) *backend {
	b := &backend{dialect: MySQL, driver: "mysql", dsn: mysqlDSN(t), table: fmt.Sprintf("oauthtoken_%08x", rand.Uint32())}
	t.Cleanup(func() {
		db, err := sql.Open(b.driver, b.dsn)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		if _, err := db.ExecContext(context.Background(), "DROP TABLE IF EXISTS "+b.table+", "+b.table+notesSuffix+", "+b.table+extensionsSuffix); err != nil {
			t.Error(err)
		}
	})
	return b
}

// connect returns a new *sql.DB, which shares no connection with an earlier one. For a database
// in memory, it always returns b.memory.
func (b *backend) connect(t testing.TB) *sql.DB {
	t.Helper()
	if b.memory != nil {
		return b.memory // the lock of a refresh works only between stores on one *sql.DB
	}
	db, err := sql.Open(b.driver, b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (b *backend) open(t testing.TB, opts *Options) *Store {
	t.Helper()
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Table = b.table
	s, err := New(t.Context(), b.connect(t), b.dialect, &o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *backend) name() string {
	if b.table == "" {
		return defaultTable
	}
	return b.table
}

// exec executes statements without a store, with the table's name for each %s.
func (b *backend) exec(t testing.TB, statements ...string) {
	t.Helper()
	db := b.connect(t)
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), strings.ReplaceAll(statement, "%s", b.name())); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// rows returns the result of a query as text, with "<nil>" for NULL and the table's name for each
// %s in query.
func (b *backend) rows(t testing.TB, query string, args ...any) [][]string {
	t.Helper()
	found, err := b.connect(t).QueryContext(t.Context(), strings.ReplaceAll(query, "%s", b.name()), args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer found.Close()
	names, err := found.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for found.Next() {
		fields := make([]sql.NullString, len(names))
		into := make([]any, len(names))
		for i := range fields {
			into[i] = &fields[i]
		}
		if err := found.Scan(into...); err != nil {
			t.Fatal(err)
		}
		var row []string
		for _, f := range fields {
			if f.Valid {
				row = append(row, f.String)
			} else {
				row = append(row, "<nil>")
			}
		}
		all = append(all, row)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func mustSave(t testing.TB, s tokenstore.TokenStore, token tokenstore.Token) tokenstore.Token {
	t.Helper()
	saved, err := s.SaveToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

// A syncBuffer is a buffer that is safe for concurrent use by a logger and a test.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func logger(b *syncBuffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
