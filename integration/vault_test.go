package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/tokenkeep/tokenkeep/integration"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
)

// The tests in this file check the behavior of Vault on which package vaultstore depends. The
// tests also check that the fake of package fakevault behaves in the same way.

// A server is a real Vault or a fake. The methods have the same signatures as the methods of
// integration.Vault.
type server interface {
	Prefix(t testing.TB) string
	Token(t testing.TB, hcl string, ttl time.Duration) string
	AppRole(t testing.TB, hcl string, ttl time.Duration) integration.AppRole
	Revoke(t testing.TB, token string)
	Seal(t testing.TB)
	Unseal(t testing.TB)
}

// A node is a server with its address, its root token and the mount path of its KV engine.
type node struct {
	server
	addr, root, mount string
}

func (n node) real() bool {
	_, fake := n.server.(fake)
	return !fake
}

// A fake is a fakevault.Server with the methods of a server.
type fake struct{ *fakevault.Server }

func (f fake) Prefix(t testing.TB) string {
	return "app-" + strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, strings.ToLower(t.Name()))
}

func (f fake) Token(t testing.TB, hcl string, ttl time.Duration) string {
	t.Helper()
	return f.Server.Token("", ttl, f.policy(t, hcl))
}

func (f fake) AppRole(t testing.TB, hcl string, ttl time.Duration) integration.AppRole {
	t.Helper()
	role := integration.AppRole{Mount: "approle", RoleID: "role of " + t.Name(), SecretID: "secret of " + t.Name()}
	f.Server.AppRole("", role.RoleID, role.SecretID, ttl, f.policy(t, hcl))
	return role
}

func (f fake) policy(t testing.TB, hcl string) string {
	t.Helper()
	if err := f.Server.Policy("", t.Name(), hcl); err != nil {
		t.Fatal(err)
	}
	return t.Name()
}

func (f fake) Revoke(_ testing.TB, token string) { f.Server.Revoke(token) }
func (f fake) Seal(testing.TB)                   { f.Server.Seal(true) }
func (f fake) Unseal(testing.TB)                 { f.Server.Seal(false) }

// onBoth runs a test on the real server that the tests share and on the fake.
func onBoth(t *testing.T, test func(t *testing.T, n node)) {
	onReal(t, integration.SharedVault, test)
	onFake(t, test)
}

func onFake(t *testing.T, test func(t *testing.T, n node)) {
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		f := fakevault.New(nil)
		t.Cleanup(f.Close)
		test(t, node{fake{f}, f.URL, fakevault.RootToken, "secret"})
	})
}

func onReal(t *testing.T, start func(t testing.TB) *integration.Vault, test func(t *testing.T, n node)) {
	t.Run("vault", func(t *testing.T) {
		t.Parallel()
		integration.VaultBackend.Count(t)
		v := start(t)
		test(t, node{v, v.Addr, v.RootToken, v.Mount})
	})
}

type answer struct {
	status int
	body   string
}

// do makes a call without retries.
func (n node) do(t testing.TB, token, method, path, body string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, n.addr+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	r.Header.Set("X-Vault-Request", "true")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(data)}
}

// A step is a call with the root token, and the expected answer. The path of the call is
// relative to the mount and the prefix of the test: "data/x" is MOUNT/data/PREFIX/x.
type step struct {
	call   string // "PUT data/x"
	body   string
	status int
	want   []string // strings in the response; a string after "!" must not be in the response
}

func (s step) run(t *testing.T, n node, prefix string) {
	t.Helper()
	method, path, _ := strings.Cut(s.call, " ")
	class, rest, _ := strings.Cut(path, "/")
	got := n.do(t, n.root, method, n.mount+"/"+class+"/"+prefix+"/"+rest, s.body)
	if got.status != s.status {
		t.Errorf("%s %s: status %d, want %d; %s", s.call, s.body, got.status, s.status, got.body)
	}
	for _, want := range s.want {
		text, absent := strings.CutPrefix(want, "!")
		if strings.Contains(got.body, text) == absent {
			t.Errorf("%s %s: want %s in %s", s.call, s.body, want, got.body)
		}
	}
}

// A fact is a behavior of the server, with the steps that check the behavior.
type fact struct {
	name  string
	steps []step
}

const (
	mismatch = `{"errors":["check-and-set parameter did not match the current version"]}`
	nothing  = `{"errors":[]}`
)

// TestKV checks facts about version 2 of the KV engine, on a real server and on the fake.
func TestKV(t *testing.T) {
	t.Parallel()
	facts := []fact{
		{"a write names the version that it replaces", []step{
			{"PUT data/x", `{"options":{"cas":1},"data":{"k":"early"}}`, 400, []string{mismatch}},
			{"GET data/x", ``, 404, []string{nothing}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"first"}}`, 200, []string{`"version":1}`, `"created_time":"2`, `"custom_metadata":null`}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"again"}}`, 400, []string{mismatch}},
			{"PUT data/x", `{"options":{"cas":2},"data":{"k":"ahead"}}`, 400, []string{mismatch}},
			{"PUT data/x", `{"options":{"cas":1},"data":{"k":"second"}}`, 200, []string{`"version":2}`}},
			{"PUT data/x", `{"options":{"cas":1},"data":{"k":"stale"}}`, 400, []string{mismatch}},
			{"PUT data/x", `{"options":{"cas":"2"},"data":{"k":"text"}}`, 200, []string{`"version":3}`}},
			{"PUT data/x", `{"data":{"k":"careless"}}`, 200, []string{`"version":4}`}},
			{"GET data/x", ``, 200, []string{`"data":{"k":"careless"}`, `"version":4}`}},
			{"GET data/x?version=2", ``, 200, []string{`"data":{"k":"second"}`, `"version":2}`}},
			{"GET data/x?version=9", ``, 404, []string{nothing}},
		}},
		{"a secret can require that", []step{
			{"PUT metadata/x", `{"cas_required":true}`, 204, nil},
			{"PUT data/x", `{"data":{"k":"1"}}`, 400, []string{`{"errors":["check-and-set parameter required for this call"]}`}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"1"}}`, 200, nil},
		}},
		{"a patch does so too", []step{
			{"PATCH data/x", `{"data":{"k":"1"}}`, 404, nil},
			{"PUT data/x", `{"data":{"k":"1","l":"1"}}`, 200, nil},
			{"PATCH data/x", `{"options":{"cas":0},"data":{"k":"2"}}`, 400, []string{mismatch}},
			{"PATCH data/x", `{"options":{"cas":1},"data":{"k":"2","l":null}}`, 200, []string{`"version":2}`}},
			{"GET data/x", ``, 200, []string{`"data":{"k":"2"}`}},
		}},
		{"a secret can have metadata only", []step{
			{"PUT metadata/x", `{"custom_metadata":{"name":"n"}}`, 204, nil},
			{"GET metadata/x", ``, 200, []string{`"current_version":0`, `"versions":{}`, `"custom_metadata":{"name":"n"}`}},
			{"GET data/x", ``, 404, []string{nothing}},
			{"LIST metadata/", ``, 200, []string{`"keys":["x"]`}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"1"}}`, 200, []string{`"version":1}`, `"custom_metadata":{"name":"n"}`}},
			{"GET data/x", ``, 200, []string{`"custom_metadata":{"name":"n"}`}},
		}},
		{"metadata is not guarded", []step{
			{"PATCH metadata/x", `{"custom_metadata":{"a":"1"}}`, 404, nil},
			{"PUT metadata/x", `{"custom_metadata":{"a":"1","b":"1"}}`, 204, nil},
			{"PUT metadata/x", `{"options":{"cas":9},"cas":9,"custom_metadata":{"a":"2"}}`, 204, []string{"!warnings"}},
			{"GET metadata/x", ``, 200, []string{`"custom_metadata":{"a":"2"}`}},
			{"PUT metadata/x", `{"max_versions":4}`, 204, nil},
			{"GET metadata/x", ``, 200, []string{`"custom_metadata":{"a":"2"}`, `"max_versions":4`}},
			{"PATCH metadata/x", `{"options":{"cas":9},"custom_metadata":{"a":null,"c":"3"}}`, 204, nil},
			{"GET metadata/x", ``, 200, []string{`"custom_metadata":{"c":"3"}`}},
		}},
		{"custom metadata is short text", []step{
			{"PUT metadata/x", `{"custom_metadata":` + object(64) + `}`, 204, nil},
			{"PUT metadata/x", `{"custom_metadata":` + object(65) + `}`, 400, []string{"payload must contain at most 64 keys, provided 65"}},
			{"PATCH metadata/x", `{"custom_metadata":{"extra":"1"}}`, 204, nil}, // the limit applies only to the keys of the patch
			{"GET metadata/x", ``, 200, []string{`"extra":"1"`, `"k63":"v"`}},
			{"PUT metadata/y", `{"custom_metadata":{"` + strings.Repeat("k", 128) + `":"` + strings.Repeat("v", 512) + `"}}`, 204, nil},
			{"PUT metadata/y", `{"custom_metadata":{"` + strings.Repeat("k", 129) + `":"v"}}`, 400, []string{"is 129 but must be"}},
			{"PUT metadata/y", `{"custom_metadata":{"k":"` + strings.Repeat("v", 513) + `"}}`, 400, []string{"is 513 but must be"}},
			{"PUT metadata/y", `{"custom_metadata":{"k":""}}`, 400, []string{"is 0 but must be"}},
			{"PUT metadata/y", `{"custom_metadata":{"k":"a\nb"}}`, 400, []string{"contains unprintable characters"}},
			{"PUT metadata/y", `{"custom_metadata":{"k":{"l":"m"}}}`, 400, []string{"expected type 'string'"}},
			{"PUT metadata/y", `{"custom_metadata":{"k":17,"l":"gr\u00fcn"}}`, 204, nil},
			{"GET metadata/y", ``, 200, []string{`"custom_metadata":{"k":"17","l":"grün"}`}},
		}},
		{"a version that is deleted still counts", []step{
			{"PUT data/x", `{"data":{"k":"1"}}`, 200, nil},
			{"DELETE data/x", ``, 204, nil},
			{"GET data/x", ``, 404, []string{`"data":{"data":null,"metadata":{`, `"deletion_time":"2`, `"destroyed":false`, `"version":1}`, "!errors"}},
			{"LIST metadata/", ``, 200, []string{`"keys":["x"]`}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"2"}}`, 400, []string{mismatch}},
			{"PATCH data/x", `{"options":{"cas":1},"data":{"k":"2"}}`, 404, []string{`"version":1}`}},
			{"PUT data/x", `{"options":{"cas":1},"data":{"k":"2"}}`, 200, []string{`"version":2}`}},
			{"PUT undelete/x", `{"versions":[1]}`, 204, nil},
			{"GET data/x?version=1", ``, 200, []string{`"data":{"k":"1"}`}},
			{"DELETE data/y", ``, 204, nil},
		}},
		{"a version that is destroyed still counts", []step{
			{"PUT data/x", `{"data":{"k":"1"}}`, 200, nil},
			{"PUT data/x", `{"data":{"k":"2"}}`, 200, nil},
			{"PUT destroy/x", `{"versions":[1]}`, 204, nil},
			{"GET data/x?version=1", ``, 404, []string{`"data":{"data":null,"metadata":{`, `"destroyed":true`, "!errors"}},
			{"GET data/x", ``, 200, []string{`"data":{"k":"2"}`}},
			{"PUT undelete/x", `{"versions":[1]}`, 204, nil},
			{"GET data/x?version=1", ``, 404, []string{`"destroyed":true`}},
			{"PUT destroy/x", `{"versions":[2,7]}`, 204, nil},
			{"GET data/x", ``, 404, []string{`"destroyed":true`, `"version":2}`}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"3"}}`, 400, []string{mismatch}},
			{"PUT data/x", `{"options":{"cas":2},"data":{"k":"3"}}`, 200, []string{`"version":3}`}},
			{"PUT destroy/x", `{}`, 400, []string{"no version number provided"}},
			{"PUT destroy/y", `{"versions":[1]}`, 204, nil},
		}},
		{"without its metadata a secret begins again", []step{
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"first life"}}`, 200, []string{`"version":1}`}},
			{"DELETE metadata/x", ``, 204, nil},
			{"GET data/x", ``, 404, []string{nothing}},
			{"GET metadata/x", ``, 404, []string{nothing}},
			{"LIST metadata/", ``, 404, []string{nothing}},
			{"PUT data/x", `{"options":{"cas":0},"data":{"k":"second life"}}`, 200, []string{`"version":1}`}},
			{"PUT data/x", `{"options":{"cas":1},"data":{"k":"from the first life"}}`, 200, []string{`"version":2}`}}, // succeeds, because cas does not distinguish incarnations
			{"DELETE metadata/y", ``, 204, nil},
		}},
		{"a list shows secrets and folders", []step{
			{"LIST metadata/", ``, 404, []string{nothing}},
			{"PUT data/b", `{"data":{"k":"1"}}`, 200, nil},
			{"PUT data/a", `{"data":{"k":"1"}}`, 200, nil},
			{"PUT metadata/a/b/c", `{"custom_metadata":{"k":"1"}}`, 204, nil},
			{"LIST metadata/", ``, 200, []string{`"keys":["a","a/","b"]`}},
			{"LIST metadata", ``, 200, []string{`"keys":["a","a/","b"]`}},
			{"GET metadata/?list=true", ``, 200, []string{`"keys":["a","a/","b"]`}},
			{"LIST metadata/a", ``, 200, []string{`"keys":["b/"]`}},
			{"DELETE metadata/a/b/c", ``, 204, nil},
			{"LIST metadata/a", ``, 404, []string{nothing}},
		}},
		{"a path does not end in a slash", []step{
			{"PUT data/x/", `{"data":{"k":"1"}}`, 400, []string{"cannot write to a path ending in '/'"}},
			{"PUT metadata/x/", `{"custom_metadata":{"k":"1"}}`, 400, []string{"cannot write to a path ending in '/'"}},
		}},
		{"old versions go", []step{
			{"PUT metadata/x", `{"max_versions":2}`, 204, nil},
			{"PUT data/x", `{"data":{"k":"1"}}`, 200, nil},
			{"PUT data/x", `{"data":{"k":"2"}}`, 200, nil},
			{"GET data/x?version=1", ``, 200, nil},
			{"PUT data/x", `{"data":{"k":"3"}}`, 200, nil},
			{"GET data/x?version=1", ``, 404, []string{nothing}},
			{"GET metadata/x", ``, 200, []string{`"current_version":3`, `"oldest_version":2`, `!"1":{`, `"2":{`, `"3":{`}},
		}},
		{"a write has data", []step{
			{"PUT data/x", `{"k":"1"}`, 400, []string{`{"errors":["no data provided"]}`}},
			{"PUT data/x", `{"data":"text"}`, 400, []string{`error converting input for field \"data\"`}},
			{"PUT data/x", `[]`, 400, []string{"error parsing JSON"}},
			{"PUT data/x", `{"data":{"k":"1"},"more":1}`, 200, []string{"Endpoint ignored these unrecognized parameters: [more]"}},
			{"PUT data/x", `{"data":{"s":"<&\u2028>","o":{"a":[1.5,null]}}}`, 200, nil},
			{"GET data/x", ``, 200, []string{`"data":{"o":{"a":[1.5,null]},"s":"\u003c\u0026\u2028\u003e"}`}},
		}},
	}
	// The fake does not implement the following facts.
	more := []fact{
		{"numbers are rounded", []step{
			{"PUT data/x", `{"data":{"n":12345678901234567890,"f":1.50}}`, 200, nil},
			{"GET data/x", ``, 200, []string{`"data":{"f":1.5,"n":12345678901234567000}`}},
		}},
		{"what is wrong with the JSON is the server's fault", []step{
			{"PUT data/x", `{"data":`, 500, []string{`{"errors":["malformed JSON, unclosed containers"]}`}},
			{"PUT data/x", `{"data":{"k":"` + strings.Repeat("v", 1<<20+1) + `"}}`, 500, []string{`{"errors":["JSON string value exceeds allowed length"]}`}},
		}},
	}
	onBoth(t, func(t *testing.T, n node) {
		facts := facts
		if n.real() {
			facts = slices.Concat(facts, more)
		}
		for _, fact := range facts {
			t.Run(fact.name, func(t *testing.T) {
				t.Parallel()
				prefix := n.Prefix(t)
				for _, s := range fact.steps {
					s.run(t, n, prefix)
				}
			})
		}
	})
}

func object(n int) string {
	fields := map[string]string{}
	for i := range n {
		fields[fmt.Sprintf("k%d", i)] = "v"
	}
	text, _ := json.Marshal(fields)
	return string(text)
}

// TestOneWriterWins checks that exactly one of several concurrent writes that name the same version
// succeeds.
func TestOneWriterWins(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		const writers, rounds = 8, 10
		path := n.mount + "/data/" + n.Prefix(t) + "/x"
		for version := range rounds {
			var wg sync.WaitGroup
			answers := make([]answer, writers)
			for i := range writers {
				wg.Go(func() {
					answers[i] = n.do(t, n.root, "PUT", path, fmt.Sprintf(`{"options":{"cas":%d},"data":{"k":"%d"}}`, version, i))
				})
			}
			wg.Wait()
			won := 0
			for _, a := range answers {
				switch {
				case a.status == 200:
					won++
				case a.status != 400 || strings.TrimSpace(a.body) != mismatch:
					t.Errorf("a writer got %+v", a)
				}
			}
			if won != 1 {
				t.Fatalf("%d of %d writers replaced version %d", won, writers, version)
			}
		}
	})
}

const (
	denied  = `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`
	invalid = `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`
)

// expect checks that an answer has the given status and, unless text is empty, the body in text.
func expect(t *testing.T, what string, got answer, status int, text string) {
	t.Helper()
	if got.status != status || text != "" && strings.TrimSpace(got.body) != text {
		t.Errorf("%s: %d %s; want %d %s", what, got.status, got.body, status, text)
	}
}

// TestPolicy checks that policies limit a token, that the capability create does not include
// update, and that a policy for data does not apply to metadata.
func TestPolicy(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		prefix := n.Prefix(t)
		data, metadata := n.mount+"/data/"+prefix, n.mount+"/metadata/"+prefix
		token := n.Token(t, `
			path "`+data+`/tokens/*" { capabilities = ["create", "read"] }
			path "`+metadata+`/tokens/*" { capabilities = ["list"] }`, 0)
		write := `{"data":{"k":"1"}}`

		expect(t, "create", n.do(t, token, "PUT", data+"/tokens/x", write), 200, "")
		expect(t, "read", n.do(t, token, "GET", data+"/tokens/x", ""), 200, "")
		expect(t, "read of what is not there", n.do(t, token, "GET", data+"/tokens/y", ""), 404, nothing)
		expect(t, "list", n.do(t, token, "LIST", metadata+"/tokens", ""), 200, "")
		expect(t, "update", n.do(t, token, "PUT", data+"/tokens/x", write), 403, denied)
		expect(t, "delete", n.do(t, token, "DELETE", data+"/tokens/x", ""), 403, denied)
		expect(t, "destroy", n.do(t, token, "PUT", n.mount+"/destroy/"+prefix+"/tokens/x", `{"versions":[1]}`), 403, denied)
		expect(t, "read of metadata", n.do(t, token, "GET", metadata+"/tokens/x", ""), 403, denied)
		expect(t, "read of another folder", n.do(t, token, "GET", data+"/other/x", ""), 403, denied)
		expect(t, "list of another folder", n.do(t, token, "LIST", metadata, ""), 403, denied)
		expect(t, "read of another mount", n.do(t, token, "GET", "none/data/x", ""), 403, denied)
		expect(t, "read without a token", n.do(t, "", "GET", data+"/tokens/x", ""), 403, `{"errors":["permission denied"]}`)
		expect(t, "read by a stranger", n.do(t, "hvs.stranger", "GET", data+"/tokens/x", ""), 403, invalid)
		expect(t, "look at itself", n.do(t, token, "GET", "auth/token/lookup-self", ""), 200, "")

		// A write to an existing secret is an update, even if its version was deleted or the
		// secret has only metadata.
		expect(t, "delete", n.do(t, n.root, "DELETE", data+"/tokens/x", ""), 204, "")
		expect(t, "write over a deleted version", n.do(t, token, "PUT", data+"/tokens/x", write), 403, denied)
		expect(t, "write metadata", n.do(t, n.root, "PUT", metadata+"/tokens/y", `{"custom_metadata":{"k":"1"}}`), 204, "")
		expect(t, "write over metadata", n.do(t, token, "PUT", data+"/tokens/y", write), 403, denied)
	})
}

// TestMount checks that a token with a policy for a path of a mount can read the type and the
// version of the mount's engine. The token must not be able to read the type and the version for
// another mount. The test also checks that KV version 1 responds to reads and lists of missing
// secrets as version 2 does. KV version 1 must respond to a write with status 204.
func TestMount(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		one, other := n.Prefix(t)+"-kv1", n.Prefix(t)+"-other"
		if f, ok := n.server.(fake); ok {
			f.Mount("", one, fakevault.Config{KV1: true})
			f.Mount("", other, fakevault.Config{})
		} else {
			expect(t, "mount", n.do(t, n.root, "POST", "sys/mounts/"+one, `{"type":"kv","options":{"version":"1"}}`), 204, "")
			expect(t, "mount", n.do(t, n.root, "POST", "sys/mounts/"+other, `{"type":"kv","options":{"version":"2"}}`), 204, "")
		}
		const list = `capabilities = ["list"] }`
		token := n.Token(t, `path "`+n.mount+`/metadata/x/tokens/*" { `+list+` path "`+one+`/metadata/x/tokens/*" { `+list, time.Hour)
		for mount, version := range map[string]string{n.mount: "2", one: "1"} {
			got := n.do(t, token, "GET", "sys/internal/ui/mounts/"+mount, "")
			expect(t, "what is mounted at "+mount, got, 200, "")
			var answer struct {
				Data struct {
					Path, Type string
					Options    map[string]string
				}
			}
			if err := json.Unmarshal([]byte(got.body), &answer); err != nil {
				t.Fatal(err)
			}
			if d := answer.Data; d.Path != mount+"/" || d.Type != "kv" || d.Options["version"] != version {
				t.Errorf("what is mounted at %s: %s", mount, got.body)
			}
			for who, token := range map[string]string{"no token": "", "an unknown token": "hvs.unknown"} {
				if got := n.do(t, token, "GET", "sys/internal/ui/mounts/"+mount, ""); got.status != 403 {
					t.Errorf("%s asks what is mounted at %s: %d %s", who, mount, got.status, got.body)
				}
			}
			if got := n.do(t, n.root, "GET", mount+"/config", ""); (got.status == 200) != (version == "2") {
				t.Errorf("the configuration of %s: %d %s", mount, got.status, got.body)
			}
			expect(t, "read", n.do(t, n.root, "GET", mount+"/data/none/x", ""), 404, nothing)
			expect(t, "list", n.do(t, n.root, "LIST", mount+"/metadata/none", ""), 404, nothing)
		}
		if got := n.do(t, token, "GET", "sys/internal/ui/mounts/"+other, ""); got.status != 403 {
			t.Errorf("what is mounted at %s: %d %s", other, got.status, got.body)
		}
		path := n.mount + "/data/" + n.Prefix(t) + "/x"
		expect(t, "a version that there is not", n.do(t, n.root, "PUT", path, `{"data":{"k":"v"},"options":{"cas":1073741824}}`), 400, mismatch)
		path = one + "/data/" + n.Prefix(t) + "/x"
		expect(t, "a write of version 1", n.do(t, n.root, "PUT", path, `{"data":{"k":"v"},"options":{"cas":1073741824}}`), 204, "")
		if got := n.do(t, n.root, "GET", path, ""); got.status != 200 || strings.Contains(got.body, `"metadata"`) {
			t.Errorf("a read of version 1: %d %s", got.status, got.body)
		}
	})
}

// TestRevocation checks that a revoked token is refused like an unknown token.
func TestRevocation(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		path := n.mount + "/data/" + n.Prefix(t) + "/x"
		policy := `path "` + path + `" { capabilities = ["create", "read", "update"] }`
		token, other := n.Token(t, policy, 0), n.Token(t, policy, time.Hour)
		expect(t, "before", n.do(t, token, "PUT", path, `{"data":{"k":"1"}}`), 200, "")
		n.Revoke(t, token)
		expect(t, "after", n.do(t, token, "GET", path, ""), 403, invalid)
		expect(t, "look at itself", n.do(t, token, "GET", "auth/token/lookup-self", ""), 403, invalid)
		expect(t, "another token", n.do(t, other, "GET", path, ""), 200, "")
		expect(t, "revoke itself", n.do(t, other, "PUT", "auth/token/revoke-self", ""), 204, "")
		expect(t, "after that", n.do(t, other, "GET", path, ""), 403, invalid)
	})
}

// TestExpiry checks that an expired token is refused like an unknown token, and that a
// token can be renewed before it expires.
func TestExpiry(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		path := n.mount + "/data/" + n.Prefix(t) + "/x"
		policy := `path "` + path + `" { capabilities = ["create", "read", "update"] }`
		const ttl = 2 * time.Second
		token := n.Token(t, policy, ttl)
		expect(t, "before", n.do(t, token, "GET", path, ""), 404, nothing)
		renewed := time.Now()
		got := n.do(t, token, "PUT", "auth/token/renew-self", "")
		expect(t, "renew", got, 200, "")
		if !strings.Contains(got.body, `"lease_duration":2,`) {
			t.Errorf("renew: %s", got.body)
		}
		eventually(t, func() bool {
			got = n.do(t, token, "GET", path, "")
			return got.status != 404
		})
		expect(t, "after", got, 403, invalid)
		expect(t, "renew after", n.do(t, token, "PUT", "auth/token/renew-self", ""), 403, invalid)
		if lived := time.Since(renewed); lived < ttl-time.Second {
			t.Errorf("the token lived %v after its renewal, want %v", lived, ttl)
		}
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("the condition did not become true")
		case <-tick.C:
		}
	}
}

// TestAppRole checks that a login with a role and a secret can be repeated, and that a wrong role
// or secret is refused.
func TestAppRole(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		path := n.mount + "/data/" + n.Prefix(t) + "/x"
		role := n.AppRole(t, `path "`+path+`" { capabilities = ["create", "read"] }`, time.Minute)
		login := func(roleID, secretID string) answer {
			t.Helper()
			body, err := json.Marshal(map[string]string{"role_id": roleID, "secret_id": secretID})
			if err != nil {
				t.Fatal(err)
			}
			return n.do(t, "", "PUT", "auth/"+role.Mount+"/login", string(body))
		}
		for range 2 {
			got := login(role.RoleID, role.SecretID)
			expect(t, "login", got, 200, "")
			var secret api.Secret
			if err := json.Unmarshal([]byte(got.body), &secret); err != nil {
				t.Fatal(err)
			}
			if a := secret.Auth; a == nil || a.LeaseDuration != 60 || !a.Renewable || len(a.Policies) != 2 || a.Policies[0] != "default" {
				t.Fatalf("login: %s", got.body)
			}
			expect(t, "read", n.do(t, secret.Auth.ClientToken, "GET", path, ""), 404, nothing)
			expect(t, "delete", n.do(t, secret.Auth.ClientToken, "DELETE", path, ""), 403, denied)
		}
		expect(t, "wrong secret", login(role.RoleID, "none"), 400, `{"errors":["invalid role or secret ID"]}`)
		expect(t, "wrong role", login("none", role.SecretID), 400, `{"errors":["invalid role or secret ID"]}`)
		expect(t, "no secret", login(role.RoleID, ""), 400, `{"errors":["missing secret_id"]}`)
		if n.real() { // Vault fails before it asks the auth method; the fake returns the error from the auth method
			expect(t, "no role", login("", role.SecretID), 500, `{"errors":["failed to determine alias name from login request"]}`)
		}
	})
}

// TestSeal checks that a sealed server refuses calls, and that an unsealed server still has its
// data.
func TestSeal(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, n node) {
		path := n.mount + "/data/" + n.Prefix(t) + "/x"
		token := n.Token(t, `path "`+path+`" { capabilities = ["create", "read", "update"] }`, time.Hour)
		const sealed = `{"errors":["Vault is sealed"]}`
		expect(t, "write", n.do(t, token, "PUT", path, `{"data":{"k":"1"}}`), 200, "")
		expect(t, "health", n.do(t, "", "GET", "sys/health", ""), 200, "")
		n.Seal(t)
		expect(t, "health", n.do(t, "", "GET", "sys/health", ""), 503, "")
		expect(t, "read", n.do(t, token, "GET", path, ""), 503, sealed)
		expect(t, "write", n.do(t, token, "PUT", path, `{"data":{"k":"2"}}`), 503, sealed)
		expect(t, "read by a stranger", n.do(t, "hvs.stranger", "GET", path, ""), 503, sealed)
		expect(t, "login", n.do(t, "", "PUT", "auth/approle/login", `{"role_id":"x","secret_id":"y"}`), 503, sealed)
		n.Unseal(t)
		expect(t, "health", n.do(t, "", "GET", "sys/health", ""), 200, "")
		got := n.do(t, token, "GET", path, "")
		expect(t, "read", got, 200, "")
		if !strings.Contains(got.body, `"data":{"k":"1"}`) {
			t.Errorf("read: %s", got.body)
		}
	}
	onReal(t, integration.StartVault, test)
	onFake(t, test)
}

// TestClientShowsDeletedSecrets checks that Vault's own client returns a deleted secret
// without data and without an error.
func TestClientShowsDeletedSecrets(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, n node) {
		v := integration.Vault{Addr: n.addr, RootToken: n.root, Mount: n.mount}
		kv, name := v.Client(t, n.root).KVv2(n.mount), n.Prefix(t)+"/x"
		if _, err := kv.Get(t.Context(), name); !errors.Is(err, api.ErrSecretNotFound) {
			t.Errorf("Get of nothing: %v", err)
		}
		if _, err := kv.Put(t.Context(), name, map[string]any{"k": "1"}, api.WithCheckAndSet(0)); err != nil {
			t.Fatal(err)
		}
		if err := kv.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		secret, err := kv.Get(t.Context(), name)
		if err != nil || len(secret.Data) != 0 || secret.VersionMetadata.DeletionTime.IsZero() {
			t.Errorf("Get of a deleted secret: %+v, %v", secret, err)
		}
		list, err := v.Client(t, n.root).Logical().ListWithContext(t.Context(), n.mount+"/metadata/none/such")
		if list != nil || err != nil {
			t.Errorf("List of nothing: %+v, %v", list, err)
		}
	})
}
