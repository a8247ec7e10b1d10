// Command aws gets a token with awssm and initializer.
package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/evidence/cold/keep"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		c, err := config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(url))
		if err != nil {
			return "", err
		}
		store, err := awssm.New(secretsmanager.NewFromConfig(c), cold.Prefix, nil)
		if err != nil {
			return "", err
		}
		return keep.Token(ctx, store)
	})
}
