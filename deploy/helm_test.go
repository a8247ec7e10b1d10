package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/tokenkeep/tokenkeep/k8sstore"
)

const chart = "helm/tokenkeep"

// minimal returns the values that the chart requires, and arguments for the agent.
func minimal() map[string]any {
	return map[string]any{
		"store": "k8s:tokens/oauth",
		"args":  []any{"--data-center=eu", "--only-client=1000.CLIENT"},
		"app":   map[string]any{"image": "registry.example/crm:1"},
	}
}

// maximal returns values that use the optional features of the chart.
func maximal() map[string]any {
	env := []any{map[string]any{"name": "A", "value": "b"}}
	probe := map[string]any{"tcpSocket": map[string]any{"port": 8080}}
	return map[string]any{
		"store": "awssm:oauth", "args": []any{"--token-url=https://idp.example/token"}, "env": env, "keysSecret": "keys",
		"image": map[string]any{"tag": "1", "digest": "sha256:" + strings.Repeat("0", 64)},
		"app": map[string]any{
			"image": "registry.example/crm:1", "command": []any{"run"}, "args": []any{"now"}, "env": env,
			"ports":          []any{map[string]any{"containerPort": 8080}},
			"resources":      map[string]any{"limits": map[string]any{"memory": "1Gi"}},
			"readinessProbe": probe, "livenessProbe": probe,
			"volumeMounts": []any{map[string]any{"name": "data", "mountPath": "/data"}},
		},
		"serviceAccount":   map[string]any{"name": "crm", "annotations": map[string]any{"eks.amazonaws.com/role-arn": "arn"}},
		"podAnnotations":   map[string]any{"a": "b"},
		"podLabels":        map[string]any{"team": "crm"},
		"imagePullSecrets": []any{map[string]any{"name": "registry"}},
		"volumes":          []any{map[string]any{"name": "data", "emptyDir": map[string]any{}}},
		"nodeSelector":     map[string]any{"kubernetes.io/arch": "arm64"},
		"tolerations":      []any{map[string]any{"operator": "Exists"}},
		"affinity":         map[string]any{"nodeAffinity": map[string]any{}},
	}
}

// rendered holds the manifests that the chart creates.
type rendered struct {
	deployment appsv1.Deployment
	accounts   []corev1.ServiceAccount
	roles      []rbacv1.Role
	bindings   []rbacv1.RoleBinding
}

// render renders the chart as "helm install crm --namespace prod" does. It returns an error if the
// chart rejects values. A manifest with a field that Kubernetes does not know fails the test.
func render(t *testing.T, values map[string]any) (r rendered, err error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "crm", Namespace: "prod", IsInstall: true}, nil)
	if err != nil {
		return r, err
	}
	e := engine.Engine{Strict: true}
	files, err := e.Render(c, all)
	if err != nil {
		return r, err
	}
	for name, text := range files {
		for _, document := range regexp.MustCompile(`(?m)^---\n`).Split(text, -1) {
			if strings.TrimSpace(document) == "" {
				continue
			}
			if err := r.add(document); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, document)
			}
		}
	}
	return r, nil
}

func (r *rendered) add(document string) error {
	var kind struct{ Kind string }
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case "ServiceAccount":
		return read(document, &r.accounts)
	case "Role":
		return read(document, &r.roles)
	case "RoleBinding":
		return read(document, &r.bindings)
	}
	return yaml.UnmarshalStrict([]byte(document), &r.deployment)
}

func read[T any](document string, all *[]T) error {
	var v T
	err := yaml.UnmarshalStrict([]byte(document), &v)
	*all = append(*all, v)
	return err
}

// TestChartLint checks that Helm's linter reports neither warnings nor errors about the chart.
func TestChartLint(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]any{minimal(), maximal()} {
		for _, m := range lint.RunAll(chart, values, "prod").Messages {
			// Helm reports a missing icon as information. Only catalogs of charts show icons,
			// so the chart needs none.
			if m.Severity > support.InfoSev {
				t.Error(m)
			}
		}
	}
}

// TestChartDeployment checks the restrictions of each container, and that the containers share a
// user and a socket.
func TestChartDeployment(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]any{minimal(), maximal()} {
		r, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		pod := r.deployment.Spec.Template.Spec
		s := pod.SecurityContext
		if !*s.RunAsNonRoot || *s.RunAsUser != 65532 || *s.FSGroup != 65532 || *pod.AutomountServiceAccountToken {
			t.Errorf("the Pod runs as %+v", s)
		}
		agent, app := pod.InitContainers[0], pod.Containers[0]
		if *agent.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Error("the agent is not a sidecar")
		}
		for _, c := range []corev1.Container{agent, app} {
			s := c.SecurityContext
			if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s may do %+v", c.Name, s)
			}
			if !mounts(c, "socket") || mounts(c, "account") != (c.Name == agent.Name) {
				t.Errorf("%s mounts %v", c.Name, c.VolumeMounts)
			}
		}
		if app.Env[0] != (corev1.EnvVar{Name: "TOKENKEEP_AGENT", Value: "unix:/run/tokenkeep/agent.sock"}) {
			t.Errorf("the program has %v", app.Env)
		}
		if !maps.Equal(r.deployment.Spec.Selector.MatchLabels, with(r.deployment.Spec.Template.Labels, r.deployment.Spec.Selector.MatchLabels)) {
			t.Error("the Pods are not those that the Deployment selects")
		}
		for _, m := range append(agent.VolumeMounts, app.VolumeMounts...) {
			if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("there is no volume %s", m.Name)
			}
		}
		if pod.ServiceAccountName != r.accounts[0].Name {
			t.Errorf("the Pod has the account %s, and the chart makes %s", pod.ServiceAccountName, r.accounts[0].Name)
		}
	}
}

func mounts(c corev1.Container, volume string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
}

// with returns a copy of the map all that contains only the keys of the map keys.
func with(all, keys map[string]string) map[string]string {
	some := maps.Clone(all)
	maps.DeleteFunc(some, func(k, _ string) bool { _, ok := keys[k]; return !ok })
	return some
}

// TestChartFlags checks that docs/cli.md documents every flag that the chart passes to the
// agent.
func TestChartFlags(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	var help string
	for section := range strings.SplitSeq(string(text), "\n## ") {
		if heading, _, _ := strings.Cut(section, "\n"); heading == "Global flags" || heading == "Flags of a record and its server" || heading == "tokenkeep serve" {
			help += section
		}
	}
	for _, values := range []map[string]any{minimal(), maximal()} {
		r, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		args := r.deployment.Spec.Template.Spec.InitContainers[0].Args
		if args[0] != "serve" || !slices.Contains(args, "--store="+values["store"].(string)) {
			t.Errorf("arguments %q", args)
		}
		for _, arg := range args[1:] {
			name, _, _ := strings.Cut(arg, "=")
			if !regexp.MustCompile(`(?m)^ +(-\w, )?` + name + ` `).MatchString(help) {
				t.Errorf("serve has no %s", name)
			}
		}
	}
}

// TestChartRole checks that the chart makes the Role that a store in Kubernetes needs, in the
// namespace of the store, and no Role for another store.
func TestChartRole(t *testing.T) {
	t.Parallel()
	r, err := render(t, minimal())
	if err != nil {
		t.Fatal(err)
	}
	var want rbacv1.Role
	if err := yaml.UnmarshalStrict([]byte(k8sstore.Policy("tokens", "crm")), &want); err != nil {
		t.Fatal(err)
	}
	if len(r.roles) != 1 || !reflect.DeepEqual(r.roles[0], want) {
		t.Errorf("roles %+v, want %+v", r.roles, want)
	}
	subject := rbacv1.Subject{Kind: "ServiceAccount", Name: "crm", Namespace: "prod"}
	if b := r.bindings[0]; b.Namespace != "tokens" || b.RoleRef.Name != "crm" || !slices.Equal(b.Subjects, []rbacv1.Subject{subject}) {
		t.Errorf("binding %+v", b)
	}
	if r, err = render(t, maximal()); err != nil || len(r.roles) != 0 || len(r.bindings) != 0 {
		t.Errorf("%d roles, %d bindings, %v", len(r.roles), len(r.bindings), err)
	}
}

// TestChartValues checks that the chart rejects missing, unknown and unsafe values.
func TestChartValues(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(map[string]any){
		"no store":            func(v map[string]any) { delete(v, "store") },
		"a store of one Pod":  func(v map[string]any) { v["store"] = "file:tokens.csv" },
		"no prefix":           func(v map[string]any) { v["store"] = "k8s:tokens" },
		"no program":          func(v map[string]any) { delete(v, "app") },
		"another address":     func(v map[string]any) { v["args"] = []any{"--listen=0.0.0.0:2780"} },
		"a second store":      func(v map[string]any) { v["args"] = []any{"--store", "mem:"} },
		"root":                func(v map[string]any) { v["user"] = 0 },
		"a name that is none": func(v map[string]any) { v["replica"] = 2 },
		"too short an end":    func(v map[string]any) { v["terminationGracePeriodSeconds"] = 5 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values := minimal()
			change(values)
			if _, err := render(t, values); err == nil {
				t.Error("the chart takes them")
			}
		})
	}
}
