package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// trip is the time that a call takes on the virtual clock.
const trip = 20 * time.Millisecond

// A remote opens stores on a service, with clients that run in a bubble of testing/synctest.
// Each call takes trip. The clients retry as their SDKs do by default.
type remote struct {
	open  func() *tokenstore.Store
	meter *meter
}

// farServices maps each service to a function that starts the service, with or without quotas.
// Tests call the function outside of a bubble, and call the result of the function inside the
// bubble.
var farServices = map[string]func(t *testing.T, quotas bool) func(t *testing.T) remote{
	"aws":   farAWS,
	"gcp":   farGCP,
	"vault": farVault,
	"k8s":   farK8s,
}

func farMeter() *meter {
	m := &meter{counts: map[string]int{}}
	m.delay.Store(int64(trip))
	return m
}

func opened(t *testing.T, s *tokenstore.Store, err error) *tokenstore.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func farAWS(_ *testing.T, quotas bool) func(t *testing.T) remote {
	opts := &fakeaws.Options{}
	if quotas {
		opts.Quotas = fakeaws.Documented()
	}
	server := fakeaws.NewService(opts)
	return func(t *testing.T) remote {
		m := farMeter()
		client := secretsmanager.New(secretsmanager.Options{
			BaseEndpoint: aws.String("http://secretsmanager.example"),
			Region:       "us-east-1",
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "evidence", SecretAccessKey: "evidence"}, nil
			}),
			HTTPClient: wholesend.Client{Doer: &http.Client{Transport: inProcess{m, server, func(r *http.Request) string {
				_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
				return operation
			}}}},
		})
		return remote{func() *tokenstore.Store { s, err := awssm.New(client, recordPrefix, nil); return opened(t, s, err) }, m}
	}
}

func farGCP(t *testing.T, quotas bool) func(t *testing.T) remote {
	opts := &fakegcp.Options{}
	if quotas {
		opts.Quota = fakegcp.Documented()
	}
	server := fakegcp.New(opts)
	t.Cleanup(server.Close)
	return func(t *testing.T) remote {
		m := farMeter()
		inProcess := grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			if err := m.call(ctx, method[strings.LastIndexByte(method, '/')+1:]); err != nil {
				return err
			}
			return server.Invoke(ctx, method, req, reply)
		})
		noNetwork := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		client, err := secretmanager.NewClient(t.Context(), append(server.ClientOptions(), option.WithGRPCDialOption(inProcess), option.WithGRPCDialOption(noNetwork))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return remote{func() *tokenstore.Store {
			s, err := gcpsm.New(client, project, recordPrefix, nil)
			return opened(t, s, err)
		}, m}
	}
}

func farVault(t *testing.T, quotas bool) func(t *testing.T) remote {
	opts := &fakevault.Options{}
	if quotas {
		opts.Rate = fakeserver.PerSecond(100)
	}
	server := fakevault.New(opts)
	t.Cleanup(server.Close)
	return func(t *testing.T) remote {
		m := farMeter()
		config := api.DefaultConfig()
		config.Address = server.URL
		config.HttpClient = &http.Client{Transport: inProcess{m, server, vaultMethod}}
		client, err := api.NewClient(config)
		if err != nil {
			t.Fatal(err)
		}
		client.SetToken(fakevault.RootToken)
		return remote{func() *tokenstore.Store {
			s, err := vaultstore.New(client, "secret", recordPrefix, nil)
			return opened(t, s, err)
		}, m}
	}
}

// farK8s starts a service without quotas, because Kubernetes documents none.
func farK8s(t *testing.T, _ bool) func(t *testing.T) remote {
	server := fakek8s.New(nil)
	t.Cleanup(server.Close)
	return func(t *testing.T) remote {
		m := farMeter()
		client, err := corev1.NewForConfig(&rest.Config{
			Host: server.URL, BearerToken: fakek8s.AdminToken, QPS: -1, Transport: inProcess{m, server, k8sVerb},
		})
		if err != nil {
			t.Fatal(err)
		}
		return remote{func() *tokenstore.Store {
			s, err := k8sstore.New(client, "default", recordPrefix, nil)
			return opened(t, s, err)
		}, m}
	}
}

// inBubble starts a service, and runs f in a bubble with a remote for the service.
func inBubble(t *testing.T, service string, quotas bool, f func(t *testing.T, on remote)) {
	start := farServices[service](t, quotas)
	synctest.Test(t, func(t *testing.T) { f(t, start(t)) })
}

// A source is a store from which a test migrates tokens. The value of a source is the number of
// tokens. Each token belongs to a different user.
type source int

func (n source) GetTokens(context.Context) ([]tokenstore.Token, error) {
	tokens := make([]tokenstore.Token, n)
	for i := range tokens {
		tokens[i] = numbered(i, far)
	}
	return tokens, nil
}

// TestMigrate_Calls checks that a migration, its repetition and an import do not exceed a
// limit of calls for each record. The test also checks that an import takes at most an eighth of
// the time of consecutive calls.
func TestMigrate_Calls(t *testing.T) {
	const records = 400
	for service, most := range map[string]struct{ first, again, imported float64 }{
		"aws":   {1.1, 0.1, 1.05},
		"gcp":   {4.05, 1.05, 3.05},
		"vault": {6.05, 1.05, 5.05},
		"k8s":   {2.05, 1.05, 1.05},
	} {
		runs := func(t *testing.T, on remote, o migrate.Options, most float64) {
			t.Helper()
			on.meter.take()
			m, err := migrate.Plan(t.Context(), source(records), on.open(), &o)
			if err != nil {
				t.Fatal(err)
			}
			r, err := m.Run(t.Context())
			if err != nil || r.Verified != records {
				t.Fatalf("%d verified, %v", r.Verified, err)
			}
			counts := on.meter.take()
			if calls := float64(total(counts)) / records; calls > most {
				t.Errorf("%.3f calls a record, at most %.3f are allowed: %v", calls, most, counts)
			}
		}
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			inBubble(t, service, false, func(t *testing.T, on remote) {
				runs(t, on, migrate.Options{}, most.first)
				runs(t, on, migrate.Options{}, most.again)
			})
		})
		t.Run(service+"/import", func(t *testing.T) {
			t.Parallel()
			inBubble(t, service, false, func(t *testing.T, on remote) {
				began := time.Now()
				runs(t, on, migrate.Options{OnConflict: migrate.Merge}, most.imported)
				if took, alone := time.Since(began), time.Duration(most.imported*records*float64(trip)); took > alone/8 {
					t.Errorf("took %v, and one record after the other takes %v", took, alone)
				}
			})
		})
	}
}

// TestMigrate_Quota checks that a migration under the documented quotas completes in one run.
// On services with a quota, the migration must reach at least nine tenths of the speed that
// the quota allows.
func TestMigrate_Quota(t *testing.T) {
	const records = 1000
	for service, quota := range map[string]struct{ rate, burst float64 }{
		"aws":   {50, 50},               // CreateSecret
		"gcp":   {600.0 / 60 / 3, 200},  // writes; each record takes three
		"vault": {100.0 / 5, 100.0 / 5}, // calls; each record takes five
		"k8s":   {},                     // no quota
	} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			inBubble(t, service, true, func(t *testing.T, on remote) {
				var mu sync.Mutex
				var began, ended time.Time
				m, err := migrate.Plan(t.Context(), source(records), on.open(), &migrate.Options{Progress: func(p migrate.Progress) {
					mu.Lock()
					defer mu.Unlock()
					if p.Step == migrate.StepWrite {
						ended = time.Now()
						if p.Done == 0 {
							began = ended
						}
					}
				}})
				if err != nil {
					t.Fatal(err)
				}
				r, err := m.Run(t.Context())
				if err != nil || r.Verified != records {
					t.Fatalf("%d of %d verified, %v; %v", r.Verified, records, err, on.meter.take())
				}
				result := migration{Service: service, Records: records, Verified: r.Verified, Calls: total(on.meter.take()), Took: ended.Sub(began)}
				if quota.rate > 0 {
					result.Least = time.Duration((records - quota.burst) / quota.rate * float64(time.Second))
				}
				report(t, attrMigration, result)
				if quota.rate > 0 && result.Least.Seconds() < 0.9*result.Took.Seconds() {
					t.Errorf("took %v, and the quota allows %v", result.Took, result.Least)
				}
			})
		})
	}
}

// many returns a store with n records on the remote. When many returns, the buckets of the quotas
// are full, and the counts of the calls are zero.
func many(t *testing.T, on remote, n int) *tokenstore.Store {
	t.Helper()
	s := on.open()
	m, err := migrate.Plan(t.Context(), source(n), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Minute)
	on.meter.take()
	return s
}

// TestDelete_Quota checks that DeleteTokens under the documented quotas deletes all records
// in one call. DeleteTokens must reach at least four fifths of the speed that the quota
// allows.
func TestDelete_Quota(t *testing.T) {
	const records = 1000
	for service, quota := range map[string]struct{ calls, rate, burst float64 }{
		"aws":   {1, 50, 50},        // one PutSecretValue and one DeleteSecret, with equal quotas
		"gcp":   {1, 600 / 60, 600}, // writes
		"vault": {7, 100, 100},      // all calls; a record with three labels takes seven
	} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			inBubble(t, service, true, func(t *testing.T, on remote) {
				s := many(t, on, records)
				began := time.Now()
				if err := s.DeleteTokens(t.Context()); err != nil {
					t.Fatalf("after %v: %v; %v", time.Since(began), err, on.meter.take())
				}
				took, counts := time.Since(began).Seconds(), on.meter.take()
				if best := (records*quota.calls - quota.burst) / quota.rate; best < 0.8*took {
					t.Errorf("took %.1f s, and the quota allows %.1f s: %v", took, best, counts)
				}
				if left, err := on.open().GetTokens(t.Context()); err != nil || len(left) > 0 {
					t.Errorf("%d records are left, %v", len(left), err)
				}
			})
		})
	}
}

// TestList_Quota checks that GetTokens on AWS reaches at least four fifths of the speed that
// the quota of BatchGetSecretValue allows. GetTokens must also take at most half the time of
// consecutive calls.
func TestList_Quota(t *testing.T) {
	const records, batch, rate, burst = 6000, 20, 100.0, 100.0
	inBubble(t, "aws", true, func(t *testing.T, on remote) {
		many(t, on, records)
		began := time.Now()
		tokens, err := on.open().GetTokens(t.Context())
		took, counts := time.Since(began), on.meter.take()
		t.Logf("%v, calls %v", took, counts)
		if err != nil || len(tokens) != records {
			t.Errorf("%d tokens, %v; %v", len(tokens), err, counts)
		}
		if best := (records/batch - burst) / rate; best < 0.8*took.Seconds() {
			t.Errorf("took %v, and the quota allows %.1f s: %v", took, best, counts)
		}
		if alone := records / batch * trip; took > alone/2 {
			t.Errorf("took %v, and consecutive calls take %v", took, alone)
		}
	})
}
