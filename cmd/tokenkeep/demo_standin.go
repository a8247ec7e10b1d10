package main

import (
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// Where the demo keeps its records in the stand-in.
const (
	standInMount  = "secret"
	standInPrefix = "tokenkeep-demo"
)

// A standIn takes the place of Vault: a server in this process that other
// processes reach over the loopback interface.
type standIn struct {
	server *fakevault.Server
	env    map[string]string
}

// startStandIn starts one. Its clients may do what vaultstore's policy says, and
// nothing else.
func startStandIn() (*standIn, error) {
	server := fakevault.New(nil)
	if err := server.Policy("", "demo", vaultstore.Policy(standInMount, standInPrefix)); err != nil {
		server.Close()
		return nil, err
	}
	return &standIn{server, map[string]string{
		api.EnvVaultAddress: server.URL,
		api.EnvVaultToken:   server.Token("", 0, "demo"),
	}}, nil
}

func (s *standIn) close() { s.server.Close() }

// at returns an app whose store is in the stand-in. Of the environment it has
// what is not about stores.
func (a *app) at(s *standIn) *app {
	b := *a
	b.storeURL = vaultScheme.name + ":" + standInMount + "/" + standInPrefix
	b.env = func(name string) string {
		if value, ok := s.env[name]; ok {
			return value
		}
		if strings.HasPrefix(name, "VAULT_") || name == envKeys {
			return ""
		}
		return a.env(name)
	}
	return &b
}
