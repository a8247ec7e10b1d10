package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
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
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var crowdFull = flag.Bool("evidence.crowd", false, "run the crowds of the full size")

// A crowd describes processes that find the same token expired, on the virtual clock of a
// bubble of testing/synctest. A mint is a request for a new token at the authorization server.
// AWS and Google Cloud enforce their quotas unless free is set.
type crowd struct {
	service string
	n       int
	within  time.Duration // period in which the processes start
	mint    time.Duration // duration of a mint
	begin   time.Duration // time from the start of a minute until the token is saved
	fixed   bool          // quotas count the calls in whole seconds or minutes; otherwise a bucket fills at an even rate
	free    bool          // the service enforces no quotas
	known   bool          // the record contains the duration of the previous mint
}

func (c crowd) String() string {
	return fmt.Sprintf("%s %d within %v, mint %v, begin %v, fixed %v, free %v, known %v", c.service, c.n, c.within, c.mint, c.begin, c.fixed, c.free, c.known)
}

// roundTrip is the time that a call takes.
const roundTrip = 20 * time.Millisecond

type crowded struct {
	mints, failed    int
	calls            map[string]int
	throttled        int
	reads            int           // largest number of reads of one waiting process
	last             time.Duration // from the commit until the last process ended
	took             time.Duration // from the start of the first process to the end of the last
	stored           bool
	firstErr         error
	mu               sync.Mutex
	began, committed time.Time
}

func (r *crowded) String() string {
	return fmt.Sprintf("failed %d, mints %d, stored %v, last %v after the commit, all %v, %d reads at most, %d calls %v, %d throttled, first error: %v",
		r.failed, r.mints, r.stored, r.last, r.took, r.reads, total(r.calls), r.calls, r.throttled, r.firstErr)
}

// count counts a call. A successful write of a record also sets the time of the commit.
func (r *crowded) count(method string, ok, throttled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[method]++
	if throttled {
		r.throttled++
	}
	if ok && slices.Contains([]string{"PutSecretValue", "UpdateSecret", "write data", "patch"}, method) {
		r.committed = time.Now()
	}
}

// A wire is an http.RoundTripper to a server in this process. Each call takes roundTrip.
type wire struct {
	*crowded
	handler http.Handler
	method  func(*http.Request) string
	own     *int // number of reads of the simulated process
}

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := pass(r.Context()); err != nil {
		return nil, err
	}
	method := w.method(r)
	if isRead(method) {
		*w.own++
	}
	answer, err := inProcess{meter: &meter{counts: map[string]int{}}, handler: w.handler, method: w.method}.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(strings.NewReader(string(body)))
	w.count(method, answer.StatusCode < http.StatusBadRequest, answer.StatusCode == http.StatusTooManyRequests || strings.Contains(string(body), "ThrottlingException"))
	return answer, pass(r.Context())
}

func isRead(method string) bool {
	return slices.Contains([]string{"GetSecretValue", "AccessSecretVersion", "GetSecret", "read data", "get"}, method)
}

// pass waits for half a round trip.
func pass(ctx context.Context) error {
	t := time.NewTimer(roundTrip / 2)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A venue opens the driver of one process of a crowd. The driver counts its reads in own.
type venue func(r *crowded, own *int) (d driver.Secrets, stop func(), err error)

func (c crowd) rate(r fakeserver.Rate) fakeserver.Rate {
	r.Fixed = c.fixed
	return r
}

// venue starts the service and returns its venue. Call venue outside of the bubble.
func (c crowd) venue(t *testing.T) venue {
	switch c.service {
	case "aws":
		opts := &fakeaws.Options{}
		for _, q := range fakeaws.Documented() {
			q.Rate = c.rate(q.Rate)
			opts.Quotas = append(opts.Quotas, q)
		}
		if c.free {
			opts.Quotas = nil
		}
		return awsVenue(fakeaws.NewService(opts))
	case "gcp":
		q := fakegcp.Documented()
		q.Access, q.Read, q.Write = c.rate(q.Access), c.rate(q.Read), c.rate(q.Write)
		if c.free {
			q = fakegcp.Quota{}
		}
		server := fakegcp.New(&fakegcp.Options{Quota: q})
		t.Cleanup(server.Close)
		return gcpVenue(server)
	case "k8s":
		server := fakek8s.New(nil)
		t.Cleanup(server.Close)
		return k8sVenue(server)
	default:
		server := fakevault.New(nil)
		t.Cleanup(server.Close)
		return vaultVenue(server)
	}
}

func awsVenue(server *fakeaws.Service) venue {
	return func(r *crowded, own *int) (driver.Secrets, func(), error) {
		method := func(r *http.Request) string {
			_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
			return operation
		}
		client := secretsmanager.New(secretsmanager.Options{
			BaseEndpoint: aws.String("http://secretsmanager.example"),
			Region:       "us-east-1",
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "evidence", SecretAccessKey: "evidence"}, nil
			}),
			HTTPClient: wholesend.Client{Doer: &http.Client{Transport: wire{r, server, method, own}}},
		})
		d, err := awssm.NewDriver(client, recordPrefix, nil)
		return d, func() {}, err
	}
}

func gcpVenue(server *fakegcp.Server) venue {
	return func(r *crowded, own *int) (driver.Secrets, func(), error) {
		direct := func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			if err := pass(ctx); err != nil {
				return status.FromContextError(err).Err()
			}
			method, full := method[strings.LastIndexByte(method, '/')+1:], method
			if isRead(method) {
				*own++
			}
			err := server.Invoke(ctx, full, req, reply)
			r.count(method, err == nil, status.Code(err) == codes.ResourceExhausted)
			if gone := pass(ctx); gone != nil {
				return status.FromContextError(gone).Err()
			}
			return err
		}
		conn, err := grpc.NewClient("passthrough:///unused", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(direct))
		if err != nil {
			return nil, nil, err
		}
		client, err := secretmanager.NewClient(context.Background(), option.WithGRPCConn(conn))
		if err != nil {
			return nil, nil, err
		}
		d, err := gcpsm.NewDriver(client, project, recordPrefix, nil)
		return d, func() { _ = client.Close() }, err
	}
}

func vaultVenue(server *fakevault.Server) venue {
	return func(r *crowded, own *int) (driver.Secrets, func(), error) {
		config := api.DefaultConfig()
		config.Address = "http://vault.example"
		config.HttpClient = &http.Client{Transport: wire{r, server, vaultMethod, own}}
		client, err := api.NewClient(config)
		if err != nil {
			return nil, nil, err
		}
		client.SetToken(fakevault.RootToken)
		d, err := vaultstore.NewDriver(client, "secret", recordPrefix, nil)
		return d, func() {}, err
	}
}

func k8sVenue(server *fakek8s.Server) venue {
	return func(r *crowded, own *int) (driver.Secrets, func(), error) {
		client, err := corev1.NewForConfig(&rest.Config{
			Host: server.URL, BearerToken: fakek8s.AdminToken, QPS: -1, Transport: wire{r, server, k8sVerb, own},
		})
		if err != nil {
			return nil, nil, err
		}
		d, err := k8sstore.NewDriver(client, "default", recordPrefix, nil)
		return d, func() {}, err
	}
}

// meet saves an expired token, runs the processes of the crowd, and returns the outcome. If
// c.known is set, meet first refreshes the token once.
func (c crowd) meet(t *testing.T) *crowded {
	t.Helper()
	open := c.venue(t)
	r := &crowded{calls: map[string]int{}}
	synctest.Test(t, func(t *testing.T) {
		<-time.After(c.begin)
		old := numbered(0, time.Now())
		d, stop, err := open(&crowded{calls: map[string]int{}}, new(int))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		store, err := tokenstore.New(d, nil)
		if err != nil {
			t.Fatal(err)
		}
		saved, err := store.SaveToken(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		if c.known {
			saved, err = store.Refresh(t.Context(), saved.ID, saved.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
				<-time.After(c.mint)
				return tokenstore.Token{AccessToken: "1000.access-before"}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Second)
		r.began = time.Now()
		var all sync.WaitGroup
		var lastDone time.Time
		for range c.n {
			all.Go(func() {
				if c.within > 0 {
					<-time.After(rand.N(c.within))
				}
				own, minted := 0, false
				err := c.attend(t.Context(), open, r, &own, saved, &minted)
				r.mu.Lock()
				defer r.mu.Unlock()
				lastDone = time.Now()
				if !minted {
					r.reads = max(r.reads, own)
				}
				if err != nil {
					r.failed++
					r.firstErr = cmp.Or(r.firstErr, err)
				}
			})
		}
		all.Wait()
		r.took, r.last = lastDone.Sub(r.began), lastDone.Sub(r.committed)
		now, err := store.FindTokenByID(t.Context(), saved.ID)
		r.stored = err == nil && now.AccessToken == mintedToken
	})
	return r
}

const mintedToken = "1000.access-minted.0123456789abcdef0123456789abcdef"

func (c crowd) attend(ctx context.Context, open venue, r *crowded, own *int, saved tokenstore.Token, minted *bool) error {
	d, stop, err := open(r, own)
	if err != nil {
		return err
	}
	defer stop()
	s, err := tokenstore.New(d, nil)
	if err != nil {
		return err
	}
	got, err := s.Refresh(ctx, saved.ID, saved.AccessToken, func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
		*minted = true
		r.mu.Lock()
		r.mints++
		r.mu.Unlock()
		<-time.After(c.mint)
		return tokenstore.Token{AccessToken: mintedToken, RefreshToken: "1000.rotated", ExpiresAt: time.Now().Add(time.Hour)}, nil
	})
	if err == nil && got.AccessToken != mintedToken {
		err = fmt.Errorf("the token is another")
	}
	return err
}

// result returns the outcome of the crowd for the document.
func (c crowd) result(r *crowded) crowdResult {
	return crowdResult{
		Service: c.service, Processes: c.n, Within: c.within, Mint: c.mint, Quotas: !c.free && (c.service == "aws" || c.service == "gcp"), Fixed: c.fixed,
		Into: c.begin, Known: c.known, Requests: r.mints, Failed: r.failed, Calls: total(r.calls), Throttled: r.throttled, LastAfter: r.last, FromTheFirst: r.took,
	}
}

// report adds result to the output of the test, as a JSON attribute that the command evidence
// reads.
func report(t *testing.T, key string, result any) {
	t.Helper()
	data, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	t.Attr(key, string(data))
}

// usualMint is a typical response time of an authorization server.
const usualMint = 571 * time.Millisecond

// TestCrowd checks that no process of a crowd fails, and that one mint takes place. The test also
// checks the reads of a waiting process, and the time until the last process has the token.
func TestCrowd(t *testing.T) {
	for _, c := range []struct {
		crowd
		last  time.Duration // largest allowed time from the commit until the last process has the token
		reads int           // largest allowed number of reads of a waiting process if no call is refused; 0 means no limit
		full  bool          // runs only with -evidence.crowd
	}{
		{crowd{service: "aws", n: 300, mint: usualMint}, 3 * time.Second, 0, false},
		{crowd{service: "aws", n: 50, mint: 5 * time.Second, free: true}, 1600 * time.Millisecond, 0, false},
		{crowd{service: "vault", n: 100, mint: usualMint, free: true}, 600 * time.Millisecond, 0, false},
		{crowd{service: "k8s", n: 100, mint: usualMint, free: true}, 600 * time.Millisecond, 0, false},
		{crowd{service: "gcp", n: 50, mint: 5 * time.Second, free: true}, 1600 * time.Millisecond, 0, false},
		{crowd{service: "aws", n: 50, mint: 5 * time.Second, free: true, known: true}, 600 * time.Millisecond, 6, false},
		{crowd{service: "aws", n: 50, within: time.Second, mint: 5 * time.Second, known: true}, 600 * time.Millisecond, 6, false},
		{crowd{service: "vault", n: 50, mint: 5 * time.Second, free: true, known: true}, 600 * time.Millisecond, 6, false},
		{crowd{service: "k8s", n: 50, mint: 5 * time.Second, free: true, known: true}, 600 * time.Millisecond, 6, false},
		{crowd{service: "gcp", n: 50, mint: 5 * time.Second, free: true, known: true}, 600 * time.Millisecond, 6, false},
		{crowd{service: "gcp", n: 50, within: time.Second, mint: 5 * time.Second, known: true}, 600 * time.Millisecond, 6, false},
		{crowd{service: "gcp", n: 50, mint: usualMint, known: true}, 600 * time.Millisecond, 0, false},
		{crowd{service: "gcp", n: 200, mint: usualMint}, 2 * time.Second, 0, false},
		{crowd{service: "gcp", n: 200, mint: usualMint, fixed: true, begin: 20 * time.Second}, 2 * time.Second, 0, false},
		{crowd{service: "gcp", n: 200, mint: usualMint, fixed: true, begin: 57 * time.Second}, 2 * time.Second, 0, false},
		{crowd{service: "gcp", n: 1000, mint: usualMint, fixed: true}, 3 * time.Second, 0, true},
		{crowd{service: "gcp", n: 1000, mint: usualMint, fixed: true, begin: 30 * time.Second}, 3 * time.Second, 0, true},
		{crowd{service: "gcp", n: 1000, mint: usualMint}, 3 * time.Second, 0, true},
		{crowd{service: "aws", n: 10_000, within: time.Second, mint: usualMint}, 4 * time.Second, 0, true},
		{crowd{service: "aws", n: 10_000, within: time.Second, mint: 5 * time.Second}, 4 * time.Second, 0, true},
		{crowd{service: "vault", n: 1000, within: time.Second, mint: usualMint, free: true}, 2 * time.Second, 0, true},
		{crowd{service: "k8s", n: 1000, within: time.Second, mint: usualMint, free: true}, 2 * time.Second, 0, true},
	} {
		t.Run(c.String(), func(t *testing.T) {
			if c.full && !*crowdFull {
				t.Skip("without -evidence.crowd")
			}
			t.Parallel()
			r := c.meet(t)
			report(t, attrCrowd, c.result(r))
			if r.failed > 0 || r.mints != 1 || !r.stored {
				t.Errorf("%d of %d failed (%v), there were %d mints, stored: %v", r.failed, c.n, r.firstErr, r.mints, r.stored)
			}
			// After a refused call, the SDK and the waiting process can each read once more.
			if most := c.reads + 2*r.throttled; c.reads > 0 && r.reads > most {
				t.Errorf("one process has read %d times, want %d at most", r.reads, most)
			}
			if r.last > c.last {
				t.Errorf("the last process has the token %v after the commit, want %v at most", r.last, c.last)
			}
		})
	}
}

// TestCrowdOfOne checks that a single process does not wait before it takes the lease. On
// Google Cloud, where a read can miss a lease, the process waits for up to 100 ms. The wait is
// 50 ms on average.
func TestCrowdOfOne(t *testing.T) {
	for service, calls := range map[string]int{"aws": 4, "gcp": 5, "vault": 4, "k8s": 3} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			var sum time.Duration
			const times = 40
			for range times {
				r := crowd{service: service, n: 1, mint: usualMint}.meet(t)
				if total(r.calls) < calls || r.throttled > 0 || r.failed > 0 {
					t.Errorf("%v", r)
				}
				sum += r.took - usualMint - time.Duration(total(r.calls))*roundTrip
			}
			most := time.Duration(0)
			if service == "gcp" {
				most = 70 * time.Millisecond // limit for the average of 40 random waits
			}
			if waited := sum / times; waited > most {
				t.Errorf("a process alone waits %v on average", waited)
			}
		})
	}
}
