// Package kubernetessidecar tests the manifest tokenkeep.yaml.
package kubernetessidecar

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	strict "sigs.k8s.io/yaml"

	"github.com/tokenkeep/tokenkeep/examples/internal/sidecarapp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/languages"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := languages.CleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

type objects struct {
	account    v1.ServiceAccount
	role       rbacv1.Role
	binding    rbacv1.RoleBinding
	deployment appsv1.Deployment

	roleText string
}

// read returns the objects in tokenkeep.yaml. It fails the test if an object is missing,
// occurs twice, has an unknown kind, or has a field that its type lacks.
func read(t *testing.T) *objects {
	t.Helper()
	text, err := os.ReadFile("tokenkeep.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{}
	into := map[string]any{"ServiceAccount": &o.account, "Role": &o.role, "RoleBinding": &o.binding, "Deployment": &o.deployment}
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	buffer := make([]byte, len(text))
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind struct{ Kind string }
		if err := strict.Unmarshal(buffer[:n], &kind); err != nil {
			t.Fatal(err)
		}
		object := into[kind.Kind]
		if object == nil {
			t.Fatalf("a second %q, or one that the test does not know", kind.Kind)
		}
		delete(into, kind.Kind)
		if err := strict.UnmarshalStrict(buffer[:n], object); err != nil {
			t.Fatalf("%s: %v", kind.Kind, err)
		}
		if kind.Kind == "Role" {
			o.roleText = string(buffer[:n])
		}
	}
	if len(into) > 0 {
		t.Fatalf("there is no %v", into)
	}
	return o
}

func (o *objects) container(t *testing.T, name string) v1.Container {
	t.Helper()
	pod := o.deployment.Spec.Template.Spec
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no container %q", name)
	return v1.Container{}
}

func TestManifestRole(t *testing.T) {
	t.Parallel()
	o := read(t)
	var want rbacv1.Role
	if err := strict.UnmarshalStrict([]byte(k8sstore.Policy("crm", "tokenkeep")), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(o.role, want) {
		t.Errorf("the Role is %v, and the policy is %v", o.role, want)
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: o.role.Name}
	subject := rbacv1.Subject{Kind: "ServiceAccount", Namespace: o.account.Namespace, Name: o.account.Name}
	if o.binding.RoleRef != ref || !reflect.DeepEqual(o.binding.Subjects, []rbacv1.Subject{subject}) {
		t.Errorf("%v is bound to %v", o.binding.RoleRef, o.binding.Subjects)
	}
	for _, namespace := range []string{o.account.Namespace, o.role.Namespace, o.binding.Namespace, o.deployment.Namespace} {
		if namespace != "crm" {
			t.Errorf("an object is in the namespace %q", namespace)
		}
	}
}

func TestManifestPod(t *testing.T) {
	t.Parallel()
	o := read(t)
	pod := o.deployment.Spec.Template.Spec
	s := pod.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile.Type != v1.SeccompProfileTypeRuntimeDefault {
		t.Error("the containers may be root's, or have no seccomp profile")
	}
	if pod.ServiceAccountName != o.account.Name || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the Pod has another account, or every container gets its token")
	}
	const tokens = "/var/run/secrets/kubernetes.io/serviceaccount"
	for _, name := range []string{"tokenkeep", "app"} {
		c := o.container(t, name)
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.Capabilities == nil || !reflect.DeepEqual(s.Capabilities.Drop, []v1.Capability{"ALL"}) || s.RunAsUser != nil {
			t.Errorf("%s: its root can be written to, or it may do more than it needs, or runs as another user", name)
		}
		mounted := map[string]bool{}
		for _, m := range c.VolumeMounts {
			mounted[m.MountPath] = true
		}
		if mounted[tokens] != (name == "tokenkeep") || !mounted["/run/tokenkeep"] {
			t.Errorf("%s: it mounts %v", name, c.VolumeMounts)
		}
	}
	sidecar := o.container(t, "tokenkeep")
	if sidecar.RestartPolicy == nil || *sidecar.RestartPolicy != v1.ContainerRestartPolicyAlways || !strings.HasPrefix(sidecar.Image, "ghcr.io/tokenkeep/tokenkeep:") {
		t.Error("the agent is no sidecar, or is of another image")
	}
}

// TestProgramWithSidecar runs both containers as processes. The sidecar has only the
// permissions of the Role in the manifest. The test checks that the program can call the API
// through its sidecar, even after the cluster has revoked the sidecar's credential.
func TestProgramWithSidecar(t *testing.T) {
	t.Parallel()
	o := read(t)
	const token = "the-token-of-the-account"
	cluster := fakek8s.New(&fakek8s.Options{TLS: true})
	t.Cleanup(cluster.Close)
	cluster.Namespace("crm", false)
	cluster.Account(token, o.account.Namespace, o.account.Name)
	if err := cluster.Bind(token, o.roleText); err != nil {
		t.Fatal(err)
	}
	b := languages.NewBed(t, "")
	_, access := b.Zoho.Tokens(languages.Consent())
	save(t, cluster, token, access)

	dir := t.TempDir()
	config := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]\nusers: [{name: u, user: {token: %s}}]\n"+
		"contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", cluster.URL, base64.StdEncoding.EncodeToString(cluster.CA), token)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sidecar, app := process(o.container(t, "tokenkeep"), dir), process(o.container(t, "app"), dir)
	sidecar.Env["KUBECONFIG"] = config
	url := sidecarapp.Run(t, "../..", b.Base, sidecar, app)
	if status := sidecarapp.Get(t, url); status != 200 {
		t.Errorf("status %d", status)
	}
	cluster.Revoke(token) // the agent still has the access token in memory
	if status := sidecarapp.Get(t, url); status != 200 {
		t.Errorf("without the store, status %d", status)
	}
}

// process returns the arguments and the environment of c, with dir in place of /run/tokenkeep.
func process(c v1.Container, dir string) sidecarapp.Container {
	here := strings.NewReplacer("/run/tokenkeep", dir)
	p := sidecarapp.Container{Env: map[string]string{}}
	for _, arg := range c.Args {
		p.Args = append(p.Args, here.Replace(arg))
	}
	for _, e := range c.Env {
		p.Env[e.Name] = here.Replace(e.Value)
	}
	return p
}

// save stores the record that the application in the manifest requests.
func save(t *testing.T, cluster *fakek8s.Server, token, access string) {
	t.Helper()
	client, err := corev1.NewForConfig(&rest.Config{Host: cluster.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: cluster.CA}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := k8sstore.New(client, "crm", "oauth", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.SaveToken(t.Context(), tokenstore.Token{
		UserName: "ann@example.com:6001", ClientID: "1000.CLIENT", ClientSecret: "s", RefreshToken: "1000.r",
		AccessToken: tokenstore.Secret(access), ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
}
