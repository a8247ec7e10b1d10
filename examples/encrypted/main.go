// Command encrypted prints the users that have a record in an encrypted store in AWS Secrets
// Manager. The environment variable TOKENKEEP_KEYS contains the keys of the store, in the form
// that "tokenkeep keys new" writes. See docs/keys.md. TOKEN_PREFIX is the prefix of the names
// of the secrets.
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

// open returns the store under TOKEN_PREFIX with the keys in TOKENKEEP_KEYS. It returns an
// error if TOKENKEEP_KEYS contains no valid keys. If the keys are not the keys of the store,
// calls of the store fail with an error that matches tokenstore.ErrWrongKeys. The store never
// saves an unencrypted token.
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
