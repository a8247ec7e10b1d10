package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	rbacv1 "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// kubeconfigEnv is the name of the environment variable with the path of the client configuration
// for an external cluster.
const kubeconfigEnv = "TOKENKEEP_KUBECONFIG"

// A Kubernetes is a running API server.
type Kubernetes struct {
	*Server
	CA []byte // CA for clients to trust, in PEM

	admin *rest.Config
}

// SharedKubernetes returns the API server that the tests share: the server that
// TOKENKEEP_KUBECONFIG names, or a server that is started for all tests. If no server is
// available, SharedKubernetes skips the test or, if TOKENKEEP_REQUIRE names the backend, fails
// the test.
func SharedKubernetes(t testing.TB) *Kubernetes {
	t.Helper()
	path := os.Getenv(kubeconfigEnv)
	server := KubernetesBackend.sharedServer(t, func(ctx context.Context) (*Server, error) {
		if path == "" {
			return startKubernetes(ctx, 5*time.Minute)
		}
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			return nil, err
		}
		version, err := kubernetesVersion(config)
		return (&Server{what: "server " + config.Host, about: version + ", real"}).orStop(err)
	})
	server.Watch(t)
	if path == "" {
		return ownKubernetes(t, server)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err == nil {
		err = rest.LoadTLSFiles(config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Kubernetes{Server: server, CA: config.CAData, admin: config}
}

// StartKubernetes starts an API server for one test. The server can be killed, and keeps its
// data when it is started again. The server is stopped when the test and its subtests end.
// compaction is the interval at which the server's etcd discards old revisions. If
// TOKENKEEP_KUBECONFIG is set, StartKubernetes skips the test.
func StartKubernetes(t testing.TB, compaction time.Duration) *Kubernetes {
	t.Helper()
	if os.Getenv(kubeconfigEnv) != "" {
		KubernetesBackend.Cannot(t, "the cluster that "+kubeconfigEnv+" names is not the test's own")
	}
	server, err := startKubernetes(t.Context(), compaction)
	KubernetesBackend.must(t, err)
	KubernetesBackend.ranOn(server)
	server.cleanUp(t)
	return ownKubernetes(t, server)
}

func ownKubernetes(t testing.TB, server *Server) *Kubernetes {
	t.Helper()
	config, err := kubernetesConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	return &Kubernetes{Server: server, CA: config.CAData, admin: config}
}

func startKubernetes(ctx context.Context, compaction time.Duration) (*Server, error) {
	program, err := kubedev()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "tokenkeep-kubernetes-")
	if err != nil {
		return nil, err
	}
	run, addr, err := startProcess(ctx, scratch, func() *exec.Cmd {
		cmd := exec.Command(program, "-stdin", "-storage", scratch, "-compact-every", compaction.String())
		cmd.Env = append(os.Environ(), "KUBEDEV_TOKEN="+kubernetesToken())
		return cmd
	})
	if err != nil {
		return nil, err
	}
	server := &Server{Addr: addr, what: "process kubedev", run: run}
	config, err := kubernetesConfig(server)
	if err != nil {
		return server.orStop(err)
	}
	version, err := kubernetesVersion(config)
	server.about = version + ", kube-apiserver and etcd, built here"
	return server.orStop(err)
}

// kubernetesToken returns the administrator's token for servers that the tests start.
var kubernetesToken = sync.OnceValue(func() string { return "admin-" + rand.Text() })

// kubernetesConfig returns the administrator's client configuration for a server that the tests
// started.
func kubernetesConfig(server *Server) (*rest.Config, error) {
	ca, err := os.ReadFile(filepath.Join(server.run.(*process).scratch, "apiserver.crt"))
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: "https://" + server.Addr, BearerToken: kubernetesToken(), QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}, nil
}

func kubernetesVersion(config *rest.Config) (string, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return "", err
	}
	version, err := client.ServerVersion()
	if err != nil {
		return "", err
	}
	return "Kubernetes " + version.Major + "." + version.Minor, nil
}

// URL returns the base URL of the server.
func (k *Kubernetes) URL() string {
	if k.own() {
		return "https://" + k.Addr
	}
	return k.admin.Host
}

// Config returns a client configuration with token, or with the administrator's credentials
// if token is empty.
func (k *Kubernetes) Config(token string) *rest.Config {
	config := rest.CopyConfig(k.admin)
	if token != "" {
		config = rest.AnonymousClientConfig(k.admin)
		config.BearerToken = token
	}
	config.Host, config.QPS = k.URL(), -1
	return config
}

// Client returns a client with token, or with the administrator's credentials if token is
// empty.
func (k *Kubernetes) Client(t testing.TB, token string) *corev1.CoreV1Client {
	t.Helper()
	client, err := corev1.NewForConfig(k.Config(token))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Namespace creates a namespace and returns its name. On a server that the tests did not
// start, the namespace is deleted when the test ends.
func (k *Kubernetes) Namespace(t testing.TB) string {
	t.Helper()
	name, namespaces := unique(), k.Client(t, "").Namespaces()
	if _, err := namespaces.Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if !k.own() {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			if err := namespaces.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
	return name
}

// Account creates a service account with the permissions of the Role in document, which is YAML.
// The Role must allow get on Secrets. Account waits until the server has applied the Role, and
// returns a token of the service account.
func (k *Kubernetes) Account(t testing.TB, namespace, document string) string {
	t.Helper()
	var role rbac.Role
	if err := yaml.UnmarshalStrict([]byte(document), &role); err != nil {
		t.Fatal(err)
	}
	client, err := rbacv1.NewForConfig(k.Config(""))
	if err != nil {
		t.Fatal(err)
	}
	name := unique()
	role.Name = name
	accounts := k.Client(t, "").ServiceAccounts(namespace)
	meta := metav1.ObjectMeta{Name: name}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = accounts.Create(t.Context(), &v1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	must(err)
	_, err = client.Roles(namespace).Create(t.Context(), &role, metav1.CreateOptions{})
	must(err)
	_, err = client.RoleBindings(namespace).Create(t.Context(), &rbac.RoleBinding{
		ObjectMeta: meta, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: name},
		Subjects: []rbac.Subject{{Kind: rbac.ServiceAccountKind, Namespace: namespace, Name: name}},
	}, metav1.CreateOptions{})
	must(err)
	answer, err := accounts.CreateToken(t.Context(), name, &authentication.TokenRequest{}, metav1.CreateOptions{})
	must(err)
	// The server applies a new binding asynchronously, and refuses the get until the binding is
	// applied.
	secrets := k.Client(t, answer.Status.Token).Secrets(namespace)
	Eventually(t, func() error {
		if _, err := secrets.Get(t.Context(), "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the role is not in force: %w", err)
		}
		return nil
	})
	return answer.Status.Token
}
