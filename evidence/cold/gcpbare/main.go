// Command gcpbare gets a token with Google Cloud's client and golang.org/x/oauth2.
package main

import (
	"context"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		c, err := secretmanager.NewClient(ctx, option.WithEndpoint(url), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
		if err != nil {
			return "", err
		}
		out, err := c.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: "projects/p/secrets/" + cold.BareName + "/versions/latest"})
		if err != nil {
			return "", err
		}
		return cold.Token(ctx, out.GetPayload().GetData())
	})
}
