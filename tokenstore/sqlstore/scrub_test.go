package sqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// canary is part of each secret that the function secrets returns.
const canary = "s3cret-canary"

// journal returns a function that creates a database file whose connections use the given
// journal mode.
func journal(mode string) func(t testing.TB) *backend {
	return func(t testing.TB) *backend {
		b := sqliteFile(t)
		b.dsn += "?_pragma=journal_mode(" + mode + ")"
		return b
	}
}

// planted counts the occurrences of the canary in the files of a database, and returns the files
// that contain the canary.
func planted(t *testing.T, b *backend) (n int, where []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(b.path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(b.path), e.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if found := bytes.Count(data, []byte(canary)); found > 0 {
			n += found
			where = append(where, fmt.Sprintf("%s: %d", e.Name(), found))
		}
	}
	return n, where
}

// secrets returns a record of user in which each secret repeats the canary and user size times.
func secrets(user string, size int) tokenstore.Token {
	value := tokenstore.Secret(strings.Repeat(canary+user, size))
	return tokenstore.Token{UserName: user, ClientID: "c", ClientSecret: value, RefreshToken: value, AccessToken: value, GrantToken: value}
}

// leaveBehind saves records, and then replaces and deletes some of them as an SDK does, without
// secure_delete. Deleted data therefore remains in the files. leaveBehind returns the remaining
// records.
func leaveBehind(t *testing.T, b *backend, s *Store) []tokenstore.Token {
	t.Helper()
	var kept []tokenstore.Token
	for i := range 30 {
		kept = append(kept, mustSave(t, s, secrets(fmt.Sprint("user", i), 1+i%12)))
	}
	b.exec(t, "PRAGMA secure_delete = OFF")
	for _, token := range kept[10:] {
		b.exec(t, "PRAGMA secure_delete = OFF; DELETE FROM %s WHERE id = '"+token.ID+"'")
	}
	b.exec(t, "PRAGMA secure_delete = OFF; UPDATE %s SET access_token = 'short', grant_token = NULL WHERE id IN ('2', '3', '4')")
	mustSave(t, s, tokenstore.Token{ID: "5", AccessToken: "short"})
	kept, err := s.GetTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// TestRemovedSecretsAreNotInTheFiles checks that no file contains a secret after a removal of all
// records or a Scrub. These secrets include the secrets of records that another program removed
// earlier.
func TestRemovedSecretsAreNotInTheFiles(t *testing.T) {
	t.Parallel()
	removals := map[string]func(ctx context.Context, s *Store, tokens []tokenstore.Token) error{
		"DeleteTokens": func(ctx context.Context, s *Store, _ []tokenstore.Token) error { return s.DeleteTokens(ctx) },
		"DeleteAll": func(ctx context.Context, s *Store, tokens []tokenstore.Token) error {
			_, err := s.DeleteAll(ctx, tokens)
			return err
		},
		"DeleteToken": func(ctx context.Context, s *Store, tokens []tokenstore.Token) error {
			var errs []error
			for _, token := range tokens {
				errs = append(errs, s.DeleteToken(ctx, token.ID))
			}
			return errors.Join(errs...)
		},
		"Scrub": func(ctx context.Context, s *Store, _ []tokenstore.Token) error {
			_, err := s.db.pool.ExecContext(ctx, "DELETE FROM "+s.db.table.quoted())
			return errors.Join(err, s.Scrub(ctx))
		},
	}
	for _, mode := range []string{"delete", "truncate", "persist", "memory", "wal"} {
		for name, remove := range removals {
			t.Run(mode+" "+name, func(t *testing.T) {
				t.Parallel()
				b := journal(mode)(t)
				s, other := b.open(t, nil), b.open(t, nil)
				tokens := leaveBehind(t, b, s)
				if n, _ := planted(t, b); n == 0 {
					t.Fatal("there is nothing to remove")
				}
				if err := remove(t.Context(), s, tokens); err != nil {
					t.Fatal(err)
				}
				if n, where := planted(t, b); n > 0 {
					t.Errorf("removed secrets are in %q", where)
				}
				if all, err := other.GetTokens(t.Context()); err != nil || len(all) > 0 {
					t.Errorf("%d records are left, %v", len(all), err)
				}
				if got := checked(t, s, nil); len(got) > 0 {
					t.Errorf("Check finds %q", got)
				}
			})
		}
	}
}

// TestOneRemovedSecretIsNotInTheFiles checks that no file contains the secrets of a removed
// record, while other records remain.
func TestOneRemovedSecretIsNotInTheFiles(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"persist", "wal"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := journal(mode)(t)
			s := b.open(t, nil)
			kept := mustSave(t, s, full("ann"))
			gone := mustSave(t, s, secrets("ben", 3))
			mustSave(t, s, tokenstore.Token{ID: gone.ID, AccessToken: "newer"})
			if err := s.DeleteToken(t.Context(), gone.ID); err != nil {
				t.Fatal(err)
			}
			if n, where := planted(t, b); n > 0 {
				t.Errorf("removed secrets are in %q", where)
			}
			if got, err := s.FindTokenByID(t.Context(), kept.ID); err != nil || got != kept {
				t.Errorf("the other record is %q, %v", got.ID, err)
			}
		})
	}
}

// TestRemovalIsHeldUpByAReader checks that a removal fails with ErrUnavailable while a reader
// uses an earlier state in the write-ahead log. It also checks that a repeated removal succeeds
// once the reader has finished.
func TestRemovalIsHeldUpByAReader(t *testing.T) {
	t.Parallel()
	b := sqliteWAL(t)
	s := b.open(t, &Options{LockTimeout: 2 * time.Second})
	record := mustSave(t, s, secrets("ann", 2))
	reader, err := b.connect(t).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Rollback() }()
	var rows int
	if err := reader.QueryRowContext(t.Context(), "SELECT count(*) FROM "+b.name()).Scan(&rows); err != nil || rows != 1 {
		t.Fatalf("%d rows, %v", rows, err)
	}
	for name, remove := range map[string]func() error{
		"DeleteToken":  func() error { return s.DeleteToken(t.Context(), record.ID) },
		"DeleteTokens": func() error { return s.DeleteTokens(t.Context()) },
		"Scrub":        func() error { return s.Scrub(t.Context()) },
	} {
		if err := remove(); !errors.Is(err, tokenstore.ErrUnavailable) || !strings.Contains(err.Error(), "another connection") {
			t.Errorf("%s beside a reader returned %v, want %q", name, err, tokenstore.ErrUnavailable)
		}
	}
	if all, err := s.GetTokens(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("%d records are left, %v", len(all), err)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteToken(t.Context(), record.ID); err != nil {
		t.Errorf("repeated: %v", err)
	}
	if n, where := planted(t, b); n > 0 {
		t.Errorf("removed secrets are in %q", where)
	}
}

// TestCheckFindsRemnants checks that Check reports pages that a program without secure_delete
// freed, and that Check with Purge removes the pages.
func TestCheckFindsRemnants(t *testing.T) {
	t.Parallel()
	b := sqliteWAL(t)
	s := b.open(t, nil)
	for i := range 20 {
		mustSave(t, s, secrets(fmt.Sprint("user", i), 12))
	}
	b.exec(t, "PRAGMA secure_delete = OFF; DELETE FROM %s")
	if n, _ := planted(t, b); n == 0 {
		t.Fatal("there is nothing to find")
	}
	for _, step := range []struct {
		opts *doctor.CheckOptions
		want string
	}{
		{nil, "[older-state ]"},
		{&doctor.CheckOptions{Repair: true}, "[older-state ]"},
		{&doctor.CheckOptions{Repair: true, Purge: true}, "[older-state  repaired]"},
		{nil, "[]"},
	} {
		want := strings.ReplaceAll(step.want, "older-state", string(doctor.KindDue))
		if got := fmt.Sprint(checked(t, s, step.opts)); got != want {
			t.Errorf("Check with %+v finds %s, want %s", step.opts, got, want)
		}
	}
	if n, where := planted(t, b); n > 0 {
		t.Errorf("removed secrets are in %q", where)
	}
}
