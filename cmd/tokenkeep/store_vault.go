package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var vaultScheme = scheme{
	name: "vault",
	form: "vault:MOUNT/PREFIX",
	text: `HashiCorp Vault, KV version 2, at VAULT_ADDR with VAULT_TOKEN (or what
"vault login" left in ~/.vault-token), VAULT_NAMESPACE, VAULT_CACERT and so on;
a mount with a slash in its name is written vault:MY/MOUNT//PREFIX`,
	open: openVault,
}

func openVault(_ context.Context, a *app, rest string) (store, error) {
	mount, prefix, ok := strings.Cut(rest, "//")
	if !ok {
		mount, prefix, _ = strings.Cut(rest, "/")
	}
	if mount == "" || prefix == "" {
		return nil, usagef("a mount and a prefix are needed: vault:MOUNT/PREFIX")
	}
	opts, err := a.storeOptions()
	if err != nil {
		return nil, err
	}
	client, err := vaultClient(a.env)
	if err != nil {
		return nil, err
	}
	s, err := vaultstore.New(client, mount, prefix, &vaultstore.Options{Store: opts})
	at := strings.Join([]string{"vault", client.Address(), client.Namespace(), mount, prefix}, " ")
	return portable(s, err, portableStore{opts: opts, at: at})
}

// vaultClient returns a client as the environment configures it. Vault's package
// reads the environment of the process; what env says comes before that.
func vaultClient(env func(string) string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, usagef("the environment of Vault: %w", config.Error)
	}
	if address := env(api.EnvVaultAddress); address != "" && address != config.Address {
		config.Address, config.AgentAddress = address, ""
	}
	client, err := api.NewClient(config)
	if wrong := (*url.Error)(nil); errors.As(err, &wrong) {
		err = fmt.Errorf("%s: %w", api.EnvVaultAddress, wrong.Err) // an address may hold a password
	}
	if err != nil {
		return nil, usagef("the environment of Vault: %w", err)
	}
	token, err := vaultToken(env)
	if err != nil {
		return nil, err
	}
	client.SetToken(token)
	if namespace := env(api.EnvVaultNamespace); namespace != "" {
		client.SetNamespace(namespace)
	} else {
		client.ClearNamespace()
	}
	return client, nil
}

// vaultToken returns VAULT_TOKEN, or what "vault login" wrote. There may be none:
// an agent may add it.
func vaultToken(env func(string) string) (string, error) {
	if token := env(api.EnvVaultToken); token != "" {
		return token, nil
	}
	home := env("HOME")
	if runtime.GOOS == "windows" {
		home = cmp.Or(home, env("USERPROFILE"))
	}
	if home == "" {
		return "", nil
	}
	data, err := os.ReadFile(filepath.Join(home, ".vault-token"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}
