package vaultstore

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Options configures a store. A nil *Options is equivalent to the zero value.
type Options struct {
	// Store holds the options that all backends have in common. Nil means the defaults.
	Store *tokenstore.Options

	// Auth logs in if the client has no token, or if the token has expired or was revoked. A store
	// never runs two logins at the same time. The store uses the new token until that token is
	// invalid or the client's token changes. The store does not modify the client. If Auth is nil,
	// the caller is responsible for the client's token.
	Auth api.AuthMethod

	// ListLag and ReadLag are for servers whose standby nodes answer reads. ListLag is the maximum
	// time until lists from such a node show a write. ReadLag is the maximum time until reads show
	// the write. Each may be driver.Unbounded, and must not be negative. Zero means that the active
	// node answers, as in Vault's Community Edition. See "Consistency" in the package
	// documentation.
	ListLag, ReadLag time.Duration
}

// New returns a store that keeps records in a KV version 2 secrets engine. mount is the path at
// which the engine is mounted, and prefix is the path of the records in the engine. Both consist of
// path elements joined by "/", such as "secret" and "oauth/crm". Each path element has at least one
// character, and consists of ASCII letters, digits and the characters "_-.". Neither path may
// contain ".." or the element ".". The first element of prefix must not be a path element of the
// engine's API, such as "data".
//
// New does no I/O, and returns an error only if a parameter is invalid. client must not be nil, and
// opts may be nil. At each call, the store uses the current address, namespace, TLS configuration,
// retries and headers of client. The store never modifies client.
func New(client *api.Client, mount, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, mount, prefix, opts)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, cmp.Or(opts, &Options{}).Store)
}

// NewDriver returns the driver that New passes to tokenstore.New. NewDriver is for decorators and
// tests. The driver implements driver.Inspector. See New for the parameters and the error.
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

// apiPaths are the elements that the engine's API has between the mount and the path of a secret. A
// prefix that a user has copied from a policy or a URL may begin with such an element.
var apiPaths = []string{"data", "metadata", "delete", "undelete", "destroy", "subkeys"}

var pathElement = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_.-]+$`) })

// checkPath returns an error if path is not valid as a mount or a prefix. Vault refuses ".."
// anywhere in a path.
func checkPath(path string) error {
	for element := range strings.SplitSeq(path, "/") {
		switch {
		case element == "":
			return errors.New("has an empty path element")
		case element == "." || strings.Contains(element, ".."):
			return errors.New("has dots that lead out of it")
		case !pathElement().MatchString(element):
			return errors.New("has a character other than letters, digits, '_', '-', '.' and '/'")
		}
	}
	return nil
}

// Policy returns the policy that a token needs for a store with the given mount and prefix, as
// input for "vault policy write". The policy allows only the calls that the store makes.
func Policy(mount, prefix string) string {
	return strings.NewReplacer("{mount}", mount, "{prefix}", prefix).Replace(policy)
}

const policy = `# The records.
path "{mount}/data/{prefix}/tokens/*" {
  capabilities = ["create", "read", "update"]
}

# The names and the versions of the records.
path "{mount}/metadata/{prefix}/tokens/*" {
  capabilities = ["list", "read"]
}

# The versions of deleted records.
path "{mount}/destroy/{prefix}/tokens/*" {
  capabilities = ["update"]
}

# The index by which records are found: digests in the paths, no secrets.
path "{mount}/metadata/{prefix}/index/*" {
  capabilities = ["create", "update", "list", "delete"]
}
`
