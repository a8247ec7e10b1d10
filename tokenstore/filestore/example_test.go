package filestore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

// A store uses the file of an SDK without a conversion. Unchanged rows keep their bytes.
func Example() {
	dir, err := os.MkdirTemp("", "tokens-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sdk_tokens.txt")
	const written = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri,api_domain\r\n" +
		"1,ann@example.com:6001,1000.CLIENT,secret,1000.refresh,1000.access,,1767225600000,,https://www.zohoapis.com\r\n"
	if err := os.WriteFile(path, []byte(written), 0o600); err != nil {
		log.Fatal(err)
	}

	store, err := filestore.New(path, &filestore.Options{Dialect: codec.Python})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	ann, err := store.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ann.ID, ann.ExpiresAt, string(ann.RefreshToken))
	bob, err := store.SaveToken(ctx, tokenstore.Token{UserName: "bob@example.com:6001", ClientID: "1000.CLIENT", RefreshToken: "1000.other"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bob.ID)
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(data[:len(written)]) == written)
	// Output:
	// 1 2026-01-01 00:00:00 +0000 UTC 1000.refresh
	// 2
	// true
}
