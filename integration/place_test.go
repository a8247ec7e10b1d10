package integration

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	_ "modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// Kinds of places that need no server.
const (
	sqlitePlace = "sqlite"
	filePlace   = "file"
)

// A place identifies the records of a store. Tests pass a place to other processes on standard
// input, because the place contains credentials.
type place struct {
	Backend string // name in TOKENKEEP_REQUIRE, or a kind that needs no server
	Addr    string // address of Vault, Kubernetes or Google's Secret Manager, or endpoint of AWS Secrets Manager
	Token   string // for Vault and Kubernetes
	CA      []byte // for Kubernetes
	Mount   string // for Vault; for Kubernetes, the namespace
	Parent  string // for Google
	Prefix  string // prefix of the names of secrets
	DSN     string // for MySQL
	Path    string // path of a token file or a SQLite database
}

type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
}

// A manner holds the settings with which a process uses a store.
type manner struct {
	LeaseTTL time.Duration // 0 means the default
	Off      time.Duration // error of the process's clock
	Death    death
}

func (m manner) now() time.Time { return time.Now().Add(m.Off) }

func (p place) open(ctx context.Context) (store, error) {
	return p.openAs(ctx, manner{}, &probe{})
}

// mustOpen opens a store. The connections of the store are closed when the test ends.
func (p place) mustOpen(t *testing.T) store {
	t.Helper()
	seen := &probe{}
	s, err := p.openAs(t.Context(), manner{}, seen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(seen.close)
	return s
}

// openAs opens a store whose requests the probe observes.
func (p place) openAs(ctx context.Context, m manner, seen *probe) (store, error) {
	switch p.Backend {
	case filePlace:
		return filestore.New(p.Path, &filestore.Options{LeaseTTL: m.LeaseTTL, Now: seen.looks(m.now)})
	case sqlitePlace:
		return p.openSQL(ctx, "sqlite", p.sqlite(), sqlstore.SQLite, m, seen)
	case MySQLBackend.Name:
		return p.openSQL(ctx, "mysql", p.DSN, sqlstore.MySQL, m, seen)
	}
	d, err := p.driver(ctx, seen)
	if err != nil {
		return nil, err
	}
	return tokenstore.New(seen.driver(d), &tokenstore.Options{LeaseTTL: m.LeaseTTL, Now: m.now})
}

func (p place) sqlite() string {
	return "file:" + p.Path + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)"
}

func (p place) openSQL(ctx context.Context, driver, dsn string, dialect sqlstore.Dialect, m manner, seen *probe) (store, error) {
	db, err := seen.db(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(16)
	return sqlstore.New(ctx, db, dialect, &sqlstore.Options{LeaseTTL: m.LeaseTTL, Now: m.now})
}

func (p place) driver(ctx context.Context, seen *probe) (driver.Secrets, error) {
	switch p.Backend {
	case VaultBackend.Name:
		client, err := p.vault(seen)
		if err != nil {
			return nil, err
		}
		return vaultstore.NewDriver(client, p.Mount, p.Prefix, nil)
	case LocalstackBackend.Name:
		client, err := p.aws(ctx, seen)
		if err != nil {
			return nil, err
		}
		return awssm.NewDriver(client, p.Prefix, nil)
	case GCPBackend.Name:
		client, err := p.gcp(ctx, seen)
		if err != nil {
			return nil, err
		}
		return gcpsm.NewDriver(client, p.Parent, p.Prefix, nil)
	case KubernetesBackend.Name:
		client, err := p.kubernetes(seen)
		if err != nil {
			return nil, err
		}
		return k8sstore.NewDriver(client, p.Mount, p.Prefix, nil)
	default:
		return nil, fmt.Errorf("no backend %q", p.Backend)
	}
}

func (p place) vault(seen *probe) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address, config.AgentAddress = p.Addr, ""
	transport := config.HttpClient.Transport.(*http.Transport)
	seen.closing(transport.CloseIdleConnections)
	config.HttpClient.Transport = probedTransport{transport, seen}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(p.Token)
	return client, nil
}

func (p place) kubernetes(seen *probe) (corev1.SecretsGetter, error) {
	return corev1.NewForConfig(&rest.Config{
		Host: p.Addr, BearerToken: p.Token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: p.CA},
		WrapTransport: func(t http.RoundTripper) http.RoundTripper { return probedTransport{t, seen} },
	})
}

func (p place) aws(ctx context.Context, seen *probe) (*secretsmanager.Client, error) {
	return awsClient(ctx, p.Addr, func(o *secretsmanager.Options) { o.HTTPClient = seen.client() })
}

func (p place) gcp(ctx context.Context, seen *probe) (*secretmanager.Client, error) {
	client, err := gcpClient(ctx, p.Addr, option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(seen.interceptor)))
	if err == nil {
		seen.closing(func() { _ = client.Close() })
	}
	return client, err
}

// A kindOfPlace creates places of one kind: on a server that the tests share, or without a server.
type kindOfPlace struct {
	backend *Backend // nil if the kind needs no server
	name    string
	at      func(t *testing.T) place // returns a new place
}

func (k kindOfPlace) count(t *testing.T) {
	t.Helper()
	if k.backend != nil {
		k.backend.Count(t)
	}
}

var places = []kindOfPlace{
	{VaultBackend, "vault", func(t *testing.T) place {
		t.Helper()
		v := SharedVault(t)
		return place{Backend: VaultBackend.Name, Addr: v.Addr, Token: v.RootToken, Mount: v.Mount, Prefix: v.Prefix(t)}
	}},
	{LocalstackBackend, "localstack", func(t *testing.T) place {
		t.Helper()
		a := SharedAWS(t)
		return place{Backend: LocalstackBackend.Name, Addr: a.endpoint, Prefix: a.Prefix(t)}
	}},
	{GCPBackend, "gcp", func(t *testing.T) place {
		t.Helper()
		g := SharedGCP(t)
		return place{Backend: GCPBackend.Name, Addr: g.Addr, Parent: g.Parent, Prefix: g.Prefix(t)}
	}},
	{MySQLBackend, "mysql", func(t *testing.T) place {
		t.Helper()
		return place{Backend: MySQLBackend.Name, DSN: SharedMySQL(t).Database(t)}
	}},
	{KubernetesBackend, "kubernetes", func(t *testing.T) place {
		t.Helper()
		k := SharedKubernetes(t)
		namespace := k.Namespace(t)
		token := k.Account(t, namespace, k8sstore.Policy(namespace, "tokens"))
		return place{Backend: KubernetesBackend.Name, Addr: k.URL(), CA: k.CA, Token: token, Mount: namespace, Prefix: "crm"}
	}},
	{nil, sqlitePlace, func(t *testing.T) place {
		t.Helper()
		return place{Backend: sqlitePlace, Path: filepath.Join(t.TempDir(), "tokens.db")}
	}},
	{nil, filePlace, func(t *testing.T) place {
		t.Helper()
		return place{Backend: filePlace, Path: filepath.Join(t.TempDir(), "tokens.csv")}
	}},
}

// onEach runs test as a subtest for each kind of place. The subtests run one after another.
func onEach(t *testing.T, test func(t *testing.T, k kindOfPlace)) {
	t.Helper()
	for _, k := range places {
		t.Run(k.name, func(t *testing.T) {
			k.count(t)
			test(t, k)
		})
	}
}
