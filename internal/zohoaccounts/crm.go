package zohoaccounts

import (
	"net/http"
	"slices"
	"strings"
)

func (s *Server) api(r *Request) response {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a := s.alive(token)
	if scheme != "Zoho-oauthtoken" && scheme != "Bearer" || a == nil || !s.belongs(a.family.consent, r.Host) {
		return apiError(http.StatusUnauthorized, "INVALID_TOKEN", "invalid oauth token")
	}
	c := a.family.consent
	switch {
	case r.Method == http.MethodGet && r.Path == "/crm/v8/users" && r.Query.Get("type") == "CurrentUser":
		if !c.allows("ZohoCRM.users.READ") {
			return scopeMismatch()
		}
		return success(map[string]any{"users": []any{map[string]any{"email": c.Email, "status": "active"}}})
	case r.Method == http.MethodGet && r.Path == "/crm/v8/org":
		if !c.allows("ZohoCRM.org.READ") {
			return scopeMismatch()
		}
		return success(map[string]any{"org": []any{map[string]any{"zgid": c.ZGID, "company_name": "Example"}}})
	}
	return success(map[string]any{"data": []any{}, "received": len(r.Body)})
}

// belongs reports whether an API host serves the data center and the environment of c. A host that
// is not Zoho's serves all environments.
func (s *Server) belongs(c Consent, host string) bool {
	client := s.clients[c.ClientID]
	if client.DataCenter != s.dataCenter(host) {
		return false
	}
	_, known := topLevel(host)
	return !known || environment(host) == c.Environment
}

func (c Consent) allows(scope string) bool {
	return c.Scopes == nil || slices.Contains(c.Scopes, scope)
}

func scopeMismatch() response {
	return apiError(http.StatusUnauthorized, "OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL")
}

func apiError(status int, code, message string) response {
	res := success(map[string]any{"code": code, "details": map[string]any{}, "message": message, "status": "error"})
	res.status, res.code = status, code
	return res
}

// topLevel returns the top-level domain of host, and reports whether host is one of Zoho's hosts.
// Zoho's hosts are accounts.zoho.<top level>, accounts.zohocloud.ca in Canada, and
// <environment>.zohoapis.<top level>.
func topLevel(host string) (string, bool) {
	for _, domain := range []string{"accounts.zohocloud.", "accounts.zoho.", "www.zohoapis.", "sandbox.zohoapis.", "developer.zohoapis."} {
		if top, ok := strings.CutPrefix(host, domain); ok {
			return top, true
		}
	}
	return "", false
}

func (s *Server) dataCenter(host string) string {
	top, ok := topLevel(host)
	if !ok {
		return s.o.DataCenter
	}
	switch top {
	case "com":
		return "us"
	case "com.cn":
		return "cn"
	case "com.au":
		return "au"
	}
	return top
}

// environment returns the environment that an API host serves, in the form of
// Consent.Environment.
func environment(host string) string {
	name, _, _ := strings.Cut(host, ".")
	if name == "www" {
		return ""
	}
	return name
}

// apiDomain returns the base URL of the API that the accounts server on host states in
// responses.
func apiDomain(host, env string) string {
	top, ok := topLevel(host)
	if !ok {
		return "http://" + host
	}
	or(&env, "www")
	return "https://" + env + ".zohoapis." + top
}
