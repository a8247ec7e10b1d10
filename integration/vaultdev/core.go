package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/helper/namespace"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// The built-in engines and auth methods, by type.
var (
	engines     = map[string]logical.Factory{"kv": kv.Factory}
	authMethods = map[string]logical.Factory{"approle": approle.Factory}
)

// A config configures a core.
type config struct {
	logger  hclog.Logger
	url     string // base URL for clients
	storage string // folder of the data; if empty, the data is in memory
	token   string // ID of the root token
	mount   string // mount path of the KV engine
}

// newCore returns a core that is not initialized or, if c.storage holds the data of
// an initialized core, sealed.
//
// A core with a folder uses integrated storage (Raft), as Vault recommends for
// production. The storage "file" does not survive a crash: if the server dies
// during a write, a temporary file stays in the folder, and every listing of that
// folder fails with "invalid ciphertext: wrong number of fields".
func newCore(c config) (*vault.Core, error) {
	conf := &vault.CoreConfig{
		LogicalBackends:    engines,
		CredentialBackends: authMethods,
		BuiltinRegistry:    registry{},
		DisableMlock:       true,
		RedirectAddr:       c.url,
		Logger:             c.logger,
		LogLevel:           c.logger.GetLevel().String(),
	}
	if c.storage == "" {
		storage, err := inmem.NewInmem(nil, c.logger)
		if err != nil {
			return nil, err
		}
		conf.StorageType, conf.Physical = "inmem", storage
		return vault.NewCore(conf)
	}
	if err := os.MkdirAll(c.storage, 0o700); err != nil {
		return nil, err
	}
	storage, err := raft.NewRaftBackend(map[string]string{
		"path":                   c.storage,
		"node_id":                "vaultdev",
		"performance_multiplier": "1", // elect the only server quickly
	}, c.logger)
	if err != nil {
		return nil, err
	}
	conf.StorageType, conf.Physical = "raft", storage
	conf.HAPhysical = storage.(physical.HABackend)
	conf.ClusterAddr = "https://127.0.0.1:0"
	core, err := vault.NewCore(conf)
	if err != nil {
		return nil, err
	}
	core.SetClusterListenerAddrs([]*net.TCPAddr{{IP: net.IPv4(127, 0, 0, 1)}})
	return core, nil
}

// prepare initializes and unseals core, mounts the KV engine and AppRole, and
// returns the unseal key.
func prepare(ctx context.Context, core *vault.Core, c config) (key []byte, err error) {
	ctx = namespace.RootContext(ctx)
	initial, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig: &vault.SealConfig{Type: vault.SealConfigTypeShamir.String(), SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	key = initial.SecretShares[0]
	if ok, err := core.Unseal(bytes.Clone(key)); err != nil { // Unseal clears its argument
		return nil, fmt.Errorf("unseal: %w", err)
	} else if !ok {
		return nil, fmt.Errorf("unseal: one key was not enough")
	}

	// Vault chooses the ID of the first root token. That token is used to create the
	// root token with the configured ID, and is then revoked.
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

// waitForKV waits until the KV engine answers. An engine of version 2 first
// upgrades its storage, and refuses all requests until the upgrade is complete.
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

// request sends a request to core.
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

// A registry lists the built-in engines and auth methods. Vault's own registry
// would link all engines into the program.
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
