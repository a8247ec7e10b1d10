// Command gcp gets a token with gcpsm and initializer.
package main

import (
	"context"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
	"github.com/tokenkeep/tokenkeep/evidence/cold/keep"
	"github.com/tokenkeep/tokenkeep/gcpsm"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		c, err := secretmanager.NewClient(ctx, option.WithEndpoint(url), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
		if err != nil {
			return "", err
		}
		store, err := gcpsm.New(c, "projects/p", cold.Prefix, nil)
		if err != nil {
			return "", err
		}
		return keep.Token(ctx, store)
	})
}
