package cli

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRemovedTokens checks that the files of a database contain no removed tokens, even if a
// program without secure_delete removed some of the tokens.
func TestRemovedTokens(t *testing.T) {
	t.Parallel()
	const table = "CREATE TABLE oauthtoken (id varchar(10) NOT NULL, user_name varchar(255), client_id varchar(255), client_secret varchar(255), " +
		"refresh_token varchar(255), access_token varchar(255), grant_token varchar(255), expiry_time varchar(20), redirect_url varchar(255), api_domain varchar(255), primary key (id))"
	for name, remove := range map[string]func(t *testing.T, e env){
		"rm --all": func(t *testing.T, e env) { e.ok(t, "", "rm", "--all", "--yes") },
		"migrate --delete-source": func(t *testing.T, e env) {
			e.with(envStore, "").ok(t, "", "migrate", "--from", e[envStore], "--to", fileStoreEnv(t)[envStore], "--delete-source")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "zohooauth.db")
			db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close() // the database is open while the command runs
			for _, statement := range []string{
				table,
				"INSERT INTO oauthtoken (id, user_name, client_id, refresh_token, access_token) VALUES ('1', 'ann', 'c', 's3cret-refresh', 's3cret-1')",
				"INSERT INTO oauthtoken (id, user_name, client_id, refresh_token, access_token) VALUES ('2', 'bob', 'c', 's3cret-bob', 's3cret-2')",
				"UPDATE oauthtoken SET access_token = 's3cret-replaced' WHERE id = '1'",
				"UPDATE oauthtoken SET access_token = 'x' WHERE id = '1'",
				"DELETE FROM oauthtoken WHERE id = '2'",
			} {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			remove(t, env{envStore: "sqlite:" + file})
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if data := readFile(t, filepath.Join(dir, entry.Name())); bytes.Contains([]byte(data), []byte("s3cret")) {
					t.Errorf("a removed token is in %s", entry.Name())
				}
			}
		})
	}
}

// TestDatabaseURLs checks that invalid URLs of databases, and servers across a network without
// TLS, are usage errors that name the mistake.
func TestDatabaseURLs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ store, want string }{
		{"postgres://ann@db.example.com/zoho", "PostgreSQL is not supported"},
		{"postgresql://ann@db.example.com/zoho", "PostgreSQL is not supported"},
		{"mariadb://ann@h", "needs a database"},
		{"mysql://ann@192.0.2.1/zoho", "?insecure=true"},
		{"mysql://ann@db.example.com/zoho?tls=false", "?insecure=true"},
		{"mysql://ann@db.example.com/zoho?tls=preferred", "?insecure=true"},
		{"mysql:ann@tcp(db.example.com:3306)/zoho", "?insecure=true"},
		{"mysql://ann@db.example.com/zoho?insecure=yes", "insecure must be true"},
	} {
		if text := (env{}).fails(t, 2, "", "ls", "--store", test.store); !strings.Contains(text, test.want) {
			t.Errorf("%s: %s", test.store, text)
		}
	}
}
