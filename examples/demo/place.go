package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// The place of the records in a stand-in.
const (
	mount  = "secret" // of Vault
	region = "eu-central-1"
	prefix = "tokenkeep-demo"
	awsKey = "AKIATOKENKEEPDEMO"
)

// A store is what the demo and its processes have open.
type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
	io.Closer
}

// A fileStore has nothing to close.
type fileStore struct{ *filestore.Store }

func (fileStore) Close() error { return nil }

// A place says where the records are. The processes of the demo get it as JSON.
type place struct {
	Kind    string `json:"kind"` // vault, aws, gcp or file
	Address string `json:"address"`
	Secret  string `json:"secret,omitempty"` // the credential of the stand-in's clients
}

// An openPlace is a place for as long as the demo runs.
type openPlace struct {
	place

	name    string // for people
	standIn bool
	close   func()
}

// findPlace returns the place of a new file, if one is named, or starts a stand-in: the
// one for Vault if kind is empty. The clients of a stand-in may do what the adapter's
// policy says, and nothing else, where the stand-in has policies.
func findPlace(file, kind string) (*openPlace, error) {
	if file != "" {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return nil, cmp.Or(err, fmt.Errorf("%s exists: the demo writes made-up records to a new file", file))
		}
		return &openPlace{place{Kind: "file", Address: file}, "the token file " + file, false, func() {}}, nil
	}
	switch kind {
	case "", "vault":
		server := fakevault.New(nil)
		err := server.Policy("", "demo", vaultstore.Policy(mount, prefix))
		p := place{Kind: "vault", Address: server.URL, Secret: server.Token("", 0, "demo")}
		return &openPlace{p, "HashiCorp Vault", true, server.Close}, err
	case "aws":
		server := fakeaws.New(nil)
		err := server.Policy(awsKey, awssm.Policy(region, fakeaws.Account, prefix, nil))
		p := place{Kind: "aws", Address: server.URL, Secret: rand.Text()}
		return &openPlace{p, "AWS Secrets Manager", true, server.Close}, err
	case "gcp":
		server := fakegcp.New(nil)
		return &openPlace{place{Kind: "gcp", Address: server.Addr}, "Google Secret Manager", true, server.Close}, nil
	}
	return nil, errors.New("DEMO_STORE names the demo's stand-in: vault, aws or gcp")
}

// open opens the store in a place.
func (p place) open(ctx context.Context) (store, error) {
	switch p.Kind {
	case "vault":
		return p.openVault()
	case "aws":
		client := secretsmanager.New(secretsmanager.Options{
			Region:       region,
			BaseEndpoint: aws.String(p.Address),
			Credentials:  credentials.NewStaticCredentialsProvider(awsKey, p.Secret, ""),
		}, func(o *secretsmanager.Options) { o.HTTPClient = wholesend.Client{Doer: o.HTTPClient} })
		return awssm.New(client, prefix, nil)
	case "gcp":
		client, err := secretmanager.NewClient(ctx, option.WithEndpoint(p.Address), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
		if err != nil {
			return nil, err
		}
		return gcpsm.New(client, "projects/demo", prefix, nil)
	}
	s, err := filestore.New(p.Address, nil)
	return fileStore{s}, err
}

// openVault does without what the environment says of another Vault.
func (p place) openVault() (store, error) {
	config := api.DefaultConfig()
	config.Address, config.AgentAddress = p.Address, ""
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(p.Secret)
	client.ClearNamespace()
	return vaultstore.New(client, mount, prefix, nil)
}
