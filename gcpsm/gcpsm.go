package gcpsm

import (
	"cmp"
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
	// Empty means a key of Google's.
	KMSKey string

	// Replicas are the locations of new secrets. Nil leaves them to Google. A regional
	// secret has none: its location is that of the parent.
	Replicas []Replica

	// Labels are put on every secret, for billing reports and policies: at most 24.
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
// and interceptors. The package documentation says which calls are repeated after a
// failure. opts may be nil.
func New(client *secretmanager.Client, parent, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, parent, prefix, opts)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, cmp.Or(opts, &Options{}).Store)
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
	o, regional := cmp.Or(opts, &Options{}), strings.Contains(parent, "/locations/")
	if err := cmp.Or(o.checkReplicas(regional), o.checkLabels()); err != nil {
		return nil, fmt.Errorf("gcpsm: %w", err)
	}
	return &secrets{
		service: service{client: client, parent: parent, prefix: prefix + "-"},
		labels:  maps.Clone(o.Labels),
		blank:   o.secret(regional),
		seen:    cache{of: map[string]metadata{}},
	}, nil
}

const maxExtraLabels = 24

var (
	legalParent = regexp.MustCompile(`^projects/[a-z0-9][a-z0-9.:_-]*(/locations/[a-z0-9-]+)?$`)
	legalPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	labelKey    = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValue  = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
)

// checkReplicas reports locations and keys that Secret Manager would refuse.
func (o *Options) checkReplicas(regional bool) error {
	switch {
	case o.Replicas == nil:
		return nil
	case regional:
		return errors.New("a regional secret has no Replicas")
	case o.KMSKey != "":
		return errors.New("with Replicas each has a KMSKey of its own")
	case len(o.Replicas) == 0:
		return errors.New("no Replicas are given")
	}
	for _, r := range o.Replicas {
		if r.Location == "" || (r.KMSKey == "") != (o.Replicas[0].KMSKey == "") {
			return errors.New("a replica has a location, and all have a KMSKey or none")
		}
	}
	return nil
}

// checkLabels reports labels that Secret Manager would refuse, or that a record could be
// found by.
func (o *Options) checkLabels() error {
	if len(o.Labels) > maxExtraLabels {
		return fmt.Errorf("%d Labels, the limit is %d", len(o.Labels), maxExtraLabels)
	}
	for k, v := range o.Labels {
		if !labelKey.MatchString(k) || !labelValue.MatchString(v) || len(k) > 128 || len(v) > 128 {
			return fmt.Errorf("label %q is not what Google Cloud takes", k)
		}
		if ours(k, v) {
			return fmt.Errorf("label %q has the form of those that records are found by", k)
		}
	}
	return nil
}

// secret returns the part that all new secrets have in common.
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
