package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"time"

	_ "modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
)

func ExampleNew() {
	// A file would be "file:zohooauth.db?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)".
	db, err := sql.Open("sqlite", "file:example?mode=memory&cache=shared")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := context.Background()
	store, err := sqlstore.New(ctx, db, sqlstore.SQLite, nil)
	if err != nil {
		log.Fatal(err)
	}
	saved, err := store.SaveToken(ctx, tokenstore.Token{
		UserName:     "ann@example.com:6001",
		ClientID:     "1000.CLIENT",
		RefreshToken: "1000.refresh",
	})
	if err != nil {
		log.Fatal(err)
	}
	found, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.ID, found.ClientID, found.RefreshToken, found == saved)
	// Output: 1 1000.CLIENT [redacted] true
}

func ExampleStore_Refresh() {
	db, err := sql.Open("sqlite", "file:refresh?mode=memory&cache=shared")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := context.Background()
	store, err := sqlstore.New(ctx, db, sqlstore.SQLite, nil)
	if err != nil {
		log.Fatal(err)
	}
	t, err := store.SaveToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", RefreshToken: "1000.refresh", AccessToken: "1000.old", ExpiresAt: time.Now().Add(-time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	// If several callers find the token expired, only one of them asks the authorization
	// server.
	t, err = store.Refresh(ctx, t.ID, t.AccessToken, func(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
		return tokenstore.Token{AccessToken: "1000.new", ExpiresAt: time.Now().Add(time.Hour)}, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(t.AccessToken))
	// Output: 1000.new
}
