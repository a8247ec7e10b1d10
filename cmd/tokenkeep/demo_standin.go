package main

import (
	"crypto/rand"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// Where the demo keeps its records in a stand-in.
const (
	standInMount  = "secret" // of Vault
	standInRegion = "eu-central-1"
	standInPrefix = "tokenkeep-demo"
)

// A standIn takes the place of a secret manager: a server in this process that
// other processes reach over the loopback interface. Its clients may do what the
// adapter's policy says, and nothing else, where the stand-in has policies.
type standIn struct {
	name  string            // for people
	store string            // as --store names it
	env   map[string]string // what its clients have to know
	close func()
}

// startStandIn starts the one that DEMO_STORE names, or that for Vault.
func startStandIn(name string) (*standIn, error) {
	switch name {
	case "", "vault":
		return standInVault()
	case "aws":
		return standInAWS()
	case "gcp":
		return standInGCP(), nil
	}
	return nil, usagef("%s names the demo's stand-in: vault, aws or gcp", envDemo)
}

func standInVault() (*standIn, error) {
	server := fakevault.New(nil)
	if err := server.Policy("", "demo", vaultstore.Policy(standInMount, standInPrefix)); err != nil {
		server.Close()
		return nil, err
	}
	return &standIn{
		name:  "HashiCorp Vault",
		store: vaultScheme.name + ":" + standInMount + "/" + standInPrefix,
		env: map[string]string{
			api.EnvVaultAddress: server.URL,
			api.EnvVaultToken:   server.Token("", 0, "demo"),
		},
		close: server.Close,
	}, nil
}

func standInAWS() (*standIn, error) {
	const key = "AKIATOKENKEEPDEMO"
	server := fakeaws.New(nil)
	if err := server.Policy(key, awssm.Policy(standInRegion, fakeaws.Account, standInPrefix, nil)); err != nil {
		server.Close()
		return nil, err
	}
	return &standIn{
		name:  "AWS Secrets Manager",
		store: awssmScheme.name + ":" + standInPrefix + "?region=" + standInRegion + "&endpoint=" + url.QueryEscape(server.URL),
		env:   map[string]string{envAWSKeyID: key, envAWSSecret: rand.Text()},
		close: server.Close,
	}, nil
}

func standInGCP() *standIn {
	server := fakegcp.New(nil)
	return &standIn{
		name:  "Google Secret Manager",
		store: gcpsmScheme.name + ":demo/" + standInPrefix + "?endpoint=" + url.QueryEscape("http://"+server.Addr),
		close: server.Close,
	}
}

// at returns an app whose store is in the stand-in. Of the environment it has
// what is not about stores.
func (a *app) at(s *standIn) *app {
	about := []string{"VAULT_", "AWS_", "GOOGLE_", envKeys}
	b := *a
	b.storeURL = s.store
	b.env = func(name string) string {
		if value, ok := s.env[name]; ok {
			return value
		}
		if slices.ContainsFunc(about, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			return ""
		}
		return a.env(name)
	}
	return &b
}
