package evidence

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// A Fault is what goes wrong with one call.
type Fault int

// The faults. A process that is killed makes no call afterwards.
const (
	Denied       Fault = iota // refused, and not applied
	AnswerLost                // applied, and the connection breaks
	TimedOut                  // not applied, and no answer until the caller's time is up
	TimedOutDone              // applied, and no answer until the caller's time is up
	Throttled                 // not applied
	ServerError               // not applied
	Reset                     // the connection breaks, and not applied
	Stale                     // a read answers with what was true an hour ago
	KilledBefore              // the process dies before the call
	KilledAfter               // and just after it was applied
	ClockBack                 // the process's clock is set back by an hour, and the call goes on
	faults

	// Behind is a read that answers with what was true a moment ago. Histories have
	// it, and not the matrix, where Stale finds more.
	Behind = faults
)

// moment is how far a read that is Behind is behind: a few operations.
const moment = 30 * time.Millisecond

// Faults returns all of them.
func Faults() []Fault {
	all := make([]Fault, faults)
	for i := range all {
		all[i] = Fault(i)
	}
	return all
}

// String returns a heading.
func (f Fault) String() string {
	return [...]string{"denied", "answer lost", "time-out", "time-out, applied", "throttled", "5xx", "reset", "stale read",
		"killed before", "killed after", "clock back", "read behind"}[f]
}

func (f Fault) killed() bool   { return f == KilledBefore || f == KilledAfter }
func (f Fault) timedOut() bool { return f == TimedOut || f == TimedOutDone }

// A Service is a secret manager in this process, with an empty namespace.
type Service struct {
	Name string

	// advance moves the service's clock, and calls counts its requests.
	advance func(time.Duration)
	calls   func() int

	driver func() (driver.Secrets, error)
	inject func(fault func() (Fault, bool), hold <-chan struct{})
	close  func()
	stales bool // it has reads that lag
}

// open returns a store on the service, as another process has it.
func (svc *Service) open(opts *tokenstore.Options) (*tokenstore.Store, error) {
	d, err := svc.driver()
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, opts)
}

// Start starts services by name: "aws", "gcp", "vault".
var Start = map[string]func() *Service{"aws": startAWS, "gcp": startGCP, "vault": startVault}

// Names are the services in the order of the tables.
var Names = []string{"aws", "gcp", "vault"}

// A clock is the real one, moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) set(d time.Duration)     { c.ahead.Store(int64(d)) }

func startAWS() *Service {
	server := fakeaws.New(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	return &Service{
		Name:    "aws",
		stales:  true,
		advance: server.Advance,
		calls:   func() int { return total(server.Count()) },
		driver: func() (driver.Secrets, error) {
			return awssm.NewDriver(awsClient(server.URL, transport), "tokens", nil)
		},
		inject: func(fault func() (Fault, bool), hold <-chan struct{}) {
			server.Inject(func(*fakeaws.Request) *fakeaws.Fault {
				f, ok := next(fault)
				if !ok {
					return nil
				}
				switch f {
				case Denied:
					return &fakeaws.Fault{Code: "AccessDeniedException", Message: "not allowed"}
				case TimedOut:
					return &fakeaws.Fault{Wait: hold, Drop: true}
				case TimedOutDone:
					return &fakeaws.Fault{Applied: true, Hold: hold, Drop: true}
				case Throttled:
					return &fakeaws.Fault{Code: "ThrottlingException", Message: "Rate exceeded"}
				case ServerError:
					return &fakeaws.Fault{Code: "InternalServiceError", Status: http.StatusInternalServerError}
				case Reset, KilledBefore:
					return &fakeaws.Fault{Drop: true}
				case Stale:
					return &fakeaws.Fault{Stale: time.Hour}
				case Behind:
					return &fakeaws.Fault{Stale: moment}
				default:
					return &fakeaws.Fault{Applied: true, Drop: true}
				}
			})
		},
		close: func() {
			server.Close()
			transport.CloseIdleConnections()
		},
	}
}

func awsClient(url string, transport http.RoundTripper) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		BaseEndpoint: aws.String(url),
		Region:       "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "evidence", SecretAccessKey: "evidence"}, nil
		}),
		Retryer:    aws.NopRetryer{}, // each fault reaches the adapter
		HTTPClient: wholesend.Client{Doer: &http.Client{Transport: transport}},
	})
}

func startGCP() *Service {
	server := fakegcp.New(nil)
	var mu sync.Mutex
	var clients []*secretmanager.Client
	return &Service{
		Name:    "gcp",
		stales:  true,
		advance: server.Advance,
		calls:   func() int { return total(server.Count()) },
		driver: func() (driver.Secrets, error) {
			client, err := secretmanager.NewClient(context.Background(), server.ClientOptions()...)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			clients = append(clients, client)
			mu.Unlock()
			return gcpsm.NewDriver(client, "projects/evidence", "tokens", nil)
		},
		inject: func(fault func() (Fault, bool), hold <-chan struct{}) {
			server.Inject(func(*fakegcp.Call) *fakegcp.Fault {
				f, ok := next(fault)
				if !ok {
					return nil
				}
				broken := status.Error(codes.Unavailable, "the connection was reset")
				switch f {
				case Denied:
					return &fakegcp.Fault{Err: status.Error(codes.PermissionDenied, "not allowed")}
				case TimedOut:
					return &fakegcp.Fault{Wait: hold, Err: broken}
				case TimedOutDone:
					return &fakegcp.Fault{Applied: true, Hold: hold, Err: broken}
				case Throttled:
					return &fakegcp.Fault{Err: status.Error(codes.ResourceExhausted, "quota exceeded")}
				case ServerError:
					return &fakegcp.Fault{Err: status.Error(codes.Internal, "internal error")}
				case Reset, KilledBefore:
					return &fakegcp.Fault{Err: broken}
				case Stale:
					return &fakegcp.Fault{Stale: time.Hour}
				case Behind:
					return &fakegcp.Fault{Stale: moment}
				default:
					return &fakegcp.Fault{Applied: true, Err: broken}
				}
			})
		},
		close: func() {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range clients {
				_ = c.Close()
			}
			server.Close()
		},
	}
}

func startVault() *Service {
	server := fakevault.New(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	return &Service{
		Name:    "vault",
		advance: server.Advance,
		calls:   func() int { return len(server.Requests()) },
		driver: func() (driver.Secrets, error) {
			client, err := vaultClient(server.URL, transport)
			if err != nil {
				return nil, err
			}
			return vaultstore.NewDriver(client, "secret", "tokens", nil)
		},
		inject: func(fault func() (Fault, bool), hold <-chan struct{}) {
			server.Inject(func(*fakevault.Request) *fakevault.Fault {
				f, ok := next(fault)
				if !ok {
					return nil
				}
				switch f {
				case Denied:
					return &fakevault.Fault{Status: http.StatusForbidden, Errors: []string{"permission denied"}}
				case TimedOut:
					return &fakevault.Fault{Wait: hold, Drop: true}
				case TimedOutDone:
					return &fakevault.Fault{Applied: true, Hold: hold, Drop: true}
				case Throttled:
					return &fakevault.Fault{Status: http.StatusTooManyRequests, Errors: []string{"rate limit quota exceeded"}}
				case ServerError:
					return &fakevault.Fault{Status: http.StatusInternalServerError, Errors: []string{"internal error"}}
				case Reset, KilledBefore:
					return &fakevault.Fault{Drop: true}
				case Stale, Behind:
					return nil
				default:
					return &fakevault.Fault{Applied: true, Drop: true}
				}
			})
		},
		close: func() {
			server.Close()
			transport.CloseIdleConnections()
		},
	}
}

func vaultClient(url string, transport *http.Transport) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = url
	config.MaxRetries = 0
	config.HttpClient = &http.Client{Transport: transport}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("vault client: %w", err)
	}
	client.SetToken(fakevault.RootToken)
	return client, nil
}

// next asks which fault the call has. A nil function breaks nothing.
func next(fault func() (Fault, bool)) (Fault, bool) {
	if fault == nil {
		return 0, false
	}
	return fault()
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
