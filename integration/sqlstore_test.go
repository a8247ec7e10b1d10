package integration_test

import (
	"database/sql"
	"strconv"
	"sync"
	"testing"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
)

// A sqlBackend opens stores on a real server. Each store has its own connections.
type sqlBackend struct {
	*integration.MySQL

	mu   sync.Mutex
	dsns map[tokenstore.TokenStore]string
}

func newSQLBackend(t testing.TB) *sqlBackend {
	return &sqlBackend{MySQL: integration.SharedMySQL(t), dsns: map[tokenstore.TokenStore]string{}}
}

func (b *sqlBackend) open(t testing.TB, dsn string) tokenstore.TokenStore {
	t.Helper()
	db := openDB(t, dsn)
	s, err := sqlstore.New(t.Context(), db, sqlstore.MySQL, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dsns[s] = dsn
	return s
}

func openDB(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (b *sqlBackend) dsn(s tokenstore.TokenStore) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dsns[s]
}

func (b *sqlBackend) store() conformance.Store {
	return conformance.Store{
		Open: func(t testing.TB) tokenstore.TokenStore {
			integration.MySQLBackend.Count(t)
			b.Watch(t)
			return b.open(t, b.Database(t))
		},
		Reopen: func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore {
			return b.open(t, b.dsn(s))
		},
		ForeignFormat: true,
		OwnID:         func(i int) string { return strconv.Itoa(1000 * (i + 1)) },
		MaxRecord:     sqlstore.MaxRecord,
		Corrupt: func(t testing.TB, s tokenstore.TokenStore, id string) {
			_, err := openDB(t, b.dsn(s)).ExecContext(t.Context(), "UPDATE oauthtoken SET expiry_time = 'soon' WHERE id = ?", id)
			if err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestSqlstoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newSQLBackend(t).store())
}
