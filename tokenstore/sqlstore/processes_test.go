package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/storetest"
)

const (
	processes = 8
	saves     = 50 // number of saves of each process
	shared    = 5  // number of users that all processes save
)

// TestEightProcessesLoseNothing checks the records that eight processes saved concurrently. Each
// user must have exactly one record, which holds tokens of that user. Each process saves some users
// that no other process saves, and users that all processes save. Each save must return within a
// minute.
func TestEightProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		if kind.name == "sqlite in memory" {
			continue // other processes cannot use a database in memory
		}
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			b := kind.new(t)
			var args [][]string
			for i := range processes {
				args = append(args, []string{"save", string(b.dialect), b.driver, b.dsn, b.table, strconv.Itoa(i)})
			}
			took := storetest.Processes(t, args...)
			t.Logf("%d processes made %d saves each in %v", processes, saves, took.Round(time.Millisecond))

			tokens, err := b.open(t, nil).GetTokens(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, token := range tokens {
				if seen[token.UserName] {
					t.Errorf("two records are of %q", token.UserName)
				}
				seen[token.UserName] = true
				for _, secret := range []tokenstore.Secret{token.RefreshToken, token.AccessToken} {
					if !strings.HasPrefix(string(secret), token.UserName+" ") {
						t.Errorf("the record of %q has the token %q", token.UserName, string(secret))
					}
				}
			}
			if want := shared + processes*saves/2; len(seen) != want {
				t.Errorf("there are records of %d users, want %d", len(seen), want)
			}
		})
	}
}

// TestRefreshProcesses checks that mint is called once if goroutines of several processes
// find the same token expired.
func TestRefreshProcesses(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		if kind.name == "sqlite in memory" {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			b := kind.new(t)
			record := mustSave(t, b.open(t, nil), tokenstore.Token{UserName: "ann", RefreshToken: "r", AccessToken: "old", ExpiresAt: time.UnixMilli(1)})
			log := filepath.Join(t.TempDir(), "log")
			var args [][]string
			for range 4 {
				args = append(args, []string{"refresh", string(b.dialect), b.driver, b.dsn, b.table, record.ID, log})
			}
			storetest.Processes(t, args...)
			storetest.Asked(t, log)
		})
	}
}

func child(args []string) error {
	db, err := sql.Open(args[2], args[3])
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := New(ctx, db, Dialect(args[1]), &Options{Table: args[4]})
	if err != nil {
		return err
	}
	if args[0] == "refresh" {
		return storetest.RefreshOnce(s, args[5], args[6])
	}
	return saveMany(s, args[5])
}

func saveMany(s *Store, process string) error {
	for i := range saves {
		user := fmt.Sprintf("user %d", i%shared)
		if i%2 == 0 {
			user = fmt.Sprintf("user %d of %s", i, process)
		}
		mark := tokenstore.Secret(fmt.Sprintf("%s %s.%d", user, process, i))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := s.SaveToken(ctx, tokenstore.Token{UserName: user, ClientID: "c1", RefreshToken: mark, AccessToken: mark})
		cancel()
		if err != nil {
			return fmt.Errorf("save %d: %w", i, err)
		}
	}
	return nil
}
