package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/helper/namespace"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// Vault finds an engine in the map of its kind, and asks a registry about
// versions and deprecation.
var (
	engines     = map[string]logical.Factory{"kv": kv.Factory}
	authMethods = map[string]logical.Factory{"approle": approle.Factory}
)

// A config says what a core is to be like.
type config struct {
	logger  hclog.Logger
	url     string // where it will be reached
	storage string // folder that it keeps everything in; if empty, it keeps it in memory
	token   string // ID of the root token
	mount   string // of the KV engine
}

// newCore returns a core as it is when Vault starts: not initialized, or sealed.
func newCore(c config) (*vault.Core, error) {
	var (
		storage physical.Backend
		kind    string
		err     error
	)
	if c.storage != "" {
		kind = "file"
		storage, err = file.NewFileBackend(map[string]string{"path": c.storage}, c.logger)
	} else {
		kind = "inmem"
		storage, err = inmem.NewInmem(nil, c.logger)
	}
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		StorageType:        kind,
		LogicalBackends:    engines,
		CredentialBackends: authMethods,
		BuiltinRegistry:    registry{},
		DisableMlock:       true,
		RedirectAddr:       c.url,
		Logger:             c.logger,
		LogLevel:           c.logger.GetLevel().String(),
	})
}

// prepare initializes and unseals a core, gives it its engine and its auth
// method, and returns the key that unseals it.
func prepare(ctx context.Context, core *vault.Core, c config) (key []byte, err error) {
	ctx = namespace.RootContext(ctx)
	initial, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig: &vault.SealConfig{Type: vault.SealConfigTypeShamir.String(), SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	key = initial.SecretShares[0]
	if ok, err := core.Unseal(bytes.Clone(key)); err != nil { // it zeroes what it is given
		return nil, fmt.Errorf("unseal: %w", err)
	} else if !ok {
		return nil, fmt.Errorf("unseal: one key was not enough")
	}

	// The first root token has an ID of Vault's choice. It makes one with the
	// wanted ID, and is of no further use.
	root := initial.RootToken
	if _, err := request(ctx, core, root, logical.UpdateOperation, "auth/token/create", map[string]any{
		"id": c.token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true,
	}); err != nil {
		return nil, err
	}
	if _, err := request(ctx, core, root, logical.UpdateOperation, "auth/token/revoke-self", nil); err != nil {
		return nil, err
	}
	if _, err := request(ctx, core, c.token, logical.UpdateOperation, "sys/mounts/"+c.mount, map[string]any{
		"type": "kv", "options": map[string]string{"version": "2"},
	}); err != nil {
		return nil, err
	}
	if _, err := request(ctx, core, c.token, logical.UpdateOperation, "sys/auth/approle", map[string]any{
		"type": "approle",
	}); err != nil {
		return nil, err
	}
	if err := waitForKV(ctx, core, c); err != nil {
		return nil, err
	}
	return key, nil
}

// waitForKV waits until the KV engine does what it is asked for. An engine of
// version 2 upgrades its storage first, in the background unless it finds it
// empty, and until that is over it refuses every request.
func waitForKV(ctx context.Context, core *vault.Core, c config) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := request(ctx, core, c.token, logical.ReadOperation, c.mount+"/config", nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w while the KV engine was not ready: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// request makes core handle a request.
func request(ctx context.Context, core *vault.Core, token string, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	resp, err := core.HandleRequest(ctx, &logical.Request{ClientToken: token, Operation: op, Path: path, Data: data})
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", op, path, err)
	}
	return resp, nil
}

// A registry tells Vault what is built in. Vault's own names all engines there
// are, and would link them all.
type registry struct{}

func factories(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return engines
	case consts.PluginTypeCredential:
		return authMethods
	default:
		return nil
	}
}

func (registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, ok := factories(kind)[name]
	return func() (any, error) { return factory, nil }, ok
}

func (registry) Contains(name string, kind consts.PluginType) bool {
	return factories(kind)[name] != nil
}

func (registry) Keys(kind consts.PluginType) []string {
	return slices.Sorted(maps.Keys(factories(kind)))
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	if !r.Contains(name, kind) {
		return consts.Unknown, false
	}
	return consts.Supported, true
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
