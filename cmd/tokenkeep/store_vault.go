package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var vaultScheme = scheme{
	name: "vault",
	form: "vault:MOUNT/PREFIX",
	text: `HashiCorp Vault, KV version 2, at VAULT_ADDR with VAULT_TOKEN (or what
"vault login" left in ~/.vault-token), VAULT_NAMESPACE, VAULT_CACERT and so on;
a mount with a slash in its name is written vault:MY/MOUNT//PREFIX. An address of
plain http has to be on this machine, unless vault:MOUNT/PREFIX?insecure=true says
that tokens may go over the network as they are. list-lag=5s&read-lag=5s say how far
behind a standby may be that answers reads itself`,
	open: openVault,
}

func openVault(_ context.Context, a *app, rest string) (*store, error) {
	rest, params, err := query(rest, "insecure", "list-lag", "read-lag")
	if err != nil {
		return nil, err
	}
	options, insecure, err := vaultOptions(params)
	if err != nil {
		return nil, err
	}
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
	if u, err := url.Parse(client.Address()); !insecure && (err != nil || u.Scheme == "http" && !loopback(u.Hostname())) {
		return nil, usagef("the address of Vault is plain http, and not on this machine: tokens would go over the network as they are; " +
			"use https, or write ?insecure=true behind the store if that is meant")
	}
	options.Store = opts
	s, err := vaultstore.New(client, mount, prefix, options)
	at := strings.Join([]string{"vault", client.Address(), client.Namespace(), mount, prefix}, " ")
	return portable(s, err, opts, &store{place: at, counted: true, lag: min(settleTime, max(options.ListLag, options.ReadLag))})
}

// vaultOptions returns what the parameters of a store say, and whether its tokens may
// go over a network without TLS.
func vaultOptions(params map[string]string) (options *vaultstore.Options, insecure bool, err error) {
	options = &vaultstore.Options{}
	for name, lag := range map[string]*time.Duration{"list-lag": &options.ListLag, "read-lag": &options.ReadLag} {
		text := params[name]
		if text == "" {
			continue
		}
		if *lag, err = time.ParseDuration(text); err != nil || *lag < 0 {
			return nil, false, usagef("vault: %s is a time, as in 5s", name)
		}
	}
	if text := params["insecure"]; text != "" {
		if insecure, err = strconv.ParseBool(text); err != nil {
			return nil, false, usagef("vault: insecure is true or false")
		}
	}
	return options, insecure, nil
}

// vaultClient returns a client as the environment configures it. Vault's package
// reads the environment of the process; what env says comes before that.
func vaultClient(env func(string) string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, usagef("the environment of Vault: %w", config.Error)
	}
	switch address := env(api.EnvVaultAddress); {
	case address != "" && address != config.Address:
		config.Address, config.AgentAddress = address, ""
	case address == "" && config.AgentAddress == "":
		return nil, usagef("no address of Vault: set %s", api.EnvVaultAddress)
	}
	config.CheckRetry = retryVault
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

// retryVault repeats what Vault's client repeats by itself, but for what stays as it
// is: an address of the wrong scheme, and a server that is sealed.
func retryVault(ctx context.Context, answer *http.Response, err error) (bool, error) {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return false, err
	}
	if answer != nil && answer.StatusCode == http.StatusServiceUnavailable {
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return false, err
		}
		_ = answer.Body.Close()
		answer.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("Vault is sealed")) {
			return false, nil
		}
	}
	return api.DefaultRetryPolicy(ctx, answer, err)
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
