package awssm_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// connect stands for secretsmanager.NewFromConfig with the configuration that
// config.LoadDefaultConfig returns.
func connect() (client *secretsmanager.Client, stop func()) {
	_ = os.Setenv("TOKENKEEP_KEYS", string(keys.New().Encode())) // the platform sets it from a secret
	s := fakeaws.New(nil)
	return secretsmanager.New(secretsmanager.Options{
		BaseEndpoint: &s.URL,
		Region:       "eu-central-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "example", SecretAccessKey: "example"}, nil
		}),
	}), s.Close
}

func ExampleNew() {
	client, stop := connect()
	defer stop()

	store, err := awssm.New(client, "oauth/crm", nil)
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

// In this example, the account denies forced deletion, tags every secret with an owner, and has a
// separate KMS key for tokens.
func ExampleOptions() {
	client, stop := connect()
	defer stop()

	k, err := keys.Parse([]byte(os.Getenv("TOKENKEEP_KEYS")))
	if err != nil {
		log.Fatal(err)
	}
	store, err := awssm.New(client, "oauth/crm", &awssm.Options{
		KMSKeyID:    "alias/oauth-tokens",
		Tags:        map[string]string{"owner": "crm"},
		KeepDeleted: true,
		Store:       k.Options(),
	})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := store.GetTokens(context.Background())
	fmt.Println(len(tokens), err)
	// Output: 0 <nil>
}

func ExamplePolicy() {
	fmt.Print(awssm.Policy("*", "123456789012", "oauth", &awssm.Options{
		KMSKeyID:    "arn:aws:kms:eu-central-1:123456789012:key/1234abcd",
		KeepDeleted: true,
	}))
	// Output:
	// {
	//   "Version": "2012-10-17",
	//   "Statement": [
	//     {
	//       "Sid": "Records",
	//       "Effect": "Allow",
	//       "Action": [
	//         "secretsmanager:CreateSecret",
	//         "secretsmanager:DescribeSecret",
	//         "secretsmanager:GetSecretValue",
	//         "secretsmanager:PutSecretValue"
	//       ],
	//       "Resource": "arn:aws:secretsmanager:*:123456789012:secret:oauth/*"
	//     },
	//     {
	//       "Sid": "Labels",
	//       "Effect": "Allow",
	//       "Action": [
	//         "secretsmanager:TagResource",
	//         "secretsmanager:UntagResource"
	//       ],
	//       "Resource": "arn:aws:secretsmanager:*:123456789012:secret:oauth/*",
	//       "Condition": {
	//         "ForAllValues:StringLike": {
	//           "aws:TagKeys": [
	//             "tokenkeep:*"
	//           ]
	//         }
	//       }
	//     },
	//     {
	//       "Sid": "Searches",
	//       "Effect": "Allow",
	//       "Action": [
	//         "secretsmanager:BatchGetSecretValue",
	//         "secretsmanager:ListSecrets"
	//       ],
	//       "Resource": "*"
	//     },
	//     {
	//       "Sid": "Key",
	//       "Effect": "Allow",
	//       "Action": [
	//         "kms:Decrypt",
	//         "kms:GenerateDataKey"
	//       ],
	//       "Resource": "arn:aws:kms:eu-central-1:123456789012:key/1234abcd"
	//     }
	//   ]
	// }
}
