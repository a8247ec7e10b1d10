package filestore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/storetest"
)

// TestMain runs the processes of TestOfSeveralProcessesOneRefreshes.
func TestMain(m *testing.M) {
	os.Exit(storetest.Main(m, func(args []string) error {
		s, err := New(args[0], nil)
		if err != nil {
			return err
		}
		return storetest.RefreshOnce(s, args[1], args[2])
	}))
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	open := func(t testing.TB, path string, now func() time.Time) storetest.Store {
		s, err := New(path, &Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	storetest.Refresh(t, storetest.Backend{
		Open: func(t testing.TB, now func() time.Time) storetest.Store {
			return open(t, filepath.Join(t.TempDir(), "sdk_tokens.txt"), now)
		},
		Reopen: func(t testing.TB, s storetest.Store, now func() time.Time) storetest.Store {
			return open(t, s.(*Store).file.path, now)
		},
	})
}

// TestOfSeveralProcessesOneRefreshes has goroutines of each find the same token
// expired.
func TestOfSeveralProcessesOneRefreshes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sdk_tokens.txt")
	s, err := New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	record, err := s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	storetest.Processes(t, []string{path, record.ID, log}, []string{path, record.ID, log}, []string{path, record.ID, log})
	storetest.Asked(t, log)
}
