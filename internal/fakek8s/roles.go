package fakek8s

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// An identity is the owner of a token.
type identity struct {
	name  string
	all   bool // has all permissions
	roles []rbac.Role
}

// Account adds a service account without permissions. token is the credential of the account.
func (s *Server) Account(token, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = &identity{name: "system:serviceaccount:" + namespace + ":" + name}
}

// Revoke invalidates a token.
func (s *Server) Revoke(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

// Bind grants the permissions of a Role to a token. document is the Role in YAML. Bind returns an
// error if document is not a Role, and panics if the token does not exist.
func (s *Server) Bind(token, document string) error {
	var role rbac.Role
	if err := yaml.UnmarshalStrict([]byte(document), &role); err != nil {
		return fmt.Errorf("fakek8s: role: %w", err)
	}
	if role.APIVersion != rbac.SchemeGroupVersion.String() || role.Kind != "Role" || role.Namespace == "" || role.Name == "" {
		return errors.New("fakek8s: this is not a Role of a namespace")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token].roles = append(s.tokens[token].roles, role)
	return nil
}

// authorize returns an error for an unknown token or a missing permission. handle calls
// authorize first, so that the response does not reveal which objects exist (docs:
// concepts/security/controlling-access).
func (s *Server) authorize(q *Request) error {
	token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	who := s.tokens[token]
	if who == nil {
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnauthorized, Reason: metav1.StatusReasonUnauthorized, Message: "Unauthorized",
		}}
	}
	if who.all || slices.ContainsFunc(who.roles, func(r rbac.Role) bool { return r.Namespace == q.Namespace && allows(r.Rules, q) }) {
		return nil
	}
	// apiserver: pkg/endpoints/handlers/responsewriters/errors.go
	//nolint:staticcheck // The text is that of kube-apiserver.
	return apierrors.NewForbidden(secrets, q.Name, fmt.Errorf("User %q cannot %s resource %q in API group %q in the namespace %q",
		who.name, q.Verb, secrets.Resource, secrets.Group, q.Namespace))
}

// allows reports whether one of the rules allows a request. A rule with resource names
// does not allow a list or a creation (docs: reference/access-authn-authz/rbac,
// "Referring to resources").
func allows(rules []rbac.PolicyRule, q *Request) bool {
	has := func(all []string, one string) bool { return slices.Contains(all, one) || slices.Contains(all, "*") }
	return slices.ContainsFunc(rules, func(r rbac.PolicyRule) bool {
		return has(r.APIGroups, secrets.Group) && has(r.Resources, secrets.Resource) && has(r.Verbs, q.Verb) &&
			(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, q.Name))
	})
}
