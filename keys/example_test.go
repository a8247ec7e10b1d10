package keys_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// This program reads its keys from an environment variable, which the platform of the program sets
// from a secret. The command "tokenkeep keys new" writes the document in the variable.
func ExampleParse() {
	ctx := context.Background()
	_ = os.Setenv("TOKENKEEP_KEYS", string(keys.New().Encode()))

	k, err := keys.Parse([]byte(os.Getenv("TOKENKEEP_KEYS")))
	if err != nil {
		fmt.Println(err)
		return
	}
	d := memstore.NewDriver() // or another driver
	store, err := tokenstore.New(d, k.Options())
	if err != nil {
		fmt.Println(err)
		return
	}
	ann := tokenstore.Token{UserName: "ann", ClientID: "client", RefreshToken: "refresh"}
	if _, err := store.SaveToken(ctx, ann); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(k)

	// A program without the keys gets an error.
	without, err := tokenstore.New(d, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = without.SaveToken(ctx, ann)
	fmt.Println(errors.Is(err, tokenstore.ErrWrongKeys))
	// Output:
	// keys.Keys{redacted}
	// true
}
