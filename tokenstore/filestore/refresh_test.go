package filestore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/storetest"
)

// TestMain runs the tests or, in a process that TestRefreshProcesses started, RefreshOnce.
func TestMain(m *testing.M) {
	os.Exit(storetest.Main(m, func(args []string) error {
		s, err := New(args[0], nil)
		if err != nil {
			return err
		}
		return storetest.RefreshOnce(s, args[1], args[2])
	}))
}

// withExpired returns a new store with a record whose access token has expired, and the path of
// its file.
func withExpired(t *testing.T) (s *Store, path string, record tokenstore.Token) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sdk_tokens.txt")
	s, err := New(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	record, err = s.SaveToken(t.Context(), tokenstore.Token{UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
	if err != nil {
		t.Fatal(err)
	}
	return s, path, record
}

// TestRefreshProcesses checks that mint is called once if goroutines of several processes
// find the same token expired.
func TestRefreshProcesses(t *testing.T) {
	t.Parallel()
	_, path, record := withExpired(t)
	log := filepath.Join(t.TempDir(), "log")
	storetest.Processes(t, []string{path, record.ID, log}, []string{path, record.ID, log}, []string{path, record.ID, log})
	storetest.Asked(t, log)
}

// TestRefusalOfADeletedRecord checks that no lock file remains if the record is deleted while mint
// runs and is refused.
func TestRefusalOfADeletedRecord(t *testing.T) {
	t.Parallel()
	s, path, record := withExpired(t)
	_, err := s.Refresh(t.Context(), record.ID, record.AccessToken, func(ctx context.Context, _ tokenstore.Token) (tokenstore.Token, error) {
		if err := s.DeleteToken(ctx, record.ID); err != nil {
			t.Error(err)
		}
		return tokenstore.Token{}, &tokenstore.RefreshError{Code: "invalid_grant", Permanent: true}
	})
	if refused := new(tokenstore.RefreshError); !errors.As(err, &refused) {
		t.Fatalf("Refresh returns %v", err)
	}
	if left, _ := filepath.Glob(path + ".*.refresh.lock"); len(left) > 0 {
		t.Errorf("%s is left", left)
	}
}
