package fakevault_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// A step is one request and the expected response of Vault.
type step struct {
	method, path, body string
	status             int
	want               []string // parts of the response
	not                []string // texts that must not be in the response
}

// A node is a server with the token, namespace and headers of the requests to it.
type node struct {
	t         testing.TB
	server    *fakevault.Server
	token     string
	namespace string
	headers   http.Header
}

func newNode(t testing.TB, opts *fakevault.Options) *node {
	s := fakevault.New(opts)
	t.Cleanup(s.Close)
	return &node{t: t, server: s, token: fakevault.RootToken, headers: http.Header{}}
}

// send sends one request. If the server closes the connection, send returns an error.
func (n *node) send(method, path, body string) (status int, answer string, err error) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.server.URL+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header = n.headers.Clone()
	r.Header.Set("X-Vault-Token", n.token)
	if n.namespace != "" {
		r.Header.Set("X-Vault-Namespace", n.namespace)
	}
	if method == http.MethodPatch && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (n *node) run(steps ...step) {
	n.t.Helper()
	for i, s := range steps {
		status, answer, err := n.send(s.method, s.path, s.body)
		if err != nil || status != s.status {
			n.t.Fatalf("step %d, %s %s: status %d and error %v, want status %d; answer %s", i, s.method, s.path, status, err, s.status, answer)
		}
		for _, want := range s.want {
			if !strings.Contains(answer, want) {
				n.t.Errorf("step %d, %s %s: the answer has no %s: %s", i, s.method, s.path, want, answer)
			}
		}
		for _, not := range s.not {
			if strings.Contains(answer, not) {
				n.t.Errorf("step %d, %s %s: the answer has %s: %s", i, s.method, s.path, not, answer)
			}
		}
	}
}

const mismatch = "check-and-set parameter did not match the current version"

// facts lists behavior that Vault 1.21.4 has. Each list of steps runs on a separate server.
var facts = map[string][]step{
	"a write answers with the version and its time": {
		{"PUT", "secret/data/a", `{"data":{"x":"1"}}`, 200, []string{`"version":1`, `"created_time":"2`, `"custom_metadata":null`}, nil},
		{"POST", "secret/data/a", `{"data":{"x":"2"}}`, 200, []string{`"version":2`, `"deletion_time":""`, `"destroyed":false`}, nil},
		{"GET", "secret/data/a", "", 200, []string{`"data":{"x":"2"}`, `"version":2`}, nil},
		{"GET", "secret/data/a?version=1", "", 200, []string{`"data":{"x":"1"}`, `"version":1`}, nil},
		{"GET", "secret/data/a?version=7", "", 404, []string{`{"errors":[]}`}, nil},
	},
	"cas 0 creates and any other number must be the version": {
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":1}}`, 400, []string{mismatch}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":0}}`, 200, []string{`"version":1`}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":0}}`, 400, []string{mismatch}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":"1"}}`, 200, []string{`"version":2`}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":-1}}`, 400, []string{mismatch}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":"x"}}`, 400, []string{"error parsing check-and-set parameter"}, nil},
		{"PUT", "secret/data/a", `{"data":{}}`, 200, []string{`"version":3`}, nil},
		{"PUT", "secret/data/a", `{"options":{"cas":3}}`, 400, []string{"no data provided"}, nil},
	},
	"cas may be required by the mount or the secret": {
		{"POST", "secret/metadata/a", `{"cas_required":true}`, 204, nil, nil},
		{"PUT", "secret/data/a", `{"data":{}}`, 400, []string{"check-and-set parameter required for this call"}, nil},
		{"POST", "secret/config", `{"cas_required":true}`, 204, nil, nil},
		{"PUT", "secret/data/b", `{"data":{}}`, 400, []string{"check-and-set parameter required for this call"}, nil},
		{"PUT", "secret/data/b", `{"data":{},"options":{"cas":0}}`, 200, nil, nil},
	},
	"a patch merges, honors cas, and needs a live version": {
		{"PATCH", "secret/data/a", `{"data":{"x":"1"}}`, 404, []string{`"errors":[]`}, nil},
		{"PUT", "secret/data/a", `{"data":{"x":"1","y":{"z":"2","q":"3"}}}`, 200, nil, nil},
		{"PATCH", "secret/data/a", `{"data":{"x":null,"y":{"z":"4"}},"options":{"cas":1}}`, 200, []string{`"version":2`}, nil},
		{"PATCH", "secret/data/a", `{"data":{"x":"5"},"options":{"cas":1}}`, 400, []string{mismatch}, nil},
		{"GET", "secret/data/a", "", 200, []string{`"y":{"q":"3","z":"4"}`}, []string{`"x"`}},
		{"PATCH", "secret/data/a", `{}`, 400, []string{"no data provided"}, nil},
		{"DELETE", "secret/data/a", "", 204, nil, nil},
		{"PATCH", "secret/data/a", `{"data":{"x":"5"}}`, 404, []string{`"version":2`}, nil},
	},
	"a secret may have metadata only": {
		{"POST", "secret/metadata/f/a", `{"custom_metadata":{"name":"n"}}`, 204, nil, nil},
		{"GET", "secret/metadata/f/a", "", 200, []string{`"current_version":0`, `"versions":{}`, `"custom_metadata":{"name":"n"}`}, nil},
		{"LIST", "secret/metadata/f", "", 200, []string{`"keys":["a"]`}, nil},
		{"GET", "secret/data/f/a", "", 404, []string{`"errors":[]`}, nil},
		{"PATCH", "secret/data/f/a", `{"data":{}}`, 404, []string{`"errors":[]`}, nil},
		{"PUT", "secret/data/f/a", `{"data":{},"options":{"cas":0}}`, 200, []string{`"version":1`, `"custom_metadata":{"name":"n"}`}, nil},
	},
	"metadata has no cas, and what is unknown is ignored": {
		{"POST", "secret/metadata/a", `{"custom_metadata":{"x":"1"},"options":{"cas":9},"cas":9}`, 204, nil, nil},
		{"PATCH", "secret/metadata/a", `{"custom_metadata":{"y":"2"},"options":{"cas":9}}`, 204, nil, nil},
		{"GET", "secret/metadata/a", "", 200, []string{`{"x":"1","y":"2"}`}, nil},
		{"POST", "secret/metadata/b", `{"unknown":1}`, 204, nil, nil},
		{"GET", "secret/metadata/b", "", 404, nil, nil},
		{"PUT", "secret/data/a", `{"data":{},"unknown":1}`, 200, []string{"Endpoint ignored these unrecognized parameters: [unknown]"}, nil},
	},
	"a write of metadata replaces the map, and keeps it if it has none": {
		{"POST", "secret/metadata/a", `{"custom_metadata":{"x":"1"}}`, 204, nil, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"y":"2"}}`, 204, nil, nil},
		{"POST", "secret/metadata/a", `{"max_versions":3}`, 204, nil, nil},
		{"GET", "secret/metadata/a", "", 200, []string{`{"y":"2"}`, `"max_versions":3`}, []string{`"x"`}},
	},
	"a patch of metadata merges, and null removes": {
		{"PATCH", "secret/metadata/a", `{"custom_metadata":{"x":"1"}}`, 404, []string{`"errors":[]`}, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"x":"1","y":"2"}}`, 204, nil, nil},
		{"PATCH", "secret/metadata/a", `{"custom_metadata":{"x":null,"z":3}}`, 204, nil, nil},
		{"GET", "secret/metadata/a", "", 200, []string{`{"y":"2","z":"3"}`}, nil},
	},
	"custom metadata has limits": {
		{"POST", "secret/metadata/a", `{"custom_metadata":` + keys(64) + `}`, 204, nil, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":` + keys(65) + `}`, 400, []string{"at most 64 keys, provided 65"}, nil},
		{"PATCH", "secret/metadata/a", `{"custom_metadata":{"another":"v"}}`, 204, nil, nil}, // only the patch is checked
		{"POST", "secret/metadata/a", `{"custom_metadata":{"` + strings.Repeat("k", 128) + `":"` + strings.Repeat("v", 512) + `"}}`, 204, nil, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"` + strings.Repeat("k", 129) + `":"v"}}`, 400, []string{"length of key"}, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"k":"` + strings.Repeat("v", 513) + `"}}`, 400, []string{"length of value"}, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"k":""}}`, 400, []string{"length of value"}, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"k":"a\nb"}}`, 400, []string{"unprintable"}, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"k":"Grüße"}}`, 204, nil, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"k":7}}`, 204, nil, nil},
		{"GET", "secret/metadata/a", "", 200, []string{`{"k":"7"}`}, nil},
		{"POST", "secret/metadata/a", `{"custom_metadata":{"k":{}}}`, 400, []string{"custom_metadata validation failed"}, nil},
	},
	"a soft delete keeps the counter and answers 404 with a body": {
		{"PUT", "secret/data/a", `{"data":{"x":"1"}}`, 200, nil, nil},
		{"DELETE", "secret/data/a", "", 204, nil, nil},
		{"DELETE", "secret/data/a", "", 204, nil, nil},
		{"GET", "secret/data/a", "", 404, []string{`"version":1`, `"deletion_time":"2`, `"data":null`}, []string{"errors"}},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":0}}`, 400, []string{mismatch}, nil},
		{"PUT", "secret/undelete/a", `{"versions":[1]}`, 204, nil, nil},
		{"GET", "secret/data/a", "", 200, []string{`"x":"1"`}, nil},
		{"PUT", "secret/delete/a", `{"versions":[1]}`, 204, nil, nil},
		{"GET", "secret/data/a", "", 404, []string{`"version":1`}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":1}}`, 200, []string{`"version":2`}, nil},
	},
	"destroying keeps the counter and cannot be undone": {
		{"PUT", "secret/data/a", `{"data":{"x":"1"}}`, 200, nil, nil},
		{"PUT", "secret/data/a", `{"data":{"x":"2"}}`, 200, nil, nil},
		{"PUT", "secret/destroy/a", `{"versions":[1,2,9]}`, 204, nil, nil},
		{"PUT", "secret/undelete/a", `{"versions":[1,2]}`, 204, nil, nil},
		{"GET", "secret/data/a", "", 404, []string{`"version":2`, `"destroyed":true`}, nil},
		{"GET", "secret/data/a?version=1", "", 404, []string{`"destroyed":true`}, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":2}}`, 200, []string{`"version":3`}, nil},
		{"PUT", "secret/destroy/a", `{"versions":[]}`, 400, []string{"no version number provided"}, nil},
		{"PUT", "secret/destroy/nothing", `{"versions":[1]}`, 204, nil, nil},
		{"POST", "secret/destroy/a", `{"versions":"3"}`, 204, nil, nil},
		{"GET", "secret/data/a", "", 404, nil, nil},
	},
	"deleting the metadata begins again at 1": {
		{"DELETE", "secret/metadata/a", "", 204, nil, nil},
		{"PUT", "secret/data/a", `{"data":{}}`, 200, nil, nil},
		{"PUT", "secret/data/a", `{"data":{}}`, 200, []string{`"version":2`}, nil},
		{"DELETE", "secret/metadata/a", "", 204, nil, nil},
		{"GET", "secret/data/a", "", 404, []string{`{"errors":[]}`}, nil},
		{"GET", "secret/metadata/a", "", 404, nil, nil},
		{"PUT", "secret/data/a", `{"data":{},"options":{"cas":0}}`, 200, []string{`"version":1`}, nil},
	},
	"a list has names and folders, which may be the same, and is 404 if empty": {
		{"LIST", "secret/metadata/f/", "", 404, []string{`"errors":[]`}, nil},
		{"PUT", "secret/data/f/a", `{"data":{}}`, 200, nil, nil},
		{"PUT", "secret/data/f/a/b", `{"data":{}}`, 200, nil, nil},
		{"LIST", "secret/metadata/f", "", 200, []string{`"keys":["a","a/"]`}, nil},
		{"GET", "secret/metadata/f?list=true", "", 200, []string{`"keys":["a","a/"]`}, nil},
		{"GET", "secret/metadata/f/a/?list=1", "", 200, []string{`"keys":["b"]`}, nil},
		{"LIST", "secret/metadata", "", 200, []string{`"keys":["f/"]`}, nil},
		{"DELETE", "secret/metadata/f/a", "", 204, nil, nil},
		{"LIST", "secret/metadata/f", "", 200, []string{`"keys":["a/"]`}, nil},
	},
	"a version can delete itself": {
		{"POST", "secret/metadata/a", `{"delete_version_after":"10m"}`, 204, nil, nil},
		{"PUT", "secret/data/a", `{"data":{"x":"1"}}`, 200, []string{`"deletion_time":"2`}, nil},
		{"GET", "secret/data/a", "", 200, []string{`"x":"1"`, `"deletion_time":"2`}, nil},
		{"POST", "secret/config", `{"delete_version_after":"1h"}`, 204, nil, nil},
		{"GET", "secret/config", "", 200, []string{`"delete_version_after":"1h0m0s"`}, nil},
		{"PUT", "secret/data/b", `{"data":{}}`, 200, []string{`"deletion_time":"2`}, nil},
	},
	"paths that are none": {
		{"PATCH", "secret/data/a/", `{"data":{}}`, 400, []string{"cannot write to a path ending in '/'"}, nil},
		{"PUT", "secret/data/a/", `{"data":{}}`, 400, []string{"cannot write to a path ending in '/'"}, nil},
		{"GET", "secret/a", "", 404, []string{"Invalid path for a versioned K/V secrets engine"}, nil},
		{"GET", "secret/data", "", 404, []string{"Non-listing operations on the root"}, nil},
		{"GET", "other/data/a", "", 404, []string{"no handler for route"}, nil},
		{"PUT", "secret/data/a", `{"data":`, 400, nil, nil},
	},
}

// keys returns custom metadata with n keys, as a JSON object.
func keys(n int) string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("k%d", i)] = "v"
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func TestKVAnswersAsVaultDoes(t *testing.T) {
	t.Parallel()
	for name, steps := range facts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newNode(t, nil).run(steps...)
		})
	}
}

func TestOldVersionsAreTrimmed(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	write := func(path string, times int) {
		for range times {
			n.run(step{"PUT", path, `{"data":{}}`, 200, nil, nil})
		}
	}
	write("secret/data/a", 12)
	n.run(
		step{"GET", "secret/data/a?version=2", "", 404, nil, nil},
		step{"GET", "secret/data/a?version=3", "", 200, nil, nil},
		step{"GET", "secret/metadata/a", "", 200, []string{`"oldest_version":3`, `"current_version":12`}, nil},
		step{"POST", "secret/metadata/a", `{"max_versions":2}`, 204, nil, nil},
	)
	write("secret/data/a", 1)
	n.run(
		step{"GET", "secret/data/a?version=11", "", 404, nil, nil},
		step{"GET", "secret/data/a?version=12", "", 200, nil, nil},
		step{"POST", "secret/config", `{"max_versions":4}`, 204, nil, nil},
	)
	write("secret/data/b", 5) // the mount's max_versions applies, because the secret has none
	n.run(
		step{"GET", "secret/data/b?version=1", "", 404, nil, nil},
		step{"GET", "secret/data/b?version=2", "", 200, nil, nil},
	)
}

func TestPatchNeedsItsContentType(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.headers.Set("Content-Type", "application/json")
	n.run(step{"PATCH", "secret/data/a", `{"data":{}}`, 415, []string{"application/merge-patch+json"}, nil})
}

func TestTokensAndPoliciesDecide(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	if err := n.server.Policy("", "app", `
		# comment
		path "secret/data/app/*" { capabilities = ["create", "read"] }
		path "secret/metadata/app/*" {
			capabilities = ["list"] // comment
		}
		path "secret/data/app/no" { capabilities = ["deny"] }
		path "secret/data/app/yes" { capabilities = ["update", "read"] }`); err != nil {
		t.Fatal(err)
	}
	n.token = n.server.Token("", time.Minute, "app")
	const denied = "permission denied"
	n.run(
		step{"PUT", "secret/data/app/a", `{"data":{}}`, 200, nil, nil},
		step{"PUT", "secret/data/app/a", `{"data":{}}`, 403, []string{denied}, []string{"invalid token"}}, // an update, not a create
		step{"GET", "secret/data/app/a", "", 200, nil, nil},
		step{"GET", "secret/data/apple", "", 403, []string{denied}, nil},
		step{"DELETE", "secret/data/app/a", "", 403, []string{denied}, nil},
		step{"PATCH", "secret/data/app/a", `{"data":{}}`, 403, []string{denied}, nil},
		step{"LIST", "secret/metadata/app", "", 200, nil, nil},
		step{"LIST", "secret/metadata", "", 403, []string{denied}, nil},
		step{"GET", "secret/metadata/app/a", "", 403, []string{denied}, nil},
		step{"GET", "secret/data/app/no", "", 403, []string{denied}, nil},
		step{"PUT", "secret/data/app/yes", `{"data":{}}`, 403, []string{denied}, nil}, // a create, not an update
		step{"GET", "other/data/a", "", 403, []string{denied}, nil},
		step{"GET", "auth/token/lookup-self", "", 200, []string{`"policies":["default","app"]`, `"ttl":`}, nil},
		step{"GET", "sys/internal/ui/mounts/secret/app", "", 200, []string{`"type":"kv"`, `"version":"2"`}, nil},
		step{"GET", "sys/internal/ui/mounts/other", "", 403, []string{"preflight capability check"}, nil},
	)
	n.server.Advance(time.Minute)
	n.run(
		step{"GET", "secret/data/app/a", "", 403, []string{denied, "invalid token"}, nil},
		step{"GET", "auth/token/lookup-self", "", 403, []string{denied, "invalid token"}, nil},
	)
	n.token = ""
	n.run(step{"GET", "secret/data/app/a", "", 403, []string{denied}, nil})
	n.token = n.server.Token("", 0, "-default")
	n.run(step{"GET", "auth/token/lookup-self", "", 403, []string{denied}, []string{"invalid token"}})
	for _, bad := range []string{
		`path "a" { capabilities = ["fly"] }`, `path "a/+/b" { capabilities = ["read"] }`, `path "a" { policy = "read" }`, `{`,
	} {
		if n.server.Policy("", "bad", bad) == nil {
			t.Errorf("the policy %s is understood", bad)
		}
	}
}

func TestTokensRenewAndRevokeThemselves(t *testing.T) {
	t.Parallel()
	clock := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	n := newNode(t, &fakevault.Options{Now: func() time.Time { return clock }})
	n.token = n.server.Token("", time.Minute)
	n.server.Advance(40 * time.Second)
	n.run(step{"PUT", "auth/token/renew-self", "", 200, []string{`"lease_duration":60`}, nil})
	n.server.Advance(40 * time.Second)
	n.run(
		step{"GET", "auth/token/lookup-self", "", 200, []string{`"ttl":20,`}, nil},
		step{"POST", "auth/token/revoke-self", "", 204, nil, nil},
		step{"GET", "auth/token/lookup-self", "", 403, nil, nil},
	)
	n.token = n.server.Token("", 0)
	n.run(step{"POST", "auth/token/renew-self", "", 400, []string{"not renewable"}, nil})
	n.server.Revoke(n.token)
	n.run(step{"GET", "auth/token/lookup-self", "", 403, nil, nil})
}

func TestAppRoleLogsIn(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.server.AppRole("", "r", "s", time.Hour, "app")
	n.token = ""
	n.run(
		step{"PUT", "auth/approle/login", `{"role_id":"r","secret_id":"x"}`, 400, []string{"invalid role or secret ID"}, nil},
		step{"PUT", "auth/approle/login", `{"role_id":"q","secret_id":"s"}`, 400, []string{"invalid role or secret ID"}, nil},
		step{"PUT", "auth/approle/login", `{"role_id":"r"}`, 400, []string{"missing secret_id"}, nil},
		step{"PUT", "auth/approle/login", `{}`, 400, []string{"missing role_id"}, nil},
	)
	_, answer, err := n.send("POST", "auth/approle/login", `{"role_id":"r","secret_id":"s"}`)
	var a struct {
		Auth struct {
			ClientToken   string `json:"client_token"`
			LeaseDuration int    `json:"lease_duration"`
		}
	}
	if err != nil || json.Unmarshal([]byte(answer), &a) != nil || a.Auth.LeaseDuration != 3600 {
		t.Fatalf("the login answers %s, %v", answer, err)
	}
	n.token = a.Auth.ClientToken
	n.run(step{"GET", "auth/token/lookup-self", "", 200, []string{`"policies":["default","app"]`}, nil})
}

func TestNamespacesAndMountsAreApart(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.server.Mount("team", "secret", fakevault.Config{})
	n.server.Mount("team", "deep/kv", fakevault.Config{MaxVersions: 1})
	n.run(step{"PUT", "secret/data/a", `{"data":{"x":"root"}}`, 200, nil, nil})
	n.namespace = "team"
	n.run(
		step{"GET", "secret/data/a", "", 404, []string{`"errors":[]`}, nil},
		step{"PUT", "deep/kv/data/a", `{"data":{"x":"team"}}`, 200, nil, nil},
		step{"GET", "deep/kv/config", "", 200, []string{`"max_versions":1`}, nil},
	)
	n.namespace = "/team/"
	n.run(step{"GET", "deep/kv/data/a", "", 200, []string{"team"}, nil})
	n.namespace = "nobody"
	n.run(step{"GET", "secret/data/a", "", 404, []string{"no handler for route"}, nil})
	n.namespace, n.token = "team", n.server.Token("team", 0, "app")
	if err := n.server.Policy("team", "app", `path "secret/*" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	n.run(step{"GET", "secret/data/a", "", 404, nil, nil})
	n.namespace = ""
	n.run(step{"GET", "secret/data/a", "", 403, nil, nil})
}

func TestSealed(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.run(step{"GET", "sys/health", "", 200, []string{`"sealed":false`, `"initialized":true`}, nil})
	n.server.Seal(true)
	n.run(
		step{"GET", "secret/data/a", "", 503, []string{"Vault is sealed"}, nil},
		step{"GET", "sys/health", "", 503, []string{`"sealed":true`}, nil},
	)
	n.server.Seal(false)
	n.run(step{"GET", "secret/data/a", "", 404, nil, nil})
}

func TestLag(t *testing.T) {
	t.Parallel()
	clock := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for forward, status := range map[fakevault.Forward]int{
		fakevault.ForwardRefused: 400, fakevault.ForwardDone: 200, fakevault.ForwardIgnored: 404,
	} {
		n := newNode(t, &fakevault.Options{Now: func() time.Time { return clock }, Lag: time.Second, Forward: forward})
		forwarded := &node{t: t, server: n.server, token: n.token, headers: http.Header{"X-Vault-Forward": {"active-node"}}}
		n.run(
			step{"PUT", "secret/data/a", `{"data":{"x":"1"}}`, 200, nil, nil},
			step{"GET", "secret/data/a", "", 404, nil, nil},
			step{"LIST", "secret/metadata", "", 404, nil, nil},
		)
		forwarded.run(step{"GET", "secret/data/a", "", status, nil, nil})
		n.server.Advance(time.Second)
		n.run(
			step{"PUT", "secret/data/a", `{"data":{"x":"2"},"options":{"cas":1}}`, 200, nil, nil},
			step{"GET", "secret/data/a", "", 200, []string{`"x":"1"`}, nil},
			step{"DELETE", "secret/metadata/a", "", 204, nil, nil},
		)
		n.server.Advance(time.Second / 2)
		n.run(step{"LIST", "secret/metadata", "", 200, []string{`"a"`}, nil})
		n.server.Advance(time.Second / 2)
		n.run(step{"LIST", "secret/metadata", "", 404, nil, nil})
	}
}

func TestFaultsHappenAsAsked(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	put := step{"PUT", "secret/data/a", `{"data":{},"options":{"cas":0}}`, 200, nil, nil}
	inject := func(f fakevault.Fault) {
		n.server.Inject(func(q *fakevault.Request) *fakevault.Fault {
			if q.Operation != "write" || q.Class != "data" || q.Path != "secret/data/a" {
				t.Errorf("the fault sees %+v", q)
			}
			return &f
		})
	}
	absent, present := step{"GET", "secret/data/a", "", 404, nil, nil}, step{"GET", "secret/data/a", "", 200, nil, nil}
	check := func(s step) {
		t.Helper()
		n.server.Inject(nil)
		n.run(s, step{"DELETE", "secret/metadata/a", "", 204, nil, nil})
	}

	inject(fakevault.Fault{Status: 500, Errors: []string{"internal error"}})
	n.run(step{put.method, put.path, put.body, 500, []string{`{"errors":["internal error"]}`}, nil})
	check(absent)

	inject(fakevault.Fault{Status: 502, Body: "<html>", Applied: true})
	n.run(step{put.method, put.path, put.body, 502, []string{"<html>"}, nil})
	check(present)

	for _, applied := range []bool{false, true} {
		inject(fakevault.Fault{Drop: true, Applied: applied})
		if status, _, err := n.send(put.method, put.path, put.body); err == nil {
			t.Errorf("a dropped answer arrives with status %d", status)
		}
		if applied {
			check(present)
		} else {
			check(absent)
		}
	}

	closed := make(chan struct{})
	close(closed)
	inject(fakevault.Fault{Wait: closed, Hold: closed})
	n.run(put)
	check(present)
}

func TestRequestsAreCountedAndKept(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.run(
		step{"PUT", "secret/data/a", `{"data":{"x":"canary"}}`, 200, nil, nil},
		step{"GET", "secret/data/a?version=1", "", 200, nil, nil},
		step{"GET", "secret/metadata?list=true", "", 200, nil, nil},
		step{"GET", "auth/token/lookup-self", "", 200, nil, nil},
		step{"GET", "sys/health", "", 200, nil, nil},
	)
	var got []string
	for _, q := range n.server.Requests() {
		got = append(got, q.Method+" "+q.Path)
	}
	want := []string{
		"PUT secret/data/a", "GET secret/data/a", "GET secret/metadata/", "GET auth/token/lookup-self", "GET sys/health",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the requests are %q, want %q", got, want)
	}
	if !bytes.Contains(n.server.Requests()[0].Body, []byte("canary")) {
		t.Error("a request has no body")
	}
	for what, want := range map[string]int{"write data": 1, "read data": 1, "list metadata": 1, "read auth": 1, "read sys": 1} {
		if got := n.server.Count()[what]; got != want {
			t.Errorf("%s is counted %d times, want %d", what, got, want)
		}
	}
	n.server.Reset()
	if len(n.server.Requests()) != 0 {
		t.Error("Reset forgets nothing")
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	n := newNode(t, &fakevault.Options{Now: func() time.Time { return now }, Rate: fakeserver.PerSecond(2)})
	n.run(
		step{"POST", "secret/data/a", `{"data":{"x":"y"}}`, 200, nil, nil},
		step{"GET", "secret/data/a", "", 200, nil, nil},
		step{"GET", "secret/data/a", "", 429, []string{`{"errors":["request path \"secret/data/a\": rate limit quota exceeded"]}`}, nil},
		step{"GET", "sys/health", "", 200, nil, nil},
	)
	n.server.Advance(time.Second)
	n.run(step{"GET", "secret/data/a", "", 200, nil, nil})
}
