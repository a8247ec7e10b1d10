package gcpsm_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"

	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// connect stands for secretmanager.NewClient(ctx) in the examples.
func connect(ctx context.Context) (client *secretmanager.Client, stop func()) {
	_ = os.Setenv("TOKENKEEP_KEYS", string(keys.New().Encode())) // the platform sets it from a secret
	server := fakegcp.New(nil)
	client, err := secretmanager.NewClient(ctx, server.ClientOptions()...)
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		_ = client.Close()
		server.Close()
	}
}

func ExampleNew() {
	ctx := context.Background()
	client, stop := connect(ctx)
	defer stop()

	store, err := gcpsm.New(client, "projects/crm-prod", "oauth", nil)
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
	fmt.Println(found.ID == saved.ID, found.ClientID, found.RefreshToken)
	fmt.Println(string(found.RefreshToken))
	// Output:
	// true 1000.CLIENT [redacted]
	// 1000.refresh
}

// A regional secret is stored only in its region. A customer-managed key can encrypt regional
// secrets.
func ExampleOptions() {
	ctx := context.Background()
	client, stop := connect(ctx) // with option.WithEndpoint("secretmanager.europe-west1.rep.googleapis.com:443")
	defer stop()

	k, err := keys.Parse([]byte(os.Getenv("TOKENKEEP_KEYS")))
	if err != nil {
		log.Fatal(err)
	}
	store, err := gcpsm.New(client, "projects/crm-prod/locations/europe-west1", "oauth", &gcpsm.Options{
		KMSKey: "projects/crm-prod/locations/europe-west1/keyRings/oauth/cryptoKeys/tokens",
		Labels: map[string]string{"team": "crm"},
		Store:  k.Options(),
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := store.GetTokens(ctx)
	fmt.Println(len(tokens), err)
	// Output: 0 <nil>
}

// If several programs find the same token expired, only one program refreshes the token.
func ExampleNew_refresh() {
	ctx := context.Background()
	client, stop := connect(ctx)
	defer stop()

	store, err := gcpsm.New(client, "projects/crm-prod", "oauth", nil)
	if err != nil {
		log.Fatal(err)
	}
	saved, err := store.SaveToken(ctx, tokenstore.Token{UserName: "ann", ClientID: "1000.CLIENT", RefreshToken: "1000.refresh", AccessToken: "expired"})
	if err != nil {
		log.Fatal(err)
	}
	now, err := store.Refresh(ctx, saved.ID, saved.AccessToken, func(_ context.Context, t tokenstore.Token) (tokenstore.Token, error) {
		// A real function sends t.RefreshToken to the authorization server here.
		return tokenstore.Token{AccessToken: "1000.access", ExpiresAt: time.Now().Add(time.Hour)}, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(now.AccessToken))
	// Output: 1000.access
}
