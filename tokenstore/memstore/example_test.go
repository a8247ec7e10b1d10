package memstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// Two stores on one driver behave like two processes with one secret manager. A test of
// concurrent processes therefore needs only one process.
func ExampleNewDriver() {
	ctx := context.Background()
	secrets := memstore.NewDriver()
	one, err := tokenstore.New(secrets, nil)
	if err != nil {
		log.Fatal(err)
	}
	other, err := tokenstore.New(secrets, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := one.SaveToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", RefreshToken: "1000.refresh"}); err != nil {
		log.Fatal(err)
	}
	found, err := other.FindToken(ctx, tokenstore.Token{UserName: "ann@example.com:6001", ClientID: "1000.CLIENT"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(found.RefreshToken))
	// Output: 1000.refresh
}
