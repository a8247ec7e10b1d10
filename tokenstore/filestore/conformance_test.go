package filestore

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec/tokenfile"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, anyID := range []bool{false, true} {
		t.Run(fmt.Sprintf("AnyID=%v", anyID), func(t *testing.T) {
			t.Parallel()
			conformance.RunStore(t, suite(anyID))
		})
	}
}

func suite(anyID bool) conformance.Store {
	var logs sync.Map   // by *Store
	var clocks sync.Map // by path: how far the clocks of all stores on the file are ahead
	ahead := func(path string) *atomic.Int64 {
		by, _ := clocks.LoadOrStore(path, new(atomic.Int64))
		return by.(*atomic.Int64)
	}
	open := func(t testing.TB, path string) tokenstore.TokenStore {
		log, clock := &syncBuffer{}, ahead(path)
		now := func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
		s, err := New(path, &Options{AnyID: anyID, Now: now, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		logs.Store(s, log)
		t.Cleanup(func() { logs.Delete(s) })
		return s
	}
	c := conformance.Store{
		Open: func(t testing.TB) tokenstore.TokenStore {
			return open(t, filepath.Join(t.TempDir(), "sdk_tokens.txt"))
		},
		Reopen: func(t testing.TB, s tokenstore.TokenStore) tokenstore.TokenStore {
			return open(t, s.(*Store).file.path)
		},
		ForeignFormat: true,
		Forward: func(t testing.TB, s tokenstore.TokenStore, d time.Duration) {
			ahead(s.(*Store).file.path).Add(int64(d))
		},
		Corrupt: func(t testing.TB, s tokenstore.TokenStore, id string) {
			damage(t, s.(*Store).file.path, id)
		},
		Writes: func(t testing.TB, s tokenstore.TokenStore) int64 { return s.(*Store).file.writes.Load() },
		Trace: func(t testing.TB, s tokenstore.TokenStore) []string {
			log, _ := logs.Load(s)
			trace := []string{log.(*syncBuffer).String()}
			path := s.(*Store).file.path
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				trace = append(trace, e.Name())
				if name := filepath.Join(filepath.Dir(path), e.Name()); name != path {
					trace = append(trace, string(readFile(t, name)))
				}
			}
			return trace
		},
	}
	if !anyID {
		c.OwnID = func(i int) string { return strconv.Itoa(1000 * (i + 1)) }
	}
	return c
}

func damage(t testing.TB, path, id string) {
	t.Helper()
	f, err := tokenfile.Parse(readFile(t, path), "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.Len() {
		if r, _ := f.Row(i); r.ID == id {
			was := r.ExpiryTime
			r.ExpiryTime = 4711471147114711
			f.AnyID = true
			if err := f.Set(i, r); err != nil {
				t.Fatal(err)
			}
			if was == 0 {
				t.Fatal("the row has no expiry time to damage")
			}
			data := bytes.Replace(f.Bytes(), []byte("4711471147114711"), []byte("soon"), 1)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no such row")
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
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
