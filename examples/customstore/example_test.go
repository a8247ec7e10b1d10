package customstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tokenkeep/tokenkeep/examples/customstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func Example() {
	ctx := context.Background()
	for _, store := range []tokenstore.TokenStore{&customstore.Memory{}, customstore.NewList(&place{})} {
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
	}
	// Output:
	// 1 1000.CLIENT [redacted] true
	// 1 1000.CLIENT [redacted] true
}
