package sqlstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// TestRefreshOneConnection checks that Refresh needs no second connection: it stores the result
// through the connection that holds the lock.
func TestRefreshOneConnection(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	s := b.open(t, nil)
	s.db.pool.SetMaxOpenConns(1)
	record := mustSave(t, s, tokenstore.Token{UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
	got, err := s.Refresh(t.Context(), record.ID, "old", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{AccessToken: "new"}, nil
	})
	if err != nil || got.AccessToken != "new" {
		t.Errorf("Refresh returned the access token %q and error %v", string(got.AccessToken), err)
	}
}

// TestRefreshConnectionKilled checks that Refresh stores the result through another connection
// if the server kills the connection with the lock while mint runs.
func TestRefreshConnectionKilled(t *testing.T) {
	t.Parallel()
	b := mysqlTable(t)
	s := b.open(t, nil)
	record := mustSave(t, s, tokenstore.Token{UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
	name := s.db.dialect.(*mysql).lockName(record.ID)
	_, err := s.Refresh(t.Context(), record.ID, "old", func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
		var holder int
		if err := s.db.pool.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?)", name).Scan(&holder); err != nil {
			return t, err
		}
		if _, err := s.db.pool.ExecContext(ctx, "KILL ?", holder); err != nil {
			return t, err
		}
		return tokenstore.Token{AccessToken: "new"}, nil
	})
	if err != nil {
		t.Fatalf("Refresh: %v", err)
	}
	if got, err := b.open(t, nil).FindTokenByID(t.Context(), record.ID); err != nil || got.AccessToken != "new" {
		t.Errorf("the record has the access token %q, error %v", string(got.AccessToken), err)
	}
}

// TestRefreshLockHeld checks that Refresh fails after a limited time, without calling mint, if
// another holder keeps the lock.
func TestRefreshLockHeld(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *backend) {
		s := b.open(t, &Options{LeaseTTL: 3 * time.Second, LockTimeout: 2 * time.Second})
		record := mustSave(t, s, tokenstore.Token{UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
		held, err := s.db.dialect.tryLock(t.Context(), s.db.pool, record.ID)
		if err != nil || held == nil {
			t.Fatalf("the lock is %v, error %v", held, err)
		}
		defer held.unlock(t.Context())
		_, err = s.Refresh(t.Context(), record.ID, "old", func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
			return t, errors.New("mint was called")
		})
		if !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("Refresh returned error %v, want %q", err, tokenstore.ErrUnavailable)
		}
	})
}
