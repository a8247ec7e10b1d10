package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A second save for the same user and client changes the existing record. Fields that are
// empty in the token keep their values in the record.
func ExampleStore_SaveToken() {
	ctx := context.Background()
	store := memstore.New(nil)
	first, err := store.SaveToken(ctx, tokenstore.Token{
		UserName:     "ann@example.com:6001",
		ClientID:     "1000.CLIENT",
		RefreshToken: "1000.refresh",
	})
	if err != nil {
		log.Fatal(err)
	}
	second, err := store.SaveToken(ctx, tokenstore.Token{
		UserName:    "ann@example.com:6001",
		ClientID:    "1000.CLIENT",
		AccessToken: "1000.access",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(second.ID == first.ID, string(second.RefreshToken), string(second.AccessToken))
	// Output: true 1000.refresh 1000.access
}

// FindToken finds a record by its user, its ID or its tokens. If no record matches, the
// error matches ErrNotFound.
func ExampleStore_FindToken() {
	ctx := context.Background()
	store := memstore.New(nil)
	if _, err := store.SaveToken(ctx, tokenstore.Token{
		ID:           "crm-sync",
		UserName:     "ann@example.com:6001",
		ClientID:     "1000.CLIENT",
		RefreshToken: "1000.refresh",
		AccessToken:  "1000.access",
	}); err != nil {
		log.Fatal(err)
	}
	for _, like := range []tokenstore.Token{
		{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"}, // reads the record by its name
		{ID: "crm-sync"}, // needs a search, like the next two tokens; searches may lag
		{ClientID: "1000.CLIENT", RefreshToken: "1000.refresh"},
		{AccessToken: "1000.access"},
		{UserName: "bob@example.com:6001", AccessToken: "1000.access"},
	} {
		t, err := store.FindToken(ctx, like)
		fmt.Println(t.ID, errors.Is(err, tokenstore.ErrNotFound))
	}
	// Output:
	// crm-sync false
	// crm-sync false
	// crm-sync false
	// crm-sync false
	//  true
}

// A second call with the same stale token returns the new token, without a second request to
// the authorization server.
func ExampleStore_Refresh() {
	ctx := context.Background()
	store := memstore.New(nil)
	expired, err := store.SaveToken(ctx, tokenstore.Token{
		UserName:     "ann@example.com:6001",
		ClientID:     "1000.CLIENT",
		RefreshToken: "1000.refresh",
		AccessToken:  "1000.expired",
		ExpiresAt:    time.Now().Add(-time.Minute),
	})
	if err != nil {
		log.Fatal(err)
	}
	ask := func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
		fmt.Println("the server is asked with", string(t.RefreshToken))
		return tokenstore.Token{AccessToken: "1000.fresh", ExpiresAt: time.Now().Add(time.Hour)}, nil
	}
	for range 2 {
		t, err := store.Refresh(ctx, expired.ID, expired.AccessToken, ask)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(t.AccessToken))
	}
	// Output:
	// the server is asked with 1000.refresh
	// 1000.fresh
	// 1000.fresh
}

// A Secret prints as a redacted text. An explicit conversion to a string reveals the Secret.
func ExampleSecret() {
	t := tokenstore.Token{UserName: "ann@example.com:6001", AccessToken: "1000.access"}
	fmt.Println(t.AccessToken, fmt.Sprintf("%q", t.AccessToken), string(t.AccessToken))
	// Output: [redacted] "[redacted]" 1000.access
}
