package k8sstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Options configures a store. A nil *Options is equivalent to the zero value.
type Options struct {
	// Store holds the options that all backends have in common. Nil means the defaults.
	Store *tokenstore.Options

	// Labels and Annotations are added to every Secret that the store writes. The keys must not
	// be in the domain tokenkeep.dev or a subdomain. Neither keys nor values may contain
	// secrets.
	Labels, Annotations map[string]string

	// Owner, if not nil, owns the Secrets that the store creates: Kubernetes deletes these
	// Secrets together with the owner. The owner must be in the namespace of the store. An
	// update of an existing Secret does not change the owner.
	Owner *metav1.OwnerReference
}

// Secrets has the methods that a store needs from the SecretInterface of
// k8s.io/client-go/kubernetes/typed/core/v1. Package k8sstore does not import that package,
// because the import would link all APIs of Kubernetes into every program.
type Secrets interface {
	Create(ctx context.Context, secret *v1.Secret, opts metav1.CreateOptions) (*v1.Secret, error)
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*v1.Secret, error)
	List(ctx context.Context, opts metav1.ListOptions) (*v1.SecretList, error)
	Patch(ctx context.Context, name string, kind types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*v1.Secret, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// A SecretsGetter returns the Secrets of a namespace. The method CoreV1 of a
// *kubernetes.Clientset returns a SecretsGetter.
type SecretsGetter[S Secrets] interface {
	Secrets(namespace string) S
}

// New returns a store that keeps each record in a Secret in the namespace. The names of the
// Secrets begin with prefix and "-". The namespace must be a DNS label, such as "crm-tokens".
// The prefix must be a DNS subdomain of at most 188 characters, such as "oauth-crm".
//
// New does no I/O, and returns an error only if a parameter is invalid. client must not be nil, and
// opts may be nil. The store uses the credentials, rate limit and retries of client.
func New[S Secrets](client SecretsGetter[S], namespace, prefix string, opts *Options) (*tokenstore.Store, error) {
	d, err := NewDriver(client, namespace, prefix, opts)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, cmp.Or(opts, &Options{}).Store)
}

// NewDriver returns the driver that New passes to tokenstore.New. NewDriver is for decorators and
// tests. The driver implements driver.Inspector. See New for the parameters and the error.
func NewDriver[S Secrets](client SecretsGetter[S], namespace, prefix string, opts *Options) (driver.Secrets, error) {
	if client == nil {
		return nil, errors.New("k8sstore: the client is nil")
	}
	if faults := validation.IsDNS1123Label(namespace); len(faults) > 0 {
		return nil, fmt.Errorf("k8sstore: namespace %q: %s", namespace, faults[0])
	}
	if faults := validation.IsDNS1123Subdomain(prefix); len(faults) > 0 {
		return nil, fmt.Errorf("k8sstore: prefix %q: %s", prefix, faults[0])
	}
	if len(prefix) > maxPrefix {
		return nil, fmt.Errorf("k8sstore: prefix %q has more than %d characters", prefix, maxPrefix)
	}
	o := cmp.Or(opts, &Options{})
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("k8sstore: %w", err)
	}
	return &secrets{
		api: client.Secrets(namespace), namespace: namespace, prefix: prefix,
		labels: o.Labels, annotations: o.Annotations, owner: o.Owner.DeepCopy(),
	}, nil
}

// maxPrefix is the maximum number of characters of a prefix. The name of a Secret has at most 253
// characters, including '-' and the name of the record, which follow the prefix.
const maxPrefix = validation.DNS1123SubdomainMaxLength - 65

// check returns an error if o is invalid. The error does not quote the values of labels and
// annotations.
func (o *Options) check() error {
	for _, all := range []map[string]string{o.Labels, o.Annotations} {
		for key := range all {
			if faults := validation.IsQualifiedName(strings.ToLower(key)); len(faults) > 0 {
				return fmt.Errorf("key %q: %s", key, faults[0])
			}
			if domain, _, _ := strings.Cut(key, "/"); domain == "tokenkeep.dev" || strings.HasSuffix(domain, ".tokenkeep.dev") {
				return fmt.Errorf("key %q: the domain tokenkeep.dev is reserved for this package", key)
			}
		}
	}
	for key, value := range o.Labels {
		if faults := validation.IsValidLabelValue(value); len(faults) > 0 {
			return fmt.Errorf("the value of the label %q: %s", key, faults[0])
		}
	}
	if w := o.Owner; w != nil && (w.APIVersion == "" || w.Kind == "" || w.Name == "" || w.UID == "") {
		return errors.New("the owner lacks an API version, a kind, a name or a UID")
	}
	return nil
}

// Policy returns the Role that a store in the given namespace needs, as input for "kubectl apply".
// The parameter name is the name of the Role. Bind the Role to the program's service account. Roles
// cannot match the prefixes of names, so the account can read every Secret in the namespace.
func Policy(namespace, name string) string {
	return strings.NewReplacer("{namespace}", namespace, "{name}", name).Replace(policy)
}

const policy = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  namespace: {namespace}
  name: {name}
rules:
- apiGroups: [""]
  resources: ["secrets"]
  verbs: ["get", "list", "create", "patch", "delete"]
`
