// Command encrypted prints which users have a token in an encrypted store in AWS Secrets
// Manager. The platform sets the environment variable TOKENKEEP_KEYS to the keys of the store:
// the document that "tokenkeep keys new" writes. See docs/keys.md.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func main() {
	ctx := context.Background()
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	store, err := open(os.Getenv, secretsmanager.NewFromConfig(aws))
	if err != nil {
		log.Fatal(err)
	}
	if err := list(ctx, store, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// open opens the store under TOKEN_PREFIX with the keys in TOKENKEEP_KEYS. If the keys are
// wrong, calls of the store fail, and the store never saves an unencrypted token.
func open(env func(string) string, client *secretsmanager.Client) (*tokenstore.Store, error) {
	k, err := keys.Parse([]byte(env("TOKENKEEP_KEYS")))
	if err != nil {
		return nil, fmt.Errorf("TOKENKEEP_KEYS: %w", err)
	}
	return awssm.New(client, env("TOKEN_PREFIX"), &awssm.Options{Store: k.Options()})
}

func list(ctx context.Context, store tokenstore.TokenStore, out io.Writer) error {
	tokens, err := store.GetTokens(ctx)
	for _, t := range tokens {
		_, _ = fmt.Fprintln(out, t.UserName)
	}
	return err
}
