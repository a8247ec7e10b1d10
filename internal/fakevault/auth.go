package fakevault

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// defaultPolicy contains the rules of Vault's built-in policy "default" that clients need
// (docs: concepts/policies, "Default policy").
var defaultPolicy = []rule{
	{path: "auth/token/lookup-self", capabilities: []string{"read"}},
	{path: "auth/token/renew-self", capabilities: []string{"update"}},
	{path: "auth/token/revoke-self", capabilities: []string{"update"}},
}

// A rule is one path of a policy, with its capabilities.
type rule struct {
	path         string
	glob         bool // path is a prefix
	capabilities []string
}

type token struct {
	id        string
	namespace string
	policies  []string
	ttl       time.Duration // the initial TTL; 0 means that the token does not expire
	expires   time.Time
}

func (t *token) dead(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

type role struct {
	secretID string
	policies []string
	ttl      time.Duration
}

// Policy adds a policy to a namespace, or replaces the policy with the same name. text is HCL in
// the form that Vault's documentation uses: paths with a list of capabilities, an optional "*" at
// the end of a path, and comments. For any other syntax, Policy returns an error.
func (s *Server) Policy(namespace, name, text string) error {
	rules, err := parsePolicy(text)
	if err != nil {
		return fmt.Errorf("fakevault: policy %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ns := folder(namespace)
	if s.policies[ns] == nil {
		s.policies[ns] = map[string][]rule{}
	}
	s.policies[ns][name] = rules
	return nil
}

var (
	comment = regexp.MustCompile(`(?m)(#|//).*$`)
	stanza  = regexp.MustCompile(`^\s*path\s+"([^"]*)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}`)
	quoted  = regexp.MustCompile(`^\s*"([a-z]+)"\s*$`)
)

func parsePolicy(text string) ([]rule, error) {
	text = comment.ReplaceAllString(text, "")
	var rules []rule
	for strings.TrimSpace(text) != "" {
		m := stanza.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("not understood: %.40q", strings.TrimSpace(text))
		}
		r := rule{}
		r.path, r.glob = strings.CutSuffix(m[1], "*")
		if strings.ContainsAny(r.path, "*+") {
			return nil, fmt.Errorf("path %q has a wildcard within", m[1])
		}
		for _, c := range strings.Split(strings.TrimSuffix(strings.TrimSpace(m[2]), ","), ",") {
			word := quoted.FindStringSubmatch(c)
			known := []string{"create", "read", "update", "patch", "delete", "list", "sudo", "deny"}
			if word == nil || !slices.Contains(known, word[1]) {
				return nil, fmt.Errorf("path %q has the capability %s", m[1], strings.TrimSpace(c))
			}
			r.capabilities = append(r.capabilities, word[1])
		}
		rules = append(rules, r)
		text = text[len(m[0]):]
	}
	return rules, nil
}

// Token returns a new token with the given policies. The token also has the policy "default",
// unless "-default" is among policies. A token with a ttl of 0 does not expire.
func (s *Server) Token(namespace string, ttl time.Duration, policies ...string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newToken(folder(namespace), ttl, policies).id
}

func (s *Server) newToken(namespace string, ttl time.Duration, policies []string) *token {
	t := &token{id: "hvs." + rand.Text(), namespace: namespace, ttl: ttl}
	if ttl > 0 {
		t.expires = s.Now().Add(ttl)
	}
	t.policies = slices.DeleteFunc(append([]string{"default"}, policies...), func(p string) bool {
		return p == "-default" || p == "default" && slices.Contains(policies, "-default")
	})
	s.tokens[t.id] = t
	return t
}

// Revoke makes a token invalid.
func (s *Server) Revoke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, id)
}

// AppRole adds a role to the auth method "approle" of a namespace. The tokens of the role are like
// the tokens that Token returns.
func (s *Server) AppRole(namespace, roleID, secretID string, ttl time.Duration, policies ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[folder(namespace)+roleID] = &role{secretID: secretID, policies: policies, ttl: ttl}
}

// login implements the AppRole login (core:
// builtin/credential/approle/path_login.go).
func (s *Server) login(q *Request) *answer {
	if q.Operation != "write" {
		return failure(http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n")
	}
	var in struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}
	if err := json.Unmarshal(q.Body, &in); err != nil {
		return failure(http.StatusBadRequest, "error parsing JSON")
	}
	r := s.roles[q.Namespace+in.RoleID]
	switch {
	case in.RoleID == "":
		return failure(http.StatusBadRequest, "missing role_id")
	case in.SecretID == "":
		return failure(http.StatusBadRequest, "missing secret_id")
	case r == nil || r.secretID != in.SecretID:
		return failure(http.StatusBadRequest, "invalid role or secret ID")
	}
	return &answer{auth: s.newToken(q.Namespace, r.ttl, r.policies).auth()}
}

func (t *token) auth() map[string]any {
	return map[string]any{
		"client_token": t.id, "accessor": rand.Text(), "policies": t.policies, "token_policies": t.policies,
		"metadata": map[string]any{}, "lease_duration": int(t.ttl / time.Second), "renewable": t.ttl > 0,
		"entity_id": "", "token_type": "service", "orphan": true,
	}
}

// self implements the operations of a token on itself (docs:
// api-docs/auth/token).
func (s *Server) self(t *token, q *Request) *answer {
	switch q.Operation + " " + q.Path {
	case "read auth/token/lookup-self":
		data := map[string]any{
			"id": t.id, "policies": t.policies, "creation_ttl": int(t.ttl / time.Second), "ttl": 0, "expire_time": nil,
			"renewable": t.ttl > 0, "display_name": "token", "path": "auth/token/create", "type": "service", "orphan": true,
		}
		if !t.expires.IsZero() {
			data["ttl"], data["expire_time"] = int(t.expires.Sub(s.Now())/time.Second), stamp(t.expires)
		}
		return &answer{data: data}
	case "write auth/token/renew-self":
		if t.expires.IsZero() {
			return failure(http.StatusBadRequest, "lease is not renewable")
		}
		t.expires = s.Now().Add(t.ttl)
		return &answer{auth: t.auth()}
	case "write auth/token/revoke-self":
		delete(s.tokens, t.id)
		return &answer{}
	}
	return failure(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", q.Path))
}

// allowed reports whether the token's policies allow the request (core:
// vault/acl.go). A write counts as a create if the path does not exist yet (core:
// vault/request_handling.go, checkToken: the engine's existence check).
func (s *Server) allowed(t *token, q *Request, m *mount, rest string) bool {
	if slices.Contains(t.policies, "root") {
		return true
	}
	need := q.Operation
	if need == "write" {
		need = "update"
		class, path, _ := strings.Cut(rest, "/")
		switch {
		case m == nil:
		case m.config.KV1 && m.keys[rest] == nil, !m.config.KV1 && (class == "data" || class == "metadata") && m.keys[path] == nil:
			need = "create"
		}
	}
	path, ok := strings.CutPrefix(q.Namespace+q.Path, t.namespace)
	if !ok {
		return false
	}
	capabilities := s.capabilities(t, path, need == "list")
	return slices.Contains(capabilities, need) && !slices.Contains(capabilities, "deny")
}

// capabilities returns the capabilities that the policies of t grant on a path. A rule for
// exactly that path takes precedence over the rule with the longest matching prefix. The
// capabilities of rules with the same path add up. For a list, a rule may omit the final
// "/" of the path.
func (s *Server) capabilities(t *token, path string, list bool) []string {
	exact, globs := map[string][]string{}, map[string][]string{}
	for _, r := range s.rules(t) {
		if r.glob {
			globs[r.path] = append(globs[r.path], r.capabilities...)
		} else {
			exact[r.path] = append(exact[r.path], r.capabilities...)
		}
	}
	paths := []string{path}
	if list {
		paths = append(paths, strings.TrimSuffix(path, "/"))
	}
	for _, p := range paths {
		if c, ok := exact[p]; ok {
			return c
		}
	}
	slices.Reverse(paths)
	for _, p := range paths {
		for end := len(p); end >= 0; end-- {
			if c, ok := globs[p[:end]]; ok {
				return c
			}
		}
	}
	return nil
}

// anyRule reports whether a policy of t has a rule for a path that begins with path. The policy
// "root" has rules for all paths.
func (s *Server) anyRule(t *token, path string) bool {
	if slices.Contains(t.policies, "root") {
		return true
	}
	path, ok := strings.CutPrefix(path, t.namespace)
	return ok && slices.ContainsFunc(s.rules(t), func(r rule) bool {
		return strings.HasPrefix(r.path, path) || r.glob && strings.HasPrefix(path, r.path)
	})
}

func (s *Server) rules(t *token) []rule {
	var rules []rule
	for _, p := range t.policies {
		if own, ok := s.policies[t.namespace][p]; ok {
			rules = append(rules, own...)
		} else if p == "default" {
			rules = append(rules, defaultPolicy...)
		}
	}
	return rules
}
