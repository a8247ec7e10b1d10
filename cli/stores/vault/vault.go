// Package vault provides the scheme vault, for HashiCorp Vault and OpenBao, to the command
// tokenkeep.
package vault

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
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

	"github.com/tokenkeep/tokenkeep/cli/internal/policies"
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// Scheme returns the scheme of URLs of the form vault:MOUNT/PREFIX.
func Scheme() scheme.Scheme {
	return scheme.Scheme{
		Name: "vault",
		Form: "vault:MOUNT/PREFIX",
		Text: `HashiCorp Vault, KV version 2, at VAULT_ADDR with VAULT_TOKEN (or what
"vault login" left in ~/.vault-token), VAULT_NAMESPACE, VAULT_CACERT and so on;
a mount with a slash in its name is written vault:MY/MOUNT//PREFIX. A plain http
address must be on this machine, unless vault:MOUNT/PREFIX?insecure=true allows
tokens to cross the network unencrypted. list-lag=5s&read-lag=5s set the maximum lag
of a standby that serves reads`,
		Slashes: true,
		Service: "vaultstore",
		SignIn:  "log in again (vault login), or set VAULT_TOKEN",
		Open:    open,
		Policy: &scheme.Policy{
			Name:     "vault",
			Argument: "MOUNT/PREFIX",
			Short:    "Print the policy for a store in Vault or OpenBao",
			New:      newPolicy,
		},
	}
}

// newPolicy implements scheme.Policy.New.
func newPolicy(*flag.FlagSet) func(string, bool) (string, error) {
	return func(at string, terraform bool) (string, error) {
		mount, prefix, ok := strings.Cut(at, "/")
		if err := policies.CheckPrefix(at); err != nil || !ok {
			return "", scheme.Usagef("the store has the form MOUNT/PREFIX: letters, digits, and /_.- between them")
		}
		text := vaultstore.Policy(mount, prefix)
		if terraform {
			text = "resource \"vault_policy\" \"tokenkeep\" {\n  name   = \"tokenkeep\"\n  policy = <<-HCL\n" + policies.Indent(text) + "  HCL\n}\n"
		}
		return text, nil
	}
}

func open(_ context.Context, o *scheme.Opening) (*scheme.Opened, error) {
	rest, params, err := scheme.Query(o.Rest, "insecure", "list-lag", "read-lag")
	if err != nil {
		return nil, err
	}
	options, insecure, err := parseOptions(params)
	if err != nil {
		return nil, err
	}
	mount, prefix, ok := strings.Cut(rest, "//")
	if !ok {
		mount, prefix, _ = strings.Cut(rest, "/")
	}
	if mount == "" || prefix == "" {
		return nil, scheme.Usagef("a mount and a prefix are needed: vault:MOUNT/PREFIX")
	}
	client, err := newClient(o.Getenv)
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(client.Address()); !insecure && (err != nil || u.Scheme == "http" && !scheme.Loopback(u.Hostname())) {
		return nil, scheme.Usagef("the address of Vault is plain http, and not on this machine: tokens would be sent unencrypted; " +
			"use https, or add ?insecure=true to the store to allow that")
	}
	d, err := vaultstore.NewDriver(client, mount, prefix, options)
	if err != nil {
		return nil, scheme.Usage(err)
	}
	at := strings.Join([]string{"vault", client.Address(), client.Namespace(), mount, prefix}, " ")
	return &scheme.Opened{Driver: d, Place: at, Counted: true}, nil
}

// parseOptions returns the options in the parameters of a URL. The result insecure reports whether
// tokens may cross a network without TLS.
func parseOptions(params map[string]string) (options *vaultstore.Options, insecure bool, err error) {
	options = &vaultstore.Options{}
	for name, lag := range map[string]*time.Duration{"list-lag": &options.ListLag, "read-lag": &options.ReadLag} {
		text := params[name]
		if text == "" {
			continue
		}
		if *lag, err = time.ParseDuration(text); err != nil || *lag < 0 {
			return nil, false, scheme.Usagef("vault: %s must be a time, such as 5s", name)
		}
	}
	if text := params["insecure"]; text != "" {
		if insecure, err = strconv.ParseBool(text); err != nil {
			return nil, false, scheme.Usagef("vault: insecure must be true or false")
		}
	}
	return options, insecure, nil
}

// newClient returns a client with the configuration from the environment. Package api reads the
// environment of the process; the function env takes precedence for the address, the token and the
// namespace.
func newClient(env func(string) string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, scheme.Usagef("the environment of Vault: %w", config.Error)
	}
	switch address := env(api.EnvVaultAddress); {
	case address != "" && address != config.Address:
		config.Address, config.AgentAddress = address, ""
	case address == "" && config.AgentAddress == "":
		return nil, scheme.Usagef("no Vault address: set %s", api.EnvVaultAddress)
	}
	config.CheckRetry = retryVault
	client, err := api.NewClient(config)
	if wrong := (*url.Error)(nil); errors.As(err, &wrong) {
		err = fmt.Errorf("%s: %w", api.EnvVaultAddress, wrong.Err) // an address can contain a password
	}
	if err != nil {
		return nil, scheme.Usagef("the environment of Vault: %w", err)
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

// retryVault applies the default retry policy of Vault's client, but does not retry two permanent
// errors: an address with the wrong scheme, and a sealed server.
func retryVault(ctx context.Context, answer *http.Response, err error) (bool, error) {
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, new(tls.RecordHeaderError)) {
		return false, err
	}
	if answer != nil && answer.StatusCode == http.StatusServiceUnavailable {
		body, _ := io.ReadAll(answer.Body) // if the connection breaks, the received part is the answer
		_ = answer.Body.Close()
		answer.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("Vault is sealed")) {
			return false, nil
		}
	}
	return api.DefaultRetryPolicy(ctx, answer, err)
}

// vaultToken returns VAULT_TOKEN, or the token that "vault login" stored in ~/.vault-token. If
// neither exists, vaultToken returns "", because a Vault agent can add a token to requests.
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
