package fakegcp

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxPayload     = 64 << 10 // bytes (proto: SecretPayload.data)
	maxLabels      = 64       // proto: Secret.labels
	maxAliases     = 50       // proto: Secret.version_aliases
	maxAnnotations = 16 << 10 // all keys and values together have fewer bytes (proto: Secret.annotations)
	maxBytes       = 128      // bytes in a label key, a label value or an annotation key
	maxPage        = 25000    // proto: ListSecretsRequest.page_size; a larger size counts as maxPage
)

var (
	parentName = regexp.MustCompile(`^projects/[a-z0-9.:_-]+(/locations/[a-z0-9-]+)?$`)
	secretName = regexp.MustCompile(`^projects/[a-z0-9.:_-]+(/locations/[a-z0-9-]+)?/secrets/[A-Za-z0-9_-]{1,255}$`)
	// proto: CreateSecretRequest.secret_id
	secretID      = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	labelKey      = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`)
	labelValue    = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`)
	annotationKey = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	aliasName     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,62}$`)
	versionNumber = regexp.MustCompile(`^[1-9][0-9]*$`)
)

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func regional(name string) bool { return strings.Contains(name, "/locations/") }

// checkSecret returns an error if the labels, annotations or version aliases of m are not
// valid. versions is the number of versions of the secret.
func checkSecret(m *secretmanagerpb.Secret, versions int64) error {
	if len(m.GetLabels()) > maxLabels {
		return invalid("a secret can have at most %d labels", maxLabels)
	}
	for k, v := range m.GetLabels() {
		if !labelKey.MatchString(k) || len(k) > maxBytes {
			return invalid("the label key %q is not valid", k)
		}
		if !labelValue.MatchString(v) || len(v) > maxBytes {
			return invalid("the label value %q is not valid", v)
		}
	}
	size := 0
	for k, v := range m.GetAnnotations() {
		if !annotationKey.MatchString(k) || len(k) > maxBytes {
			return invalid("the annotation key %q is not valid", k)
		}
		if !utf8.ValidString(v) {
			return invalid("the annotation %q is not valid UTF-8", k)
		}
		size += len(k) + len(v)
	}
	if size >= maxAnnotations {
		return invalid("annotations have %d bytes, the limit is %d", size, maxAnnotations)
	}
	if len(m.GetVersionAliases()) > maxAliases {
		return invalid("a secret can have at most %d aliases", maxAliases)
	}
	for a, n := range m.GetVersionAliases() {
		if !aliasName.MatchString(a) || a == "latest" || a == "NEW" {
			return invalid("the alias %q is not valid", a)
		}
		if n < 1 || n > versions { // inferred
			return invalid("the alias %q is of version %d, which does not exist", a, n)
		}
	}
	return nil
}

// checkReplication returns an error if the replication policy or the keys of a new secret are
// invalid. A regional secret must not have a replication policy, because its name contains the
// location. A global secret requires a replication policy (docs:
// creating-and-accessing-secrets, regional-secrets/create-regional-secret).
func checkReplication(name string, m *secretmanagerpb.Secret) error {
	r := m.GetReplication()
	switch {
	case regional(name) && r != nil:
		return invalid("a regional secret has no replication policy")
	case regional(name):
		return nil
	case m.GetCustomerManagedEncryption() != nil:
		return invalid("customer_managed_encryption is for regional secrets")
	case r.GetAutomatic() == nil && r.GetUserManaged() == nil:
		return invalid("replication is required")
	case r.GetUserManaged() != nil && len(r.GetUserManaged().GetReplicas()) == 0:
		return invalid("user-managed replication has at least one replica")
	}
	keys := 0
	replicas := r.GetUserManaged().GetReplicas()
	for _, p := range replicas {
		if p.GetLocation() == "" {
			return invalid("a replica has a location")
		}
		if p.GetCustomerManagedEncryption() != nil {
			keys++
		}
	}
	if keys != 0 && keys != len(replicas) { // docs: cmek
		return invalid("either all replicas have a key or none")
	}
	return nil
}
