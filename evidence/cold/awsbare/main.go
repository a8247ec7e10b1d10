// Command awsbare gets a token with the AWS SDK and golang.org/x/oauth2.
package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/evidence/cold"
)

func main() {
	cold.Main(func(ctx context.Context, url string) (string, error) {
		c, err := config.LoadDefaultConfig(ctx, config.WithBaseEndpoint(url))
		if err != nil {
			return "", err
		}
		out, err := secretsmanager.NewFromConfig(c).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(cold.BareName)})
		if err != nil {
			return "", err
		}
		return cold.Token(ctx, []byte(aws.ToString(out.SecretString)))
	})
}
