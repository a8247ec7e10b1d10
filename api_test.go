package tokenkeep_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/filestore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/observe"
	"github.com/tokenkeep/tokenkeep/tokenstore/sqlstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// Programs outside this repository use the names and signatures in this file. These names and
// signatures must not change.

type mintFunc = func(context.Context, tokenstore.Token) (tokenstore.Token, error)

// fixedStore declares the methods of tokenstore.TokenStore.
type fixedStore interface {
	FindToken(ctx context.Context, like tokenstore.Token) (tokenstore.Token, error)
	FindTokenByID(ctx context.Context, id string) (tokenstore.Token, error)
	SaveToken(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error)
	DeleteToken(ctx context.Context, id string) error
	GetTokens(ctx context.Context) ([]tokenstore.Token, error)
	DeleteTokens(ctx context.Context) error
}

// fixedStatus declares the methods of doctor.StatusReader.
type fixedStatus interface {
	Status(ctx context.Context, id string) (doctor.Status, error)
}

type fixedRefresher interface {
	Refresh(ctx context.Context, id string, stale tokenstore.Secret, mint mintFunc) (tokenstore.Token, error)
}

// The first four assignments compile only if the fixed interfaces and those of package
// tokenstore have the same methods. The other assignments compile only if the types have the
// listed methods.
var (
	_ tokenstore.TokenStore = fixedStore(nil)
	_ fixedStore            = tokenstore.TokenStore(nil)
	_ tokenstore.Refresher  = fixedRefresher(nil)
	_ fixedRefresher        = tokenstore.Refresher(nil)

	_ interface {
		fixedStore
		fixedRefresher
		All(ctx context.Context) iter.Seq2[tokenstore.Token, error]
		Close() error
		fixedStatus
	} = (*tokenstore.Store)(nil)
	_ interface {
		fixedStore
		fixedRefresher
		fixedStatus
	} = (*filestore.Store)(nil)
	_ interface {
		fixedStore
		fixedRefresher
		fixedStatus
	} = (*sqlstore.Store)(nil)
	_ interface {
		Equal(other tokenstore.Secret) bool
		LogValue() slog.Value
		MarshalText() ([]byte, error)
		fmt.Formatter
	} = tokenstore.Secret("")
	_ interface{ UnmarshalText(text []byte) error } = (*tokenstore.Secret)(nil)
	_ error                                         = (*tokenstore.RefreshError)(nil)
)

var (
	_ func(driver.Secrets, *tokenstore.Options) (*tokenstore.Store, error)                                               = tokenstore.New
	_ func(*secretsmanager.Client, string, *awssm.Options) (*tokenstore.Store, error)                                    = awssm.New
	_ func(*secretsmanager.Client, string, *awssm.Options) (driver.Secrets, error)                                       = awssm.NewDriver
	_ func(*secretmanager.Client, string, string, *gcpsm.Options) (*tokenstore.Store, error)                             = gcpsm.New
	_ func(*secretmanager.Client, string, string, *gcpsm.Options) (driver.Secrets, error)                                = gcpsm.NewDriver
	_ func(*api.Client, string, string, *vaultstore.Options) (*tokenstore.Store, error)                                  = vaultstore.New
	_ func(*api.Client, string, string, *vaultstore.Options) (driver.Secrets, error)                                     = vaultstore.NewDriver
	_ func(k8sstore.SecretsGetter[corev1.SecretInterface], string, string, *k8sstore.Options) (*tokenstore.Store, error) = k8sstore.New[corev1.SecretInterface]
	_ func(k8sstore.SecretsGetter[corev1.SecretInterface], string, string, *k8sstore.Options) (driver.Secrets, error)    = k8sstore.NewDriver[corev1.SecretInterface]
	_ func(*tokenstore.Options) *tokenstore.Store                                                                        = memstore.New
	_ func(string, *filestore.Options) (*filestore.Store, error)                                                         = filestore.New
	_ func(context.Context, *sql.DB, sqlstore.Dialect, *sqlstore.Options) (*sqlstore.Store, error)                       = sqlstore.New
	_ func(*testing.T, conformance.Store)                                                                                = conformance.RunStore
	_ func(*testing.T, conformance.Driver)                                                                               = conformance.RunDriver
	_ func(*testing.B, conformance.Store)                                                                                = conformance.Bench
)

// Programs use these fields and constants. The names and types of these fields and constants
// must not change.
var _ = []any{
	tokenstore.Token{
		ID: "", UserName: "", ClientID: "", ClientSecret: tokenstore.Secret(""), RefreshToken: tokenstore.Secret(""), AccessToken: tokenstore.Secret(""),
		GrantToken: tokenstore.Secret(""), ExpiresAt: time.Time{}, RedirectURL: "", APIDomain: "",
		Issuer: "", Resource: "", Scope: "", TokenType: "", IDToken: tokenstore.Secret(""), Extra: tokenstore.Secret(""),
	},
	tokenstore.Options{NameKey: []byte(nil), IndexKeys: [][]byte(nil), LeaseTTL: time.Duration(0), Now: time.Now, Logger: (*slog.Logger)(nil), Observer: (*observe.Observer)(nil)},
	tokenstore.Observer{
		Refresh: func(ctx context.Context, _ string) (context.Context, func(observe.Refreshed)) { return ctx, nil },
		Call:    func(ctx context.Context, _ observe.Call) (context.Context, func(observe.Called)) { return ctx, nil },
	},
	observe.Refreshed{Result: observe.ResultMinted, Class: "", Waited: time.Duration(0), Asked: time.Duration(0), Lag: time.Duration(0)},
	observe.Call{Store: "", Operation: observe.OpGet}, observe.Called{Class: observe.ClassThrottled, Took: time.Duration(0)},
	filestore.Options{Observer: (*observe.Observer)(nil)}, sqlstore.Options{Observer: (*observe.Observer)(nil)},
	tokenstore.RefreshError{Code: "", RetryAfter: time.Duration(0), Permanent: false},
	awssm.Options{Store: (*tokenstore.Options)(nil)}, gcpsm.Options{Store: (*tokenstore.Options)(nil)}, vaultstore.Options{Store: (*tokenstore.Options)(nil)},
	k8sstore.Options{Store: (*tokenstore.Options)(nil)},
	sqlstore.SQLite, sqlstore.MySQL,
}

func TestFixedErrors(t *testing.T) {
	t.Parallel()
	classes := []error{
		tokenstore.ErrNotFound, tokenstore.ErrAmbiguous, tokenstore.ErrConflict, tokenstore.ErrIDMismatch, tokenstore.ErrInvalidToken,
		tokenstore.ErrTooLarge, tokenstore.ErrDenied, tokenstore.ErrUnavailable, tokenstore.ErrCorrupt, tokenstore.ErrNotPersisted,
	}
	for i, a := range classes {
		for j, b := range classes {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("whether %q is %q: %v", a, b, i != j)
			}
		}
	}
}
