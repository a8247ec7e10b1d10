package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
)

const (
	region = "eu-central-1"
	prefix = "tokenkeep-demo"
	awsKey = "AKIATOKENKEEPDEMO"
)

// store is the interface of the token store that the demo and its processes use.
type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
	io.Closer
}

// A fileStore is a store in a file, with a Close method that does nothing.
type fileStore struct{ *filestore.Store }

func (fileStore) Close() error { return nil }

// A place is the location of the records: a token file, or the stand-in for AWS Secrets
// Manager. The processes of the demo receive the place as JSON, in the environment variable
// that envPlace names.
type place struct {
	File   string `json:"file,omitempty"`
	URL    string `json:"url,omitempty"`    // the URL of the stand-in
	Secret string `json:"secret,omitempty"` // the secret access key for the stand-in
}

// An openPlace is a place with its name, and with a function that releases the resources of
// the place at the end of the demo.
type openPlace struct {
	place

	name    string // for output
	standIn bool
	close   func()
}

// findPlace returns the place of a new token file that is called file. It returns an error if
// the file exists. If file is empty, findPlace starts the stand-in for AWS Secrets Manager,
// whose clients have only the permissions of awssm.Policy.
func findPlace(file string) (*openPlace, error) {
	if file != "" {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return nil, cmp.Or(err, fmt.Errorf("%s exists: the demo writes made-up records to a new file", file))
		}
		return &openPlace{place{File: file}, "the token file " + file, false, func() {}}, nil
	}
	server := fakeaws.New(nil)
	err := server.Policy(awsKey, awssm.Policy(region, fakeaws.Account, prefix, nil))
	return &openPlace{place{URL: server.URL, Secret: rand.Text()}, "AWS Secrets Manager", true, server.Close}, err
}

func (p place) open() (store, error) {
	if p.File != "" {
		s, err := filestore.New(p.File, nil)
		return fileStore{s}, err
	}
	client := secretsmanager.New(secretsmanager.Options{
		Region:       region,
		BaseEndpoint: aws.String(p.URL),
		Credentials:  credentials.NewStaticCredentialsProvider(awsKey, p.Secret, ""),
	}, func(o *secretsmanager.Options) { o.HTTPClient = wholesend.Client{Doer: o.HTTPClient} })
	return awssm.New(client, prefix, nil)
}
