package gcpsm

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Options configures a store. The zero value, and a nil *Options, are good
// defaults: replication and keys are Google's business.
type Options struct {
	// Store configures what is the same on every backend. Nil means its
	// defaults.
	Store *tokenstore.Options

	// KMSKey is the customer-managed key that new secrets are encrypted with,
	// "projects/…/locations/…/keyRings/…/cryptoKeys/…": of the location
	// "global" for a global secret, and of the secret's own for a regional one.
	// "" means a key of Google's.
	KMSKey string

	// Replicas are where new secrets are kept. Nil means wherever Google puts
	// them. A regional secret is where its parent says, and has none.
	Replicas []Replica

	// Labels are put on every secret besides what it is found by, for billing
	// reports and policies: at most 24 of them.
	Labels map[string]string
}

// A Replica is one location of a secret.
type Replica struct {
	Location string // "europe-west1"
	KMSKey   string // of that location; "": Google's. All replicas have one, or none
}

// New returns a store whose records are secrets of parent, "projects/p" or
// "projects/p/locations/l", with IDs that begin with prefix: 1 to 128 letters,
// digits, '-' and '_'. Programs that share a store write parent in one way, by the
// project's ID or by its number: encrypted records are bound to it.
//
// Secrets of a location are regional secrets. The client has to have that
// location's endpoint:
//
//	secretmanager.NewClient(ctx, option.WithEndpoint("secretmanager.europe-west1.rep.googleapis.com:443"))
//
// New does no I/O. The client stays the caller's, with its endpoint, credentials
// and interceptors; what is repeated after a failure, and when, is said in the
// package documentation. opts may be nil.
func New(client *secretmanager.Client, parent, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, parent, prefix, opts)
	if err != nil {
		return nil, err
	}
	var portable *tokenstore.Options
	if opts != nil {
		portable = opts.Store
	}
	return tokenstore.New(d, portable)
}

// NewDriver returns the driver that New uses, for decorators and tests. It is a
// driver.Leaser. See New.
func NewDriver(client *secretmanager.Client, parent, prefix string, opts *Options) (driver.Secrets, error) {
	if client == nil {
		return nil, errors.New("gcpsm: the client is nil")
	}
	if !legalParent.MatchString(parent) {
		return nil, fmt.Errorf("gcpsm: parent %q is neither projects/p nor projects/p/locations/l", parent)
	}
	if !legalPrefix.MatchString(prefix) {
		return nil, fmt.Errorf("gcpsm: prefix %q is not 1 to 128 letters, digits, '-' and '_'", prefix)
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if err := o.check(strings.Contains(parent, "/locations/")); err != nil {
		return nil, err
	}
	return &secrets{
		service: service{client: client, parent: parent, prefix: prefix + "-"},
		labels:  maps.Clone(o.Labels),
		blank:   o.secret(strings.Contains(parent, "/locations/")),
		seen:    sightings{of: map[string]metadata{}},
	}, nil
}

const maxExtraLabels = 24

var (
	legalParent = regexp.MustCompile(`^projects/[a-z0-9][a-z0-9.:_-]*(/locations/[a-z0-9-]+)?$`)
	legalPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	legalName   = regexp.MustCompile(`^[a-z0-9]{1,64}$`)
	labelKey    = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValue  = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
)

// check reports what Secret Manager would refuse.
func (o *Options) check(regional bool) error {
	switch {
	case regional && o.Replicas != nil:
		return errors.New("gcpsm: a regional secret has no Replicas")
	case o.Replicas != nil && o.KMSKey != "":
		return errors.New("gcpsm: with Replicas each has a KMSKey of its own")
	case o.Replicas != nil && len(o.Replicas) == 0:
		return errors.New("gcpsm: Replicas is empty")
	case len(o.Labels) > maxExtraLabels:
		return fmt.Errorf("gcpsm: %d Labels, the limit is %d", len(o.Labels), maxExtraLabels)
	}
	for _, r := range o.Replicas {
		if r.Location == "" || (r.KMSKey == "") != (o.Replicas[0].KMSKey == "") {
			return errors.New("gcpsm: a replica has a location, and all have a KMSKey or none")
		}
	}
	for k, v := range o.Labels {
		if !labelKey.MatchString(k) || !labelValue.MatchString(v) || len(k) > 128 || len(v) > 128 {
			return fmt.Errorf("gcpsm: label %q is not what Google Cloud takes", k)
		}
		if ours(k, v) {
			return fmt.Errorf("gcpsm: label %q has the form of those that records are found by", k)
		}
	}
	return nil
}

// secret returns what all new secrets have in common.
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

// Permissions returns the permissions that the program's service account needs,
// for a custom role.
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
