package vaultstore

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Options configures a store. The zero value, and a nil *Options, are good
// defaults.
type Options struct {
	// Store configures what is the same on every backend. Nil means its
	// defaults.
	Store *tokenstore.Options

	// Auth logs in when the client has no token, and again when Vault says that the
	// token has expired or was revoked. Logins happen one at a time. Their tokens are
	// used in place of the client's own until that changes; the client keeps it. Nil
	// leaves the client's token to the caller.
	Auth api.AuthMethod

	// ListLag and ReadLag are for servers whose standby nodes answer reads
	// themselves: how long a write may take to reach them, or driver.Unbounded.
	// Zero means that the active node answers, as it does in Vault's Community
	// Edition. See "Consistency" in the package documentation.
	ListLag, ReadLag time.Duration
}

// New returns a store whose records are in the KV version 2 secrets engine that
// is mounted at mount, under prefix. Both are path elements of letters, digits,
// '_', '-' and '.', joined by '/', as in "secret" and "oauth/crm".
//
// New does no I/O. The client stays the caller's and is never changed: its address,
// namespace, TLS, retries and headers are used as they are at each call. opts may be nil.
func New(client *api.Client, mount, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, mount, prefix, opts)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, cmp.Or(opts, &Options{}).Store)
}

// NewDriver returns the driver that New uses, for decorators and tests. See New.
func NewDriver(client *api.Client, mount, prefix string, opts *Options) (driver.Secrets, error) {
	if client == nil {
		return nil, errors.New("vaultstore: the client is nil")
	}
	for _, p := range []struct{ what, path string }{{"mount", mount}, {"prefix", prefix}} {
		if err := checkPath(p.path); err != nil {
			return nil, fmt.Errorf("vaultstore: %s %q %w", p.what, p.path, err)
		}
	}
	if first, _, _ := strings.Cut(prefix, "/"); slices.Contains(apiPaths, first) {
		return nil, fmt.Errorf("vaultstore: prefix %q begins with %q, which Vault's API puts between the mount and the path of a secret: leave it out", prefix, first+"/")
	}
	o := cmp.Or(opts, &Options{})
	if o.ListLag < 0 || o.ReadLag < 0 {
		return nil, errors.New("vaultstore: ListLag and ReadLag cannot be negative")
	}
	return &secrets{
		vault:  newVault(client, o.Auth, o.ListLag > 0 || o.ReadLag > 0),
		engine: engine{turn: make(chan struct{}, 1)},
		mount:  mount, prefix: prefix, listLag: o.ListLag, readLag: o.ReadLag,
	}, nil
}

// apiPaths stand between the mount and the path of a secret in the API of the engine, and
// so in a path that is copied from a policy or a URL.
var apiPaths = []string{"data", "metadata", "delete", "undelete", "destroy", "subkeys"}

var pathElement = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// checkPath returns the fault of a mount or a prefix. Vault refuses two dots anywhere in a
// path.
func checkPath(path string) error {
	for element := range strings.SplitSeq(path, "/") {
		switch {
		case element == "":
			return errors.New("has an empty path element")
		case element == "." || strings.Contains(element, ".."):
			return errors.New("has dots that lead out of it")
		case !pathElement.MatchString(element):
			return errors.New("has a character other than letters, digits, '_', '-', '.' and '/'")
		}
	}
	return nil
}

// Policy returns the policy that a token needs for a store with this mount and
// prefix, in the form that "vault policy write" reads. The token may do what the store
// does and nothing else.
func Policy(mount, prefix string) string {
	return strings.NewReplacer("{mount}", mount, "{prefix}", prefix).Replace(policy)
}

const policy = `# The records.
path "{mount}/data/{prefix}/tokens/*" {
  capabilities = ["create", "read", "update"]
}

# The names of the records, and which versions of one there are.
path "{mount}/metadata/{prefix}/tokens/*" {
  capabilities = ["list", "read"]
}

# The versions of a record that is deleted.
path "{mount}/destroy/{prefix}/tokens/*" {
  capabilities = ["update"]
}

# What records are found by: digests in the paths, no secrets.
path "{mount}/metadata/{prefix}/index/*" {
  capabilities = ["create", "update", "list", "delete"]
}
`
