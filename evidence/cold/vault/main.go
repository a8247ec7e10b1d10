// Command vault gets a token with vaultstore and initializer.
package main

import (
	"context"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/evidence/cold/keep"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		conf := api.DefaultConfig()
		conf.Address = url
		c, err := api.NewClient(conf)
		if err != nil {
			return "", err
		}
		store, err := vaultstore.New(c, "secret", cold.Prefix, nil)
		if err != nil {
			return "", err
		}
		return keep.Token(ctx, store)
	})
}
