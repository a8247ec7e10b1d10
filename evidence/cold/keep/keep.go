// Package keep contains the code shared by the programs in evidence/cold that use this module.
package keep

import (
	"context"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Token returns the access token of cold.User from store.
func Token(ctx context.Context, store tokenstore.TokenStore) (string, error) {
	client, err := initializer.New(ctx, initializer.Config{
		OAuth2: cold.Config(), Store: store, Token: tokenstore.Token{UserName: cold.User, ClientID: cold.Client},
	})
	if err != nil {
		return "", err
	}
	token, err := client.Token(ctx)
	if err != nil {
		return "", err
	}
	return string(token.AccessToken), nil
}
