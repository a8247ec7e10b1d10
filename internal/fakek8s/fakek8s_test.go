package fakek8s_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
)

const secretsPath = "/secrets"

func do(t *testing.T, s *fakek8s.Server, token string, q fakek8s.Step) (int, string) {
	t.Helper()
	r, err := q.Request(t.Context(), s.URL+"/api/v1/namespaces/default")
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, rule := range fakek8s.Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			t.Parallel()
			s := fakek8s.New(nil)
			t.Cleanup(s.Close)
			for i, q := range rule.Steps {
				if code, text := do(t, s, fakek8s.AdminToken, q); code != q.Code || !strings.Contains(text, q.Want) {
					t.Errorf("step %d, %s: %d %s, want %d with %q", i, q.Method, code, text, q.Code, q.Want)
				}
			}
		})
	}
}

// TestNoChange checks that an empty patch does not change the resource version.
func TestNoChange(t *testing.T) {
	t.Parallel()
	s := fakek8s.New(nil)
	t.Cleanup(s.Close)
	do(t, s, fakek8s.AdminToken, fakek8s.Step{Method: "POST", Path: secretsPath, Body: `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}`})
	_, before := do(t, s, fakek8s.AdminToken, fakek8s.Step{Method: "GET", Path: secretsPath + "/x"})
	if _, after := do(t, s, fakek8s.AdminToken, fakek8s.Step{Method: "PATCH", Path: secretsPath + "/x", Body: `{}`}); after != before {
		t.Errorf("an empty patch made\n%s of\n%s", after, before)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	s := fakek8s.New(nil)
	t.Cleanup(s.Close)
	get := fakek8s.Step{Method: "GET", Path: secretsPath + "/x"}
	if code, _ := do(t, s, "unknown", get); code != http.StatusUnauthorized {
		t.Errorf("an unknown token is answered %d", code)
	}
	s.Account("app", "crm", "sync")
	want := `secrets \"x\" is forbidden: User \"system:serviceaccount:crm:sync\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\"`
	if code, text := do(t, s, "app", get); code != http.StatusForbidden || !strings.Contains(text, want) {
		t.Errorf("without a Role the answer is %d %s, want %s", code, text, want)
	}
	const role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {namespace: default, name: tokens}\nrules:\n- {apiGroups: [''], resources: [secrets], verbs: [get]}\n"
	if err := s.Bind("app", role); err != nil {
		t.Fatal(err)
	}
	if code, _ := do(t, s, "app", get); code != http.StatusNotFound {
		t.Errorf("with the Role the answer is %d", code)
	}
	if code, _ := do(t, s, "app", fakek8s.Step{Method: "GET", Path: secretsPath}); code != http.StatusForbidden {
		t.Errorf("what the Role does not name is answered %d", code)
	}
	for _, bad := range []string{"", "kind: Role", role + "x: y\n", strings.Replace(role, "kind: Role", "kind: ClusterRole", 1)} {
		if s.Bind("app", bad) == nil {
			t.Errorf("Bind takes %q", bad)
		}
	}
	s.Revoke("app")
	if code, _ := do(t, s, "app", get); code != http.StatusUnauthorized {
		t.Errorf("a revoked token is answered %d", code)
	}
}

// TestWatch checks that the server refuses watches.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := fakek8s.New(nil)
	t.Cleanup(s.Close)
	if code, _ := do(t, s, fakek8s.AdminToken, fakek8s.Step{Method: "GET", Path: secretsPath + "?watch=true"}); code != http.StatusMethodNotAllowed {
		t.Errorf("a watch is answered %d", code)
	}
}
