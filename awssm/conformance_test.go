package awssm_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/conformance"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A backend opens drivers. Each call of Open starts a server, so that cases do not share a clock.
// Each driver has a separate client, with exactly the permissions that Policy returns.
type backend struct {
	server fakeaws.Options
	opts   *awssm.Options

	calls atomic.Int64
	mu    sync.Mutex
	homes map[driver.Secrets]home
}

type home struct {
	server *fakeaws.Server
	prefix string
}

func newBackend(server fakeaws.Options, opts *awssm.Options) *backend {
	return &backend{server: server, opts: opts, homes: map[driver.Secrets]home{}}
}

func (b *backend) open(t testing.TB, at home) driver.Secrets {
	t.Helper()
	principal := strings.ReplaceAll(at.prefix, "/", ".")
	if err := at.server.Policy(principal, awssm.Policy("*", "*", at.prefix, b.opts)); err != nil {
		t.Fatal(err)
	}
	d, err := awssm.NewDriver(newClient(t, at.server.URL, principal), at.prefix, b.opts)
	if err != nil {
		t.Fatal(err)
	}
	awssm.SetClock(d, at.server.Now)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.homes[d] = at
	return d
}

func (b *backend) home(d driver.Secrets) home {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.homes[d]
}

func (b *backend) driver() conformance.Driver {
	d := conformance.Driver{
		Open: func(t testing.TB) driver.Secrets {
			server := fakeaws.New(&b.server)
			server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
				b.calls.Add(1)
				return nil
			})
			t.Cleanup(server.Close)
			return b.open(t, home{server, "oauth/crm"})
		},
		Reopen: func(t testing.TB, d driver.Secrets) driver.Secrets { return b.open(t, b.home(d)) },
		Sibling: func(t testing.TB, d driver.Secrets) driver.Secrets {
			at := b.home(d)
			return b.open(t, home{at.server, at.prefix + "-2"})
		},
		Tamper: b.tamper,
		Throttle: func(_ testing.TB, d driver.Secrets) func() {
			server := b.home(d).server
			server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
				return &fakeaws.Fault{Code: "ThrottlingException", Message: "Rate exceeded"}
			})
			return func() { server.Inject(nil) }
		},
		Calls: b.calls.Load,
	}
	if lag := max(b.server.ReadLag, b.server.ListLag); lag > 0 {
		d.Settle = func(_ testing.TB, d driver.Secrets) { b.home(d).server.Advance(lag + time.Millisecond) }
	}
	return d
}

// tamper writes data as the next version of the chain, as another program could. A writer
// that has already read the record does not detect a version outside the chain: see
// TestForeignWriteBeforeCommit.
func (b *backend) tamper(t testing.TB, d driver.Secrets, name string, data []byte) {
	t.Helper()
	s, err := d.Fresh(t.Context(), name, driver.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	arn, id := split(awssm.Next(s.Version))
	_, err = newClient(t, b.home(d).server.URL, "operator").PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
		SecretId: &arn, ClientRequestToken: &id, SecretString: aws.String(string(data)),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// anHour holds the options of a server whose reads and lists lag by an hour. AWS documents five
// minutes for lists.
var anHour = fakeaws.Options{ReadLag: time.Hour, ListLag: time.Hour}

func TestDriverConforms(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(fakeaws.Options{}, nil).driver())
}

func TestDriverConformsStaleAnswers(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(anHour, nil).driver())
}

func TestDriverConformsSlowDeletion(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(fakeaws.Options{DeleteDelay: 20 * time.Millisecond}, nil).driver())
}

func TestDriverConformsKeepDeleted(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(fakeaws.Options{}, &awssm.Options{KeepDeleted: true}).driver())
}

// localStack holds the options of a server that behaves like LocalStack, which contributors and
// continuous integration use.
var localStack = fakeaws.Options{LocalStack: true}

func TestDriverConformsOnLocalStack(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(localStack, nil).driver())
}

func TestKeptSecretsConformOnLocalStack(t *testing.T) {
	t.Parallel()
	conformance.RunDriver(t, newBackend(localStack, &awssm.Options{KeepDeleted: true}).driver())
}

func TestStoreConformsOnLocalStack(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(localStack, nil).driver().Store(t, nil))
}

func TestStoreConforms(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(fakeaws.Options{}, nil).driver().Store(t, nil))
}

func TestStoreConformsThoughListsAreAnHourOld(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(fakeaws.Options{ListLag: time.Hour}, nil).driver().Store(t, nil))
}

func TestStoreConformsStaleAnswers(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(anHour, nil).driver().Store(t, nil))
}

func TestStoreConformsWithKeys(t *testing.T) {
	t.Parallel()
	conformance.RunStore(t, newBackend(fakeaws.Options{}, &awssm.Options{
		KMSKeyID: "arn:aws:kms:us-east-1:" + fakeaws.Account + ":key/0f9c5b3e-oauth",
		Tags:     map[string]string{"team": "crm"},
	}).driver().Store(t, &tokenstore.Options{
		NameKey:   []byte("a key of names, 16 bytes or more"),
		IndexKeys: [][]byte{[]byte("a key of labels, 16 bytes or more"), []byte("an earlier key of labels")},
	}))
}

func BenchmarkStore(b *testing.B) {
	conformance.Bench(b, newBackend(fakeaws.Options{}, nil).driver().Store(b, nil))
}
