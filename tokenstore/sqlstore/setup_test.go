package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// A stranger is a database that answers only the query in its field question. It refuses all other
// statements with the text in its field complaint.
type stranger struct{ question, answer, complaint string }

func (s stranger) Connect(context.Context) (driver.Conn, error) { return s, nil }
func (s stranger) Driver() driver.Driver                        { return nil }
func (s stranger) Prepare(string) (driver.Stmt, error)          { return nil, errors.New(s.complaint) }
func (s stranger) Begin() (driver.Tx, error)                    { return nil, errors.New(s.complaint) }
func (s stranger) Close() error                                 { return nil }
func (s stranger) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if query == s.question {
		return &oneRow{text: s.answer}, nil
	}
	return nil, errors.New(s.complaint)
}

type oneRow struct {
	text string
	read bool
}

func (r *oneRow) Columns() []string { return []string{"version"} }
func (r *oneRow) Close() error      { return nil }
func (r *oneRow) Next(into []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read, into[0] = true, r.text
	return nil
}

// TestOtherDatabase checks that New refuses a database that does not match the dialect.
func TestOtherDatabase(t *testing.T) {
	t.Parallel()
	const postgres = "PostgreSQL 15.4 on x86_64-pc-linux-gnu"
	lite, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	for name, test := range map[string]struct {
		db      *sql.DB
		dialect Dialect
		want    string
	}{
		"PostgreSQL as MySQL":  {sql.OpenDB(stranger{"SELECT version()", postgres, "ERROR: function database() does not exist (SQLSTATE 42883)"}), MySQL, "PostgreSQL, which is not supported"},
		"PostgreSQL as SQLite": {sql.OpenDB(stranger{"SELECT version()", postgres, `ERROR: relation "pragma_database_list" does not exist`}), SQLite, "PostgreSQL, which is not supported"},
		"SQLite as MySQL":      {lite, MySQL, "the database is SQLite"},
		"MySQL as SQLite":      {sql.OpenDB(stranger{"SELECT version()", "8.4.3", "Error 1146 (42S02): Table 'd.pragma_database_list' doesn't exist"}), SQLite, "the database is MySQL or MariaDB"},
	} {
		_, err := New(t.Context(), test.db, test.dialect, nil)
		if !errors.Is(err, tokenstore.ErrRefused) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: New returned error %v, want %q", name, err, test.want)
		}
		if test.db != lite {
			_ = test.db.Close()
		}
	}
	var tables int
	if err := lite.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("%d tables were created, %v", tables, err)
	}
}

// TestErrorClasses checks that each error of a server or driver matches the expected class. It also
// checks that the error matches at most one of the classes in classesOf.
func TestErrorClasses(t *testing.T) {
	t.Parallel()
	my, lite := &mysql{table: "t"}, &sqlite{table: "t"}
	for _, test := range []struct {
		of   dialect
		text string
		want error
	}{
		{my, "Error 1049 (42000): Unknown database 'zoho'", tokenstore.ErrRefused},
		{my, "Error 1146 (42S02): Table 'd.oauthtoken' doesn't exist", tokenstore.ErrRefused},
		{my, "Error 1054 (42S22): Unknown column 'api_domain' in 'field list'", tokenstore.ErrRefused},
		{my, "Error 1305 (42000): FUNCTION d.GET_LOCK does not exist", tokenstore.ErrRefused},
		{my, "Error 1364 (HY000): Field 'tenant' doesn't have a default value", tokenstore.ErrRefused},
		{my, "Error 1290 (HY000): The MySQL server is running with the --read-only option so it cannot execute this statement", tokenstore.ErrRefused},
		{my, "Error 1792 (25006): Cannot execute statement in a READ ONLY transaction", tokenstore.ErrRefused},
		{my, "Error 1836 (HY000): Running in read-only mode", tokenstore.ErrRefused},
		{my, "Error 1142 (42000): UPDATE command denied to user", tokenstore.ErrDenied},
		{my, "Error 1045 (28000): Access denied for user", tokenstore.ErrDenied},
		{my, "Error 1040 (HY000): Too many connections", tokenstore.ErrUnavailable},
		{my, "dial tcp 127.0.0.1:3306: connect: connection refused", tokenstore.ErrUnavailable},
		{my, "tls: failed to verify certificate: x509: certificate signed by unknown authority", tokenstore.ErrRefused},
		{my, "TLS requested but server does not support TLS", tokenstore.ErrRefused},
		{lite, "unable to open database file: out of memory (14)", tokenstore.ErrRefused},
		{lite, "SQL logic error: no such table: oauthtoken (1)", tokenstore.ErrRefused},
		{lite, "attempt to write a readonly database (8)", tokenstore.ErrDenied},
		{lite, "database or disk is full (13)", tokenstore.ErrUnavailable},
		{lite, "database is locked (5) (SQLITE_BUSY)", tokenstore.ErrUnavailable},
	} {
		err := test.of.classed(errors.New(test.text))
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %q", test.text, err, test.want)
		}
		if n := strings.Count(fmt.Sprint(classesOf(err)), " "); n != 0 {
			t.Errorf("%s has several classes: %v", test.text, classesOf(err))
		}
	}
	if err := my.classed(errors.New("Error 1290 (HY000): read-only")); !strings.Contains(err.Error(), "rejectReadOnly=true") {
		t.Errorf("%v does not say what to do", err)
	}
}

func classesOf(err error) (names []string) {
	for name, class := range map[string]error{"refused": tokenstore.ErrRefused, "denied": tokenstore.ErrDenied, "unavailable": tokenstore.ErrUnavailable, "corrupt": tokenstore.ErrCorrupt} {
		if errors.Is(err, class) {
			names = append(names, name)
		}
	}
	return names
}

// A failover is a Connector for a server that changes: once over is set, earlier connections
// refuse writes, and new connections accept them.
type failover struct {
	driver.Connector
	over *atomic.Bool
}

func (f failover) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &oldConn{conn, f.over, f.over.Load()}, nil
}

type oldConn struct {
	driver.Conn
	over *atomic.Bool
	new  bool
}

func (c *oldConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *oldConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	writes := slices.Contains([]string{"INSERT", "UPDATE", "DELETE", "REPLACE"}, strings.SplitN(query, " ", 2)[0])
	if c.over.Load() && !c.new && writes {
		return nil, &mysqldriver.MySQLError{Number: 1290, Message: "The MySQL server is running with the --read-only option so it cannot execute this statement"}
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *oldConn) CheckNamedValue(v *driver.NamedValue) error {
	return c.Conn.(driver.NamedValueChecker).CheckNamedValue(v)
}

// TestFailover checks that a save or refresh succeeds even though all connections of the pool lead
// to a server that has become read-only. The server can become read-only before the refresh or
// while mint runs.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(t *testing.T, s *Store, over *atomic.Bool){
		"save": func(t *testing.T, s *Store, over *atomic.Bool) {
			over.Store(true)
			mustSave(t, s, tokenstore.Token{ID: "1", RefreshToken: "r2"})
		},
		"refresh after it": func(t *testing.T, s *Store, over *atomic.Bool) {
			over.Store(true)
			refreshed(t, s, func() {})
		},
		"refresh during it": func(t *testing.T, s *Store, over *atomic.Bool) {
			refreshed(t, s, func() { over.Store(true) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := mysqlTable(t)
			config, err := mysqldriver.ParseDSN(b.dsn)
			if err != nil {
				t.Fatal(err)
			}
			connector, err := mysqldriver.NewConnector(config)
			if err != nil {
				t.Fatal(err)
			}
			over := &atomic.Bool{}
			db := sql.OpenDB(failover{connector, over})
			defer db.Close()
			db.SetMaxIdleConns(8)
			s, err := New(t.Context(), db, MySQL, &Options{Table: b.table})
			if err != nil {
				t.Fatal(err)
			}
			mustSave(t, s, tokenstore.Token{UserName: "ann", RefreshToken: "r1", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
			var held []*sql.Conn
			for range 8 {
				c, err := db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
			}
			for _, c := range held {
				_ = c.Close()
			}
			act(t, s, over)
			if got, err := b.open(t, nil).FindTokenByID(t.Context(), "1"); err != nil || got.RefreshToken != "r2" {
				t.Errorf("the record has %q, %v", string(got.RefreshToken), err)
			}
		})
	}
}

func refreshed(t *testing.T, s *Store, meanwhile func()) {
	t.Helper()
	minted := 0
	got, err := s.Refresh(t.Context(), "1", "old", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		minted++
		meanwhile()
		return tokenstore.Token{AccessToken: "new", RefreshToken: "r2", ExpiresAt: time.Now().Add(time.Hour)}, nil
	})
	if err != nil || got.AccessToken != "new" || minted != 1 {
		t.Errorf("Refresh returned %q after %d calls of mint, %v", string(got.AccessToken), minted, err)
	}
}

// TestReadOnlyTableMintsNothing checks that Refresh does not call mint if the table is not
// writable.
func TestReadOnlyTableMintsNothing(t *testing.T) {
	t.Parallel()
	b := sqliteFile(t)
	mustSave(t, b.open(t, nil), tokenstore.Token{UserName: "ann", RefreshToken: "r1", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
	b.dsn += "?_pragma=query_only(1)"
	s := b.open(t, nil)
	_, err := s.Refresh(t.Context(), "1", "old", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		t.Error("mint was called")
		return tokenstore.Token{}, errors.New("minted")
	})
	if !errors.Is(err, tokenstore.ErrDenied) {
		t.Errorf("Refresh returned error %v, want %q", err, tokenstore.ErrDenied)
	}
}

// longMint returns tokens that are too long for columns of 255 characters.
func longMint(context.Context, tokenstore.Token) (tokenstore.Token, error) {
	long := tokenstore.Secret(strings.Repeat("x", 20_000))
	return tokenstore.Token{AccessToken: "a" + long, RefreshToken: "r" + long, ExpiresAt: time.Now().Add(time.Hour)}, nil
}

// TestLongTokens checks that Refresh stores tokens that are too long for the columns of the
// SDKs' table.
func TestLongTokens(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		for name, create := range map[string]string{
			"own table":   "",
			"SDK's table": wide("id varchar(10) NOT NULL PRIMARY KEY", ""),
			"NOT NULL":    strings.ReplaceAll(wide("id varchar(10) NOT NULL PRIMARY KEY", ""), "token varchar(255)", "token varchar(255) NOT NULL"),
			"bytes":       strings.ReplaceAll(wide("id varchar(10) NOT NULL PRIMARY KEY", ""), "access_token varchar(255)", "access_token varbinary(255)"),
		} {
			b.exec(t, "DROP TABLE IF EXISTS %s")
			if create != "" {
				b.exec(t, create)
			}
			s, stale := b.open(t, nil), b.open(t, nil)
			if n := findings(t, s, doctor.KindColumnNarrow); n != 0 != (create != "" && b.dialect == MySQL) {
				t.Errorf("%s: Check finds %d narrow columns", name, n)
			}
			record := mustSave(t, s, tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
			want, err := s.Refresh(t.Context(), record.ID, "old", longMint)
			if err != nil {
				t.Errorf("%s: Refresh: %v", name, err)
			}
			if got, err := stale.FindTokenByID(t.Context(), record.ID); err != nil || got.RefreshToken != want.RefreshToken || got.AccessToken != want.AccessToken {
				t.Errorf("%s: the record does not have the new tokens, %v", name, err)
			}
			// A store that inspected the table before the columns were widened also saves a long token.
			mustSave(t, stale, tokenstore.Token{ID: record.ID, RefreshToken: tokenstore.Secret(strings.Repeat("y", 300))})
			if n := findings(t, s, doctor.KindColumnNarrow); name == "own table" && n != 0 {
				t.Errorf("%s: Check finds %d narrow columns", name, n)
			}
		}
	})
}

func findings(t *testing.T, s *Store, kind doctor.Kind) int {
	t.Helper()
	n := 0
	for f, err := range s.Check(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == kind {
			n++
		}
	}
	return n
}
