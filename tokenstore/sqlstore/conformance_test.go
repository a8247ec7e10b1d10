package sqlstore

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			conformance.RunStore(t, suite(func(t testing.TB) *backend { return kind.new(t) }, false))
		})
	}
}

// TestConformanceInOtherModes checks that stores with three other settings pass the conformance
// suite. In the first, the server silently truncates long values and the driver interpolates
// parameters. In the second, the pool has one connection. In the third, IDs may have any form.
func TestConformanceInOtherModes(t *testing.T) {
	t.Parallel()
	t.Run("mysql not strict", func(t *testing.T) {
		t.Parallel()
		conformance.RunStore(t, suite(func(t testing.TB) *backend {
			b := mysqlTable(t)
			b.dsn = withParams(t, b.dsn, map[string]string{"sql_mode": "''", "interpolateParams": "true"})
			return b
		}, false))
	})
	t.Run("sqlite in memory with one connection", func(t *testing.T) {
		t.Parallel()
		conformance.RunStore(t, suite(func(t testing.TB) *backend {
			b := &backend{dialect: SQLite, driver: "sqlite", dsn: ":memory:"}
			b.memory = b.connect(t)
			b.memory.SetMaxOpenConns(1)
			return b
		}, false))
	})
	t.Run("sqlite with any ID", func(t *testing.T) {
		t.Parallel()
		conformance.RunStore(t, suite(func(t testing.TB) *backend {
			b := sqliteWAL(t)
			b.exec(t, wide("id varchar(255) NOT NULL PRIMARY KEY", ""))
			return b
		}, true))
	})
}

// wide returns the statement that creates the SDKs' table. id is the definition of the column id.
// The parameter more is appended to the definitions.
func wide(id, more string) string {
	return "CREATE TABLE %s (" + id + ", user_name varchar(255), client_id varchar(255), client_secret varchar(255), refresh_token varchar(255), " +
		"access_token varchar(255), grant_token varchar(255), expiry_time varchar(20), redirect_url varchar(255), api_domain varchar(255)" + more + ")"
}

func suite(fresh func(t testing.TB) *backend, anyID bool) conformance.Store {
	type handle struct {
		*backend
		log   *syncBuffer
		ahead *atomic.Int64 // how far the clocks of all stores on the table are ahead
	}
	var handles sync.Map // of *Store
	of := func(s tokenstore.TokenStore) handle {
		h, _ := handles.Load(s)
		return h.(handle)
	}
	open := func(t testing.TB, b *backend, ahead *atomic.Int64) tokenstore.TokenStore {
		log := &syncBuffer{}
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		s := b.open(t, &Options{AnyID: anyID, Now: now, Logger: logger(log)})
		handles.Store(s, handle{b, log, ahead})
		t.Cleanup(func() { handles.Delete(s) })
		return s
	}
	c := conformance.Store{
		Open: func(t testing.TB) tokenstore.TokenStore { return open(t, fresh(t), new(atomic.Int64)) },
		Reopen: func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore {
			return open(t, of(s).backend, of(s).ahead)
		},
		ForeignFormat: true,
		Forward:       func(t testing.TB, s tokenstore.TokenStore, d time.Duration) { of(s).ahead.Add(int64(d)) },
		Corrupt: func(t testing.TB, s tokenstore.TokenStore, id string) {
			of(s).exec(t, "UPDATE %s SET expiry_time = 'soon' WHERE id = '"+id+"'")
		},
		Writes: func(t testing.TB, s tokenstore.TokenStore) int64 { return s.(*Store).db.writes.Load() },
		Trace: func(t testing.TB, s tokenstore.TokenStore) []string {
			return trace(t, of(s).backend, of(s).log.String())
		},
	}
	if !anyID {
		c.OwnID = func(i int) string { return strconv.Itoa(1000 * (i + 1)) }
	}
	return c
}

// trace returns the data that a store wrote outside its table: its log, its notes, and the names of
// files beside the database. trace also returns the content of those files that do not belong to
// the database.
func trace(t testing.TB, b *backend, log string) []string {
	t.Helper()
	all := []string{log}
	for _, row := range b.rows(t, "SELECT name, note FROM %s"+notesSuffix) {
		all = append(all, strings.Join(row, " "))
	}
	if b.path == "" {
		return all
	}
	entries, err := os.ReadDir(filepath.Dir(b.path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
		if !strings.HasPrefix(e.Name(), filepath.Base(b.path)) || strings.HasSuffix(e.Name(), ".lock") {
			data, err := os.ReadFile(filepath.Join(filepath.Dir(b.path), e.Name()))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			all = append(all, string(data))
		}
	}
	return all
}
