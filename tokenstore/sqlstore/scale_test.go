package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// sdkTable is the statement that creates the table as in the SDKs' documentation.
var sdkTable = fmt.Sprintf(wide("id varchar(10) NOT NULL", ", primary key (id)"), "oauthtoken")

// TestIndexes checks the query plans: each search must use an index. Partial indexes and indexes on
// expressions do not count.
func TestIndexes(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"new": "", "of an SDK": sdkTable,
		"with indexes": sdkTable + "; CREATE INDEX a ON oauthtoken (user_name); CREATE INDEX b ON oauthtoken (access_token, id); " +
			"CREATE INDEX c ON oauthtoken (refresh_token) WHERE id > 7; CREATE INDEX d ON oauthtoken (lower(grant_token))",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openSQLite(t, filepath.Join(t.TempDir(), "tokens.db"), before)
			s, err := New(t.Context(), db, SQLite, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, like := range []codec.Fields{
				{ID: "1"}, {UserName: "u"}, {ID: "1", UserName: "u"}, {AccessToken: "a"}, {RefreshToken: "r"}, {GrantToken: "g"},
				{ID: "1", AccessToken: "a", RefreshToken: "r", GrantToken: "g"},
			} {
				c := describedBy(&like)
				plan := explain(t, db, s.db.selection()+" WHERE "+c.text, c.args...)
				if strings.Contains(plan, "SCAN") || strings.Count(plan, "SEARCH") < 2 {
					t.Errorf("%s: %s", c.text, plan)
				}
			}
			want := map[string]int{"new": 4, "of an SDK": 4, "with indexes": 6}[name]
			var indexes int
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pragma_index_list('oauthtoken') WHERE origin = 'c'").Scan(&indexes); err != nil || indexes != want {
				t.Errorf("%d indexes, %v, want %d", indexes, err, want)
			}
		})
	}
}

func explain(t *testing.T, db *sql.DB, statement string, args ...any) string {
	t.Helper()
	var plan []string
	err := eachRow(t.Context(), db, func(rows *sql.Rows) error {
		var a, b, c int
		var step string
		err := rows.Scan(&a, &b, &c, &step)
		plan = append(plan, step)
		return err
	}, "EXPLAIN QUERY PLAN "+statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan, "; ")
}

func openSQLite(t *testing.T, path, statement string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	return db
}

// TestMySQLIndex checks that a new table in MySQL has an index on user_name, and that a search
// by user uses an index.
func TestMySQLIndex(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	s := b.open(t, nil)
	var column string
	err := s.db.pool.QueryRowContext(t.Context(), "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND INDEX_NAME <> 'PRIMARY'", b.table).Scan(&column)
	if err != nil || column != "user_name" {
		t.Errorf("%q, %v", column, err)
	}
	if _, err := s.SaveAll(t.Context(), newTokens(500)); err != nil {
		t.Fatal(err)
	}
	b.exec(t, "INSERT INTO %s"+extensionsSuffix+" SELECT id, '' FROM %s", "ANALYZE TABLE %s, %s"+extensionsSuffix)
	for _, step := range b.rows(t, "EXPLAIN "+s.db.selection()+" WHERE user_name = 'u'") {
		if kind := step[3]; kind != "ref" && kind != "eq_ref" { // the columns are id, select_type, table and type
			t.Errorf("a search by user reads a table by %v", step)
		}
	}
}

// TestIndexesRefused checks that a store on a read-only database opens, finds records, and
// logs that it could not create indexes.
func TestIndexesRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens.db")
	openSQLite(t, path, sdkTable+"; CREATE TABLE oauthtoken_tokenkeep (name varchar(64) NOT NULL, note text NOT NULL, primary key (name)); INSERT INTO oauthtoken (id, user_name) VALUES ('1', 'ann')")
	var log bytes.Buffer
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := New(t.Context(), db, SQLite, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.FindToken(t.Context(), tokenstore.Token{UserName: "ann"}); err != nil || !strings.Contains(log.String(), "indexes could not be created") {
		t.Errorf("%v; the log: %s", err, log.String())
	}
}

// newTokens returns n tokens of n users, sorted neither by user nor by token.
func newTokens(n int) []tokenstore.Token {
	var tokens []tokenstore.Token
	for i := range n {
		random := fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)
		tokens = append(tokens, tokenstore.Token{
			UserName: random + "@example.com", ClientID: "1000.ABCDEFGHIJKLMNOPQRSTUVWXYZ0123", ClientSecret: "0123456789abcdef0123456789abcdef",
			RefreshToken: tokenstore.Secret("1000." + random + ".0123456789abcdef0123456789abcdef"),
			AccessToken:  tokenstore.Secret("1000.a" + random + ".0123456789abcdef0123456789abcdef"),
			ExpiresAt:    time.UnixMilli(4e12), APIDomain: "https://www.zohoapis.com",
		})
	}
	return tokens
}

func imported(t *testing.T, n int) *Store {
	t.Helper()
	s, err := New(t.Context(), openSQLite(t, filepath.Join(t.TempDir(), "tokens.db"), ""), SQLite, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SaveAll(t.Context(), newTokens(n)); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScale_Time checks that an import of 10,000 records takes at most four times as long for each
// record as an import of 1,000. The larger import must also make at most twice as many writes for
// each record, and a search must take at most twice as long. TestScale_Time compares the shortest
// times, because other programs can only make times longer.
func TestScale_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	const few, many = 1_000, 10_000
	atFew, atMany := time.Hour, time.Hour
	var small, large *Store
	var fewWrites, manyWrites int64
	importing := func(n int, s **Store, least *time.Duration, writes *int64) {
		before, begin := fileWrites(t), time.Now()
		*s = imported(t, n)
		*least = min(*least, time.Since(begin)/time.Duration(n))
		*writes = fileWrites(t) - before
	}
	const slower = 4 // an import with a step for each pair of records would take 10 times as long for each record
	for n := 0; n == 0 || n < 5 && atMany > slower*atFew; n++ {
		for range 5 {
			importing(few, &small, &atFew, &fewWrites)
		}
		importing(many, &large, &atMany, &manyWrites)
	}
	t.Logf("import of %d records: %v for each, %d writes; of %d: %v, %d writes", few, atFew, fewWrites, many, atMany, manyWrites)
	if limit := slower * atFew; atMany > limit {
		t.Errorf("an import of %d records takes %v for each, the limit is %v", many, atMany, limit)
	}
	if limit := 2 * many / few * fewWrites; manyWrites > limit {
		t.Errorf("an import of %d records writes %d times to the file, the limit is %d", many, manyWrites, limit)
	}
	search := func(least time.Duration, s *Store) time.Duration {
		begin := time.Now()
		if _, err := s.FindToken(context.Background(), tokenstore.Token{UserName: newTokens(8)[7].UserName}); err != nil {
			t.Fatal(err)
		}
		return min(least, time.Since(begin))
	}
	const limit = 2
	inFew, inMany := time.Hour, time.Hour
	for range 500 {
		inFew, inMany = search(inFew, small), search(inMany, large)
	}
	t.Logf("search of %d records: %v, of %d: %v", few, inFew, many, inMany)
	if inMany > limit*inFew {
		t.Errorf("a search of %d records takes %v, and of %d %v: the limit is %d times that", many, inMany, few, inFew, limit)
	}
}

// fileWrites returns the number of write calls of this process, or 0 if the system does not
// count them.
func fileWrites(t *testing.T) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Logf("writes are not counted: %v", err)
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "syscw: "); ok {
			_, _ = fmt.Sscan(value, &n)
		}
	}
	return n
}
