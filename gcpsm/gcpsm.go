package gcpsm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Options configures a store. A nil *Options is equivalent to the zero value. With the zero value,
// Secret Manager replicates secrets automatically, and Google manages the keys.
type Options struct {
	// Store holds the options that all backends have in common. Nil means the defaults.
	Store *tokenstore.Options

	// KMSKey is the name of the customer-managed key that encrypts new secrets, such as
	// "projects/p/locations/global/keyRings/r/cryptoKeys/k". The key must be in the location
	// "global" for a global secret, and in the secret's location for a regional secret. If KMSKey
	// is empty, Google manages the key.
	KMSKey string

	// Replicas are the locations of new secrets. If Replicas is nil, Google chooses the locations.
	// Otherwise Replicas must not be empty, and Options.KMSKey must be empty. Replicas must be nil
	// for regional secrets, because parent contains the location of these secrets.
	Replicas []Replica

	// Labels holds up to 24 labels that every save of a record adds to the secret, for billing
	// reports and policies. A label must not have the form of a record's label; see "Storage" in
	// the package documentation.
	Labels map[string]string
}

// A Replica is one location of a secret.
type Replica struct {
	Location string // such as "europe-west1"
	KMSKey   string // key in Location, or "" for a key that Google manages; set in all replicas or in none
}

// New returns a store that keeps each record in a secret. parent is the project or the location of
// the secrets, in the form "projects/p" or "projects/p/locations/l". The IDs of the secrets begin
// with prefix and '-'. prefix consists of 1 to 128 ASCII letters, digits, '-' and '_'. Encrypted
// records are bound to parent, so all programs that share a store must pass the same parent. A
// parent with the project's number differs from a parent with the project's ID.
//
// Secrets in a location are regional secrets. For regional secrets, client must use the
// endpoint of the location:
//
//	secretmanager.NewClient(ctx, option.WithEndpoint("secretmanager.europe-west1.rep.googleapis.com:443"))
//
// New does no I/O, and returns an error only if a parameter is invalid. client must not be nil, and
// opts may be nil. The store uses the endpoint, credentials and interceptors of client, and never
// closes client.
func New(client *secretmanager.Client, parent, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, parent, prefix, opts)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, cmp.Or(opts, &Options{}).Store)
}

// NewDriver returns the driver that New passes to tokenstore.New. NewDriver is for decorators and
// tests. The driver implements driver.Sweeper and driver.Inspector. See New for the parameters and
// the error.
func NewDriver(client *secretmanager.Client, parent, prefix string, opts *Options) (driver.Secrets, error) {
	if client == nil {
		return nil, errors.New("gcpsm: the client is nil")
	}
	if !legalParent().MatchString(parent) {
		return nil, fmt.Errorf("gcpsm: parent %q is neither projects/p nor projects/p/locations/l", parent)
	}
	if !legalPrefix().MatchString(prefix) || len(prefix) > maxPrefix {
		return nil, fmt.Errorf("gcpsm: prefix %q is not 1 to %d letters, digits, '-' and '_'", prefix, maxPrefix)
	}
	o, regional := cmp.Or(opts, &Options{}), strings.Contains(parent, "/locations/")
	if err := cmp.Or(o.checkReplicas(regional), o.checkLabels()); err != nil {
		return nil, fmt.Errorf("gcpsm: %w", err)
	}
	return &secrets{
		service: service{client: client, parent: parent, prefix: prefix + "-"},
		labels:  maps.Clone(o.Labels),
		blank:   o.secret(regional),
	}, nil
}

const (
	maxPrefix      = 128
	maxExtraLabels = 24
)

var (
	legalParent = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^projects/[a-z0-9][a-z0-9.:_-]*(/locations/[a-z0-9-]+)?$`)
	})
	// legalPrefix omits the count {1,128}, because package regexp compiles such a count slowly.
	// NewDriver checks the length instead.
	legalPrefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_-]+$`) })
	labelKey    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`) })
	labelValue  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`) })
)

// checkReplicas returns an error if o.Replicas is not valid in combination with o.KMSKey and the
// parent. regional reports whether the parent is a location.
func (o *Options) checkReplicas(regional bool) error {
	switch {
	case o.Replicas == nil:
		return nil
	case regional:
		return errors.New("a regional secret has no Replicas")
	case o.KMSKey != "":
		return errors.New("KMSKey must be empty with Replicas, each of which may have its own")
	case len(o.Replicas) == 0:
		return errors.New("the list of Replicas is empty, but not nil")
	}
	for _, r := range o.Replicas {
		if r.Location == "" || (r.KMSKey == "") != (o.Replicas[0].KMSKey == "") {
			return errors.New("every replica must have a Location, and all of them or none a KMSKey")
		}
	}
	return nil
}

// checkLabels returns an error if o has too many labels, or if Secret Manager would refuse a label.
// checkLabels also returns an error if a label has the form of a record's label.
func (o *Options) checkLabels() error {
	if len(o.Labels) > maxExtraLabels {
		return fmt.Errorf("%d Labels, the limit is %d", len(o.Labels), maxExtraLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
		v := o.Labels[k]
		if !labelKey().MatchString(k) || !labelValue().MatchString(v) || len(k) > 128 || len(v) > 128 {
			return fmt.Errorf("label %q is not a label that Google Cloud accepts", k)
		}
		if ours(k, v) {
			return fmt.Errorf("label %q has the form of those that records are found by", k)
		}
	}
	return nil
}

// secret returns the labels, the replication and the keys that all new secrets have.
func (o *Options) secret(regional bool) *secretmanagerpb.Secret {
	key := func(name string) *secretmanagerpb.CustomerManagedEncryption {
		if name == "" {
			return nil
		}
		return &secretmanagerpb.CustomerManagedEncryption{KmsKeyName: name}
	}
	m := &secretmanagerpb.Secret{Labels: o.Labels}
	switch {
	case regional:
		m.CustomerManagedEncryption = key(o.KMSKey)
	case o.Replicas != nil:
		managed := &secretmanagerpb.Replication_UserManaged{}
		for _, r := range o.Replicas {
			managed.Replicas = append(managed.Replicas, &secretmanagerpb.Replication_UserManaged_Replica{
				Location: r.Location, CustomerManagedEncryption: key(r.KMSKey),
			})
		}
		m.Replication = &secretmanagerpb.Replication{
			Replication: &secretmanagerpb.Replication_UserManaged_{UserManaged: managed},
		}
	default:
		m.Replication = &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{
			Automatic: &secretmanagerpb.Replication_Automatic{CustomerManagedEncryption: key(o.KMSKey)},
		}}
	}
	return m
}

// Permissions returns the permissions that a custom role for the program's service account must
// contain.
func Permissions() []string {
	return []string{
		"secretmanager.secrets.create",
		"secretmanager.secrets.delete",
		"secretmanager.secrets.get",
		"secretmanager.secrets.list",
		"secretmanager.secrets.update",
		"secretmanager.versions.access",
		"secretmanager.versions.add",
		"secretmanager.versions.destroy",
		"secretmanager.versions.get",
	}
}
