package vaultstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// server starts a fake Vault server for the examples.
func server() (address, token string, stop func()) {
	_ = os.Setenv("TOKENKEEP_KEYS", string(keys.New().Encode())) // the platform sets it from a secret
	s := fakevault.New(nil)
	s.AppRole("", "crm-sync", "s3cr3t-id", 0, "root")
	return s.URL, fakevault.RootToken, s.Close
}

func ExampleNew() {
	address, token, stop := server()
	defer stop()

	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		log.Fatal(err)
	}
	client.SetToken(token)

	store, err := vaultstore.New(client, "secret", "oauth/crm", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
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
	fmt.Println(found.ID == saved.ID, found.ClientID, found.RefreshToken)
	fmt.Println(string(found.RefreshToken))
	// Output:
	// true 1000.CLIENT [redacted]
	// 1000.refresh
}

// login is an auth method such as those of github.com/hashicorp/vault/api/auth.
type login struct{ roleID, secretID string }

func (l login) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	return client.Logical().WriteWithContext(ctx, "auth/approle/login",
		map[string]any{"role_id": l.roleID, "secret_id": l.secretID})
}

// A function that is frozen between calls cannot renew its token in time. With an auth method, the
// store logs in again if the token has expired.
func ExampleOptions() {
	address, _, stop := server()
	defer stop()

	config := api.DefaultConfig()
	config.Address = address
	client, err := api.NewClient(config)
	if err != nil {
		log.Fatal(err)
	}
	k, err := keys.Parse([]byte(os.Getenv("TOKENKEEP_KEYS")))
	if err != nil {
		log.Fatal(err)
	}
	store, err := vaultstore.New(client, "secret", "oauth/crm", &vaultstore.Options{
		Auth:  login{"crm-sync", "s3cr3t-id"},
		Store: k.Options(),
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := store.GetTokens(context.Background())
	fmt.Println(len(tokens), err)
	// Output: 0 <nil>
}

func ExamplePolicy() {
	fmt.Print(vaultstore.Policy("secret", "oauth/crm"))
	// Output:
	// # The records.
	// path "secret/data/oauth/crm/tokens/*" {
	//   capabilities = ["create", "read", "update"]
	// }
	//
	// # The names and the versions of the records.
	// path "secret/metadata/oauth/crm/tokens/*" {
	//   capabilities = ["list", "read"]
	// }
	//
	// # The versions of deleted records.
	// path "secret/destroy/oauth/crm/tokens/*" {
	//   capabilities = ["update"]
	// }
	//
	// # The index by which records are found: digests in the paths, no secrets.
	// path "secret/metadata/oauth/crm/index/*" {
	//   capabilities = ["create", "update", "list", "delete"]
	// }
}
