// Command vaultbare gets a token with Vault's client and golang.org/x/oauth2.
package main

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		conf := api.DefaultConfig()
		conf.Address = url
		c, err := api.NewClient(conf)
		if err != nil {
			return "", err
		}
		out, err := c.KVv2("secret").Get(ctx, cold.BareName)
		if err != nil {
			return "", err
		}
		secret, err := json.Marshal(out.Data)
		if err != nil {
			return "", err
		}
		return cold.Token(ctx, secret)
	})
}
