package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestNewOlderTable checks that New describes the SDK to which an older table belongs, and adds no
// row to the table.
func TestNewOlderTable(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]struct{ columns, text string }{
		"python 2": {"id varchar(255) NOT NULL PRIMARY KEY, user_mail varchar(255), client_id varchar(255), client_secret varchar(255), refresh_token varchar(255), " +
			"access_token varchar(255), grant_token varchar(255), expiry_time varchar(20), redirect_url varchar(255)",
			"that of the SDKs of generations 2 to 4: it lacks user_name, api_domain"},
		"node 2": {"id int NOT NULL PRIMARY KEY, user_mail varchar(255), client_id varchar(255), refresh_token varchar(255), access_token varchar(255), grant_token varchar(255), expiry_time varchar(20)",
			"that of the SDKs of generation 2 for Node and PHP: it lacks user_name, client_secret, redirect_url, api_domain"},
		"before 8": {"id varchar(10) NOT NULL PRIMARY KEY, user_name varchar(255), client_id varchar(255), client_secret varchar(255), refresh_token varchar(255), " +
			"access_token varchar(255), grant_token varchar(255), expiry_time varchar(20), redirect_url varchar(255)",
			"that of an SDK before generation 8: it lacks api_domain"},
		"first PHP": {"useridentifier varchar(100), accesstoken varchar(100), refreshtoken varchar(100), expirytime bigint", "that of the first SDK for PHP: it lacks id,"},
		"another":   {"id int, name varchar(20)", "not one of the Zoho SDKs: it lacks user_name,"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, b *backend) {
				b.exec(t, "CREATE TABLE %s ("+table.columns+")")
				_, err := New(t.Context(), b.connect(t), b.dialect, &Options{Table: b.table})
				if !errors.Is(err, tokenstore.ErrCorrupt) || !strings.Contains(err.Error(), table.text) {
					t.Errorf("New returned error %v, want one with %q", err, table.text)
				}
				if rows := b.rows(t, "SELECT count(*) FROM %s"); rows[0][0] != "0" {
					t.Errorf("there are %s rows", rows[0][0])
				}
			})
		})
	}
}

// TestTableOtherColumns checks that a store works on a table with additional columns, other
// types, and another order of columns.
func TestTableOtherColumns(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		b.exec(t, "CREATE TABLE %s (created timestamp DEFAULT CURRENT_TIMESTAMP, API_DOMAIN text, redirect_url text, expiry_time bigint, grant_token text, "+
			"access_token text, refresh_token text, client_secret text, client_id varchar(300), user_name varchar(300), id varchar(20) NOT NULL PRIMARY KEY, note varchar(5) NOT NULL DEFAULT 'x')")
		s := b.open(t, nil)
		token := full("ann")
		token.AccessToken = tokenstore.Secret(strings.Repeat("é", 2000))
		saved := mustSave(t, s, token)
		mustSave(t, s, tokenstore.Token{UserName: strings.Repeat("u", 300), AccessToken: "a"})
		if got, err := b.open(t, nil).FindToken(t.Context(), tokenstore.Token{AccessToken: token.AccessToken}); err != nil || got != saved || got.ID != "1" {
			t.Errorf("the record is %q of %q, error %v", got.ID, got.UserName, err)
		}
		if _, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: strings.Repeat("u", 301), AccessToken: "a"}); b.dialect == MySQL && !errors.Is(err, tokenstore.ErrTooLarge) {
			t.Errorf("SaveToken of more than a column holds returned error %v, want %q", err, tokenstore.ErrTooLarge)
		}
	})
}

// TestRowWithoutID checks that rows without an ID, or with the same ID, do not affect other
// records. A primary key would prevent rows with the same ID, so the table has none.
func TestRowWithoutID(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		b.exec(t, wide("id varchar(10)", ""),
			"INSERT INTO %s (id, user_name) VALUES (NULL, 'no ID')",
			"INSERT INTO %s (id, user_name, access_token) VALUES ('1', 'ann', 'a')",
			"INSERT INTO %s (id, user_name, access_token) VALUES ('2', 'twice', 'b')",
			"INSERT INTO %s (id, user_name, access_token) VALUES ('2', 'twice', 'c')")
		s := b.open(t, nil)
		if got, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann"}); err != nil || got.AccessToken != "a" {
			t.Errorf("FindToken returned %q, error %v", got.ID, err)
		}
		if saved := mustSave(t, s, tokenstore.Token{UserName: "bob", AccessToken: "d"}); saved.ID != "3" {
			t.Errorf("the next ID is %q", saved.ID)
		}
		if _, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "no ID"}); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("FindToken of a row without an ID returned error %v, want %q", err, tokenstore.ErrCorrupt)
		}
		if err := s.DeleteToken(t.Context(), "2"); !errors.Is(err, tokenstore.ErrAmbiguous) {
			t.Errorf("DeleteToken of an ID of two rows returned error %v, want %q", err, tokenstore.ErrAmbiguous)
		}
		if err := s.DeleteTokens(t.Context()); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("DeleteTokens returned error %v, want %q", err, tokenstore.ErrCorrupt)
		}
		if rows := b.rows(t, "SELECT id FROM %s WHERE id IS NULL"); len(rows) != 1 {
			t.Errorf("%d rows without an ID are left, want 1", len(rows))
		}
	})
}

func TestNewWithoutTransactions(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	b.exec(t, wide("id varchar(10) NOT NULL PRIMARY KEY", "")+" ENGINE=MyISAM")
	if _, err := New(t.Context(), b.connect(t), MySQL, &Options{Table: b.table}); !errors.Is(err, tokenstore.ErrRefused) || !strings.Contains(err.Error(), "ENGINE=InnoDB") {
		t.Errorf("New returned error %v, want one that says what to do", err)
	}
}

func TestNewBadConnection(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	for text, dsn := range map[string]string{
		"utf8mb4":          withParams(t, b.dsn, map[string]string{"charset": "latin1"}),
		"autocommit":       withParams(t, b.dsn, map[string]string{"autocommit": "0"}),
		"no database":      server.running.DSN(""),
		"Unknown database": server.running.DSN("there_is_none"),
		"does not support": withParams(t, b.dsn, map[string]string{"tls": "true"}),
	} {
		db, err := sql.Open("mysql", dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := New(t.Context(), db, MySQL, nil); !errors.Is(err, tokenstore.ErrRefused) || !strings.Contains(err.Error(), text) {
			t.Errorf("New returned error %v, want one about %q", err, text)
		}
	}
}

// TestNewMemoryDatabase checks that New refuses a pool in which each connection has its own
// database in memory.
func TestNewMemoryDatabase(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := New(t.Context(), db, SQLite, nil); !errors.Is(err, tokenstore.ErrRefused) || !strings.Contains(err.Error(), "cache=shared") {
		t.Errorf("New returned error %v, want one that says what to do", err)
	}
}

func TestMistakesOfTheProgramAreErrors(t *testing.T) {
	t.Parallel()
	b := sqliteFile(t)
	db := b.connect(t)
	for name, open := range map[string]func() (*Store, error){
		"no database":      func() (*Store, error) { return New(t.Context(), nil, SQLite, nil) },
		"another dialect":  func() (*Store, error) { return New(t.Context(), db, "oracle", nil) },
		"an injected name": func() (*Store, error) { return New(t.Context(), db, SQLite, &Options{Table: "t; DROP TABLE x"}) },
		"a quoted name":    func() (*Store, error) { return New(t.Context(), db, SQLite, &Options{Table: "a`b"}) },
		"a long name":      func() (*Store, error) { return New(t.Context(), db, SQLite, &Options{Table: strings.Repeat("t", 51)}) },
		"a short lease":    func() (*Store, error) { return New(t.Context(), db, SQLite, &Options{LeaseTTL: time.Millisecond}) },
		"no patience":      func() (*Store, error) { return New(t.Context(), db, SQLite, &Options{LockTimeout: -1}) },
	} {
		if s, err := open(); err == nil || s != nil || !strings.Contains(err.Error(), "sqlstore: ") {
			t.Errorf("New with %s returned error %v", name, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(canceled, db, SQLite, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("New whose context is done returned error %v, want %q", err, context.Canceled)
	}
}

// TestLimitedDatabaseUser checks that a database user with read permission can search, and that
// a user with write permission can also save and refresh. Neither user can create the second
// table.
func TestLimitedDatabaseUser(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	b.exec(t, wide("id varchar(10) NOT NULL PRIMARY KEY", ""), "INSERT INTO %s (id, user_name, access_token) VALUES ('1', 'ann', 'a')")
	as := func(rights string) (*Store, *syncBuffer) {
		name := fmt.Sprintf("u%08x", rand.Uint32())
		b.exec(t, "CREATE USER "+name+"@'%' IDENTIFIED BY 'p-"+name+"'", "GRANT "+rights+" ON "+server.database+"."+b.table+" TO "+name+"@'%'")
		t.Cleanup(func() { dropUser(t, b, name) })
		_, address, _ := strings.Cut(b.dsn, "@")
		limited := *b
		limited.dsn = name + ":p-" + name + "@" + address
		log := &syncBuffer{}
		return limited.open(t, &Options{Logger: logger(log)}), log
	}
	reader, log := as("SELECT")
	if got, err := reader.FindToken(t.Context(), tokenstore.Token{UserName: "ann"}); err != nil || got.ID != "1" {
		t.Errorf("who may read finds %q, error %v", got.ID, err)
	}
	if _, err := reader.SaveToken(t.Context(), tokenstore.Token{ID: "1", AccessToken: "b"}); !errors.Is(err, tokenstore.ErrDenied) {
		t.Errorf("SaveToken of who may not returned error %v, want %q", err, tokenstore.ErrDenied)
	}
	if !strings.Contains(log.String(), b.table+notesSuffix) {
		t.Errorf("the log does not tell of the second table: %q", log)
	}
	writer, _ := as("SELECT, INSERT, UPDATE, DELETE")
	mustSave(t, writer, tokenstore.Token{UserName: "bob", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
	refusal := &tokenstore.RefreshError{Code: "invalid_code", Permanent: true}
	if _, err := writer.Refresh(t.Context(), "2", "old", func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) { return t, refusal }); !errors.Is(err, refusal) {
		t.Errorf("Refresh returned error %v, want the refusal", err)
	}
	if err := writer.DeleteToken(t.Context(), "2"); err != nil {
		t.Error(err)
	}
}

func dropUser(t *testing.T, b *backend, name string) {
	t.Helper()
	db, err := sql.Open(b.driver, b.dsn)
	if err != nil {
		t.Error(err)
		return
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), "DROP USER "+name+"@'%'"); err != nil {
		t.Error(err)
	}
}

// TestSaveTokenLockHeld checks that a save fails with ErrUnavailable, or with the error from its
// context, while another program locks the table. A save must succeed after the lock is released.
func TestSaveTokenLockHeld(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		if kind.name == "sqlite in memory" {
			continue // another program cannot use a database in memory
		}
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			b := kind.new(t)
			s := b.open(t, &Options{LockTimeout: 2 * time.Second})
			record := mustSave(t, s, full("ann"))
			other, err := b.connect(t).Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			hold, free := "BEGIN IMMEDIATE", "ROLLBACK"
			if b.dialect == MySQL {
				hold, free = "LOCK TABLES "+b.name()+" WRITE", "UNLOCK TABLES"
			}
			if _, err := other.ExecContext(t.Context(), hold); err != nil {
				t.Fatal(err)
			}
			if _, err := s.SaveToken(t.Context(), tokenstore.Token{ID: record.ID, AccessToken: "b"}); !errors.Is(err, tokenstore.ErrUnavailable) || strings.Contains(err.Error(), "deadline") {
				t.Errorf("SaveToken returned error %v, want %q", err, tokenstore.ErrUnavailable)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := s.SaveToken(ctx, tokenstore.Token{ID: record.ID, AccessToken: "b"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("SaveToken returned error %v, want that of its context", err)
			}
			if _, err := other.ExecContext(t.Context(), free); err != nil {
				t.Fatal(err)
			}
			mustSave(t, s, tokenstore.Token{ID: record.ID, AccessToken: "b"})
		})
	}
}

// TestProgramsOnAnSDKMayWriteAtTheSameTime checks that no update is lost if a program executes
// the SDKs' statements while this package writes. The SDKs' statements take only the locks of
// the database.
func TestProgramsOnAnSDKMayWriteAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		if kind.name == "sqlite in memory" || kind.name == "sqlite file" {
			continue // SQLite in WAL mode covers this case
		}
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			b := kind.new(t)
			s := b.open(t, nil)
			users := []string{"ann", "bob", "cid"}
			for _, user := range users {
				mustSave(t, s, full(user))
			}
			sdk := b.connect(t)
			const rounds = 30
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range rounds {
					statement := fmt.Sprintf("update %s set redirect_url='sdk %d' where user_name='%s'", b.name(), i, users[i%3])
					for _, err := sdk.ExecContext(t.Context(), statement); err != nil; _, err = sdk.ExecContext(t.Context(), statement) {
						if !strings.Contains(err.Error(), "1213") { // after a deadlock, repeat the statement
							t.Errorf("%s: %v", statement, err)
							return
						}
					}
				}
			})
			for i := range rounds {
				user := users[i%3]
				mustSave(t, s, tokenstore.Token{UserName: user, ClientID: "1000.CLIENT", AccessToken: tokenstore.Secret(fmt.Sprint("ours ", i))})
				mustSave(t, s, tokenstore.Token{UserName: fmt.Sprint(user, i), RefreshToken: "r"})
			}
			wg.Wait()
			for i, user := range users {
				got, err := s.FindToken(t.Context(), tokenstore.Token{UserName: user, ClientID: "1000.CLIENT"})
				last := rounds - 3 + i
				if want := fmt.Sprint("sdk ", last); err != nil || got.RedirectURL != want || got.AccessToken != tokenstore.Secret(fmt.Sprint("ours ", last)) {
					t.Errorf("the record of %q has %q and %q, error %v, want the last of both", user, got.RedirectURL, string(got.AccessToken), err)
				}
			}
			if all, err := s.GetTokens(t.Context()); err != nil || len(all) != len(users)+rounds {
				t.Errorf("there are %d records, error %v, want %d", len(all), err, len(users)+rounds)
			}
		})
	}
}
