package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
)

var update = flag.Bool("update", false, "write testdata/statements.txt")

const tenColumns = "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, redirect_url, api_domain"

// A recorder is a SQLite database that records the statements of its connections.
type recorder struct {
	dsn string
	mu  sync.Mutex
	log bytes.Buffer
}

func (r *recorder) Driver() driver.Driver { return &sqlite.Driver{} }

func (r *recorder) Connect(context.Context) (driver.Conn, error) {
	conn, err := r.Driver().Open(r.dsn)
	return &recorded{conn, r}, err
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.log, format+"\n", args...)
}

func (r *recorder) statement(query string, args []driver.NamedValue) {
	r.note("  %s (%d)", strings.ReplaceAll(query, tenColumns, "(ten columns)"), len(args))
}

type recorded struct {
	driver.Conn
	r *recorder
}

func (c *recorded) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.r.statement(query, args)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *recorded) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.r.statement(query, args)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

// TestStatements checks that the statements of each operation equal those in
// testdata/statements.txt.
func TestStatements(t *testing.T) {
	t.Parallel()
	r := &recorder{dsn: filepath.Join(t.TempDir(), "tokens.db")}
	db := sql.OpenDB(r)
	defer db.Close()
	ctx := t.Context()
	var s *sqlstore.Store
	step := func(name string, do func() error) {
		r.note("%s", name)
		if err := do(); err != nil {
			class, _, _ := strings.Cut(err.Error(), "s3cret")
			r.note("  error: %s", class)
		}
	}
	save := func(tokens ...tokenstore.Token) func() error {
		return func() (err error) {
			for _, token := range tokens {
				_, e := s.SaveToken(ctx, token)
				err = errors.Join(err, e)
			}
			return err
		}
	}
	check := func(o *doctor.CheckOptions) func() error {
		return func() error {
			for f, err := range s.Check(ctx, o) {
				if err != nil {
					return err
				}
				r.note("  finding: %s %q %q repaired=%t %s %s", f.Kind, f.Name, f.ID, f.Repaired, f.Remedy, f.Detail)
			}
			return nil
		}
	}
	insert := func(rows ...string) func() error {
		return func() error {
			for _, row := range rows {
				if _, err := db.ExecContext(ctx, "INSERT INTO oauthtoken (id, user_name, client_id, refresh_token, access_token, expiry_time) VALUES ("+row+")"); err != nil {
					return err
				}
			}
			return nil
		}
	}
	step("New", func() (err error) { s, err = sqlstore.New(ctx, db, sqlstore.SQLite, nil); return err })
	step("SaveToken: new", save(tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "r1", AccessToken: "a1", ExpiresAt: time.UnixMilli(4e12)}))
	step("SaveToken: unchanged", save(tokenstore.Token{UserName: "ann", ClientID: "c", RefreshToken: "r1"}))
	step("SaveToken: changed", save(tokenstore.Token{UserName: "ann", ClientID: "c", AccessToken: "a2"}))
	step("SaveToken: invalid ID", save(tokenstore.Token{ID: "x", UserName: "bob", AccessToken: "b"}))
	step("SaveToken: own ID", save(tokenstore.Token{ID: "7", UserName: "bob", ClientID: "c", AccessToken: "b"}))
	step("SaveToken: two of one token, and a user for them", save(
		tokenstore.Token{ClientID: "c", RefreshToken: "r2", AccessToken: "x1"},
		tokenstore.Token{ClientID: "c", AccessToken: "x2"}, tokenstore.Token{AccessToken: "x1", RefreshToken: "r2"}))
	step("FindToken: user", func() error { _, err := s.FindToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "c"}); return err })
	step("FindToken: token", func() error { _, err := s.FindToken(ctx, tokenstore.Token{AccessToken: "x2"}); return err })
	step("FindToken: nothing", func() error { _, err := s.FindToken(ctx, tokenstore.Token{}); return err })
	step("FindTokenByID", func() error { _, err := s.FindTokenByID(ctx, "7"); return err })
	search := func(like tokenstore.Token) func() error {
		return func() (err error) {
			n := 0
			for _, e := range s.Search(ctx, like) {
				n, err = n+1, errors.Join(err, e)
			}
			r.note("  %d results", n)
			return err
		}
	}
	step("Search: user", search(tokenstore.Token{UserName: "ann", ClientID: "c"}))
	step("Search: client", search(tokenstore.Token{ClientID: "c"}))
	step("Search: nothing", search(tokenstore.Token{ID: "7"}))
	step("GetTokens", func() error { _, err := s.GetTokens(ctx); return err })
	step("SaveAll", func() error {
		_, err := s.SaveAll(ctx, []tokenstore.Token{
			{UserName: "dan", AccessToken: "d"}, {UserName: "eve", AccessToken: "e"}, {UserName: "ann", ClientID: "c", AccessToken: "a3"},
			{UserName: "dan", AccessToken: "d"}, {UserName: "dan", AccessToken: "d2"}, {ID: "20", UserName: "gus", AccessToken: "g"}, {UserName: "hal", AccessToken: "h"},
		})
		return err
	})
	step("SaveAll: one is refused", func() error {
		_, err := s.SaveAll(ctx, []tokenstore.Token{{UserName: "ivy", AccessToken: "i"}, {ID: "x", UserName: "joe", AccessToken: "j"}})
		return err
	})
	step("Fits", func() error {
		errs, err := s.Fits(ctx, []tokenstore.Token{{UserName: "kim", AccessToken: "k"}, {ID: "x", UserName: "kim", AccessToken: "k"}})
		r.note("  %v", errs)
		return err
	})
	mint := func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{AccessToken: "new", ExpiresAt: time.UnixMilli(4e12)}, nil
	}
	step("Refresh", func() error { _, err := s.Refresh(ctx, "1", "a3", mint); return err })
	step("Refresh: fresh", func() error { _, err := s.Refresh(ctx, "1", "a3", mint); return err })
	step("Refresh: refused", func() error {
		_, err := s.Refresh(ctx, "7", "b", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			return tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_code"}
		})
		return err
	})
	step("Refresh: refused before", func() error { _, err := s.Refresh(ctx, "7", "b", mint); return err })
	step("Refresh: not found", func() error { _, err := s.Refresh(ctx, "99", "b", mint); return err })
	step("rows of an SDK", insert("'30', NULL, 'c', 'rr', 'ya', '0012'", "'31', NULL, 'c', 'rr', 'yb', NULL", "'32', 'zoe', 'c', 'zz', 'yc', NULL",
		"'33', 'max', 'c', 'zz', NULL, NULL", "'34', 'moe', NULL, NULL, 'm', 'soon'", "'35', 'zoe', 'c', NULL, 'yd', NULL", "'x', 'sue', NULL, 's', NULL, NULL"))
	step("Search: damaged", search(tokenstore.Token{UserName: "moe"}))
	step("SaveAll: absorbs", func() error {
		_, err := s.SaveAll(ctx, []tokenstore.Token{{ClientID: "c", RefreshToken: "rr", APIDomain: "d"}, {UserName: "new", AccessToken: "n"}, {UserName: "ann", ClientID: "c", AccessToken: "a4"}})
		return err
	})
	step("more rows of an SDK", insert("'50', NULL, 'c', 'ss', 'za', NULL", "'51', NULL, 'c', 'ss', 'zb', NULL"))
	step("SaveToken: absorbs", save(tokenstore.Token{ClientID: "c", RefreshToken: "ss", APIDomain: "d"}))
	step("Check", check(nil))
	step("Check: repair", check(&doctor.CheckOptions{Repair: true}))
	step("Check: merge", check(&doctor.CheckOptions{Repair: true, MergeDuplicates: true}))
	step("Check: purge", check(&doctor.CheckOptions{Repair: true, Purge: true}))
	step("Check: purge without repair", check(&doctor.CheckOptions{Purge: true}))
	step("DeleteIfUnchanged: changed", func() error {
		return s.DeleteIfUnchanged(ctx, tokenstore.Token{ID: "1", UserName: "ann", AccessToken: "s3cret"})
	})
	step("DeleteToken", func() error { return s.DeleteToken(ctx, "1") })
	step("DeleteToken: not there", func() error { return s.DeleteToken(ctx, "1") })
	step("DeleteToken: damaged", func() error { return s.DeleteToken(ctx, "34") })
	step("DeleteAll", func() error {
		all, err := s.GetTokens(ctx)
		r.note("  %v", err)
		all[0].AccessToken = "other"
		n, err := s.DeleteAll(ctx, all[:3])
		r.note("  %d deleted", n)
		return err
	})
	step("DeleteTokens", func() error { return s.DeleteTokens(ctx) })
	step("DeleteTokens: only a damaged one is left", func() error { return s.DeleteTokens(ctx) })
	step("Scrub", func() error { return s.Scrub(ctx) })

	golden := filepath.Join("testdata", "statements.txt")
	if *update {
		if err := os.WriteFile(golden, r.log.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.log.Bytes(), want) {
		got, wanted := strings.Split(r.log.String(), "\n"), strings.Split(string(want), "\n")
		for i := range min(len(got), len(wanted)) {
			if got[i] != wanted[i] {
				t.Fatalf("line %d of %s: got %q, want %q; -update writes it", i+1, golden, got[i], wanted[i])
			}
		}
		t.Fatalf("%s has %d lines, got %d", golden, len(wanted), len(got))
	}
}
