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

	_ "modernc.org/sqlite"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
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

// A place is where a store keeps its records. It goes to other processes on their
// standard input: it holds credentials.
type place struct {
	Backend string // as TOKENKEEP_REQUIRE calls it, or a kind that needs no server
	Addr    string // of Vault or Google's Secret Manager, or the endpoint of AWS Secrets Manager
	Token   string // for Vault
	Mount   string // for Vault
	Parent  string // for Google
	Prefix  string // for all of these
	DSN     string // for MySQL
	Path    string // of a file, which may be a database of SQLite
}

// A store is all that the tests ask of a store.
type store interface {
	tokenstore.TokenStore
	tokenstore.Refresher
}

// A manner is how a process uses a store.
type manner struct {
	LeaseTTL time.Duration // 0: the default
	Off      time.Duration // how wrong its clock is
	Death    death
}

func (m manner) now() time.Time { return time.Now().Add(m.Off) }

// open opens a store that shares nothing with others.
func (p place) open(ctx context.Context) (store, error) {
	return p.openAs(ctx, manner{}, &probe{})
}

// mustOpen is open, until the test is over.
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

// openAs opens a store that the probe sees the requests of.
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

// sqlite is the data source name of the database.
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

// A kind of place is on a server that the tests share, or needs none.
type kindOfPlace struct {
	backend *Backend // nil: it needs no server
	name    string
	at      func(t *testing.T) place // a new one
}

// count counts the test among the cases of the backend, if there is one.
func (k kindOfPlace) count(t *testing.T) {
	t.Helper()
	if k.backend != nil {
		k.backend.Count(t)
	}
}

// places are all kinds.
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
	{nil, sqlitePlace, func(t *testing.T) place {
		t.Helper()
		return place{Backend: sqlitePlace, Path: filepath.Join(t.TempDir(), "tokens.db")}
	}},
	{nil, filePlace, func(t *testing.T) place {
		t.Helper()
		return place{Backend: filePlace, Path: filepath.Join(t.TempDir(), "tokens.csv")}
	}},
}

// onEach runs a test on each kind of place, one after the other.
func onEach(t *testing.T, test func(t *testing.T, k kindOfPlace)) {
	t.Helper()
	for _, k := range places {
		t.Run(k.name, func(t *testing.T) {
			k.count(t)
			test(t, k)
		})
	}
}
