package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/hashicorp/vault/api"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
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

// atOnce is how many calls those who list make at once, where the service has no
// call that returns several secrets: as many as the adapters.
const atOnce = 16

// A meter stands between a client and its service: it counts the calls by method
// and holds each up for as long as a network would.
type meter struct {
	delay   atomic.Int64
	refused atomic.Int64 // because a quota was used up

	mu     sync.Mutex
	counts map[string]int
}

// call counts a call and waits.
func (m *meter) call(ctx context.Context, method string) error {
	m.mu.Lock()
	m.counts[method]++
	m.mu.Unlock()
	d := time.Duration(m.delay.Load())
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take returns the counts since it was last called.
func (m *meter) take() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := m.counts
	m.counts = map[string]int{}
	return counts
}

// free lets f make its calls without delay, and does not count them.
func (m *meter) free(f func() error) error {
	m.mu.Lock()
	counts := maps.Clone(m.counts)
	m.mu.Unlock()
	d := m.delay.Swap(0)
	defer func() {
		m.delay.Store(d)
		m.mu.Lock()
		m.counts = counts
		m.mu.Unlock()
	}()
	return f()
}

// A bed is a service to measure on: its clock is the caller's, and all that its
// clients do goes through a meter.
type bed struct {
	name  string
	meter *meter
	bare  bare

	driver  func() (driver.Secrets, error)
	advance func(time.Duration) // moves the service's clock
	inject  func(s strike, hold <-chan struct{})
	forget  func()                // the service's own list of requests, which grows
	kept    func(name string) int // versions of a record that are there
	close   func()
}

// services are in the order of the tables.
var services = []string{"aws", "gcp", "vault"}

// open returns a store as another process has it.
func (b *bed) open(opts *tokenstore.Options) (*tokenstore.Store, error) {
	d, err := b.driver()
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, opts)
}

// A clock is the real one, moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) set(d time.Duration)     { c.ahead.Store(int64(d)) }

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// A bare is what a program does that uses the service's own client: whole secrets,
// written whatever is there. Their names have a prefix and a slash.
type bare interface {
	get(ctx context.Context, name string) ([]byte, error)
	put(ctx context.Context, name string, data []byte) error
	all(ctx context.Context) iter.Seq2[[]byte, error] // those with barePrefix
}

// errTooLarge is what a bare says of a secret that the service does not take.
var errTooLarge = errors.New("larger than a secret can be")

const (
	recordPrefix = "tokens"
	barePrefix   = "users" // of the secrets that a bare lists
)

// newBed starts a service on the given clock, nil for the real one. With quotas it refuses, by that
// clock, what is over those that are documented; whoever lists 10,000 records on
// the real clock does without.
func newBed(service string, now func() time.Time, quotas bool) (*bed, error) {
	m := &meter{counts: map[string]int{}}
	switch service {
	case "aws":
		return awsBed(m, now, quotas), nil
	case "gcp":
		return gcpBed(m, now, quotas)
	case "vault":
		return vaultBed(m, now)
	}
	return nil, fmt.Errorf("there is no service %q", service)
}

// inProcess is an http.RoundTripper that hands requests to a handler, so that what
// is measured is not the loopback interface.
type inProcess struct {
	*meter
	handler http.Handler
	method  func(*http.Request) string
}

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := p.call(r.Context(), p.method(r)); err != nil {
		return nil, err
	}
	req := r.Clone(r.Context())
	if req.Body == nil {
		req.Body = http.NoBody
	}
	w := answer{header: http.Header{}, status: http.StatusOK}
	if broken := w.serve(p.handler, req); broken != nil {
		return nil, broken
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body := w.body.Bytes()
	if w.status == http.StatusTooManyRequests || w.status == http.StatusBadRequest &&
		(bytes.Contains(body, []byte("ThrottlingException")) || bytes.Contains(body, []byte("LimitExceededException"))) {
		p.refused.Add(1)
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}, nil
}

// answer is an http.ResponseWriter in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// serve has the handler answer. It returns an error if that breaks off.
func (a *answer) serve(h http.Handler, r *http.Request) (err error) {
	defer func() {
		if recover() == http.ErrAbortHandler {
			err = io.ErrUnexpectedEOF
		}
	}()
	h.ServeHTTP(a, r)
	return nil
}

// awsRates are the calls a second that an account may make, by what they are
// counted together with
// (https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
var awsRates = map[string]struct {
	class string
	limit int
}{
	"GetSecretValue":       {"get", 10_000},
	"DescribeSecret":       {"describe", 40_000},
	"PutSecretValue":       {"put", 50},
	"CreateSecret":         {"create", 50},
	"DeleteSecret":         {"delete", 50},
	"TagResource":          {"tag", 50},
	"UntagResource":        {"tag", 50},
	"BatchGetSecretValue":  {"batch", 100},
	"ListSecrets":          {"list", 50},
	"ListSecretVersionIds": {"list", 50},
}

// limitRates makes the service refuse what is over them.
func limitRates(server *fakeaws.Service) {
	var mu sync.Mutex
	var second int64
	used := map[string]int{}
	server.Inject(func(r *fakeaws.Request) *fakeaws.Fault {
		now := server.Now().Unix()
		mu.Lock()
		defer mu.Unlock()
		if now != second {
			second = now
			clear(used)
		}
		rate, ok := awsRates[r.Operation]
		used[rate.class]++
		if ok && used[rate.class] <= rate.limit {
			return nil
		}
		return &fakeaws.Fault{Code: "ThrottlingException", Message: "Rate exceeded"}
	})
}

func awsBed(m *meter, now func() time.Time, quotas bool) *bed {
	server := fakeaws.NewService(&fakeaws.Options{Now: now})
	if quotas {
		limitRates(server)
	}
	transport := inProcess{m, server, func(r *http.Request) string {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		return operation
	}}
	client := secretsmanager.New(secretsmanager.Options{
		BaseEndpoint: aws.String("http://secretsmanager.example"),
		Region:       "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "evidence", SecretAccessKey: "evidence"}, nil
		}),
		Retryer:    aws.NopRetryer{}, // each fault reaches the adapter
		HTTPClient: wholesend.Client{Doer: &http.Client{Transport: transport}},
	})
	return &bed{
		name:    "aws",
		meter:   m,
		bare:    bareAWS{client},
		driver:  func() (driver.Secrets, error) { return awssm.NewDriver(client, recordPrefix, nil) },
		advance: server.Advance,
		inject:  injectAWS(server),
		forget:  server.Reset,
		kept: func(name string) int {
			n := 0
			_ = m.free(func() error {
				out, err := client.ListSecretVersionIds(context.Background(), &secretsmanager.ListSecretVersionIdsInput{
					SecretId: aws.String(recordPrefix + "/" + name), IncludeDeprecated: aws.Bool(true), MaxResults: aws.Int32(100),
				})
				if err == nil {
					n = len(out.Versions)
				}
				return err
			})
			return n
		},
		close: func() {},
	}
}

type bareAWS struct{ client *secretsmanager.Client }

func (b bareAWS) get(ctx context.Context, name string) ([]byte, error) {
	out, err := b.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
	if err != nil {
		return nil, err
	}
	return []byte(aws.ToString(out.SecretString)), nil
}

func (b bareAWS) put(ctx context.Context, name string, data []byte) error {
	if len(data) > 64<<10 {
		return errTooLarge
	}
	id, text := aws.String(name), aws.String(string(data))
	_, err := b.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: id, SecretString: text})
	var absent *types.ResourceNotFoundException
	if errors.As(err, &absent) {
		_, err = b.client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: id, SecretString: text})
	}
	return err
}

func (b bareAWS) all(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		pages := secretsmanager.NewBatchGetSecretValuePaginator(b.client, &secretsmanager.BatchGetSecretValueInput{
			Filters: []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{barePrefix + "/"}}}, MaxResults: aws.Int32(20),
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, v := range page.SecretValues {
				if !yield([]byte(aws.ToString(v.SecretString)), nil) {
					return
				}
			}
		}
	}
}

const project = "projects/evidence"

// gcpQuota is what a project may ask for in a minute
// (https://docs.cloud.google.com/secret-manager/quotas).
var gcpQuota = fakegcp.Quota{Access: 90_000, Read: 600, Write: 600}

func gcpBed(m *meter, now func() time.Time, quotas bool) (*bed, error) {
	opts := &fakegcp.Options{Now: now}
	if quotas {
		opts.Quota = gcpQuota
	}
	server := fakegcp.New(opts)
	counting := grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if err := m.call(ctx, method[strings.LastIndexByte(method, '/')+1:]); err != nil {
			return err
		}
		err := invoke(ctx, method, req, reply, cc, opts...)
		if status.Code(err) == codes.ResourceExhausted {
			m.refused.Add(1)
		}
		return err
	})
	client, err := secretmanager.NewClient(context.Background(), append(server.ClientOptions(), option.WithGRPCDialOption(counting))...)
	if err != nil {
		server.Close()
		return nil, err
	}
	return &bed{
		name:    "gcp",
		meter:   m,
		bare:    bareGCP{client},
		driver:  func() (driver.Secrets, error) { return gcpsm.NewDriver(client, project, recordPrefix, nil) },
		advance: server.Advance,
		inject:  injectGCP(server),
		forget:  server.Reset,
		kept:    func(name string) int { return len(server.Active(project + "/secrets/" + recordPrefix + "-" + name)) },
		close: func() {
			_ = client.Close()
			server.Close()
		},
	}, nil
}

type bareGCP struct{ client *secretmanager.Client }

// flat is a name without the slash that Secret Manager does not take.
func flat(name string) string { return strings.ReplaceAll(name, "/", "-") }

func (b bareGCP) get(ctx context.Context, name string) ([]byte, error) {
	return b.access(ctx, project+"/secrets/"+flat(name))
}

func (b bareGCP) access(ctx context.Context, path string) ([]byte, error) {
	v, err := b.client.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: path + "/versions/latest"})
	return v.GetPayload().GetData(), err
}

func (b bareGCP) put(ctx context.Context, name string, data []byte) error {
	if len(data) > 64<<10 {
		return errTooLarge
	}
	add := &secretmanagerpb.AddSecretVersionRequest{Parent: project + "/secrets/" + flat(name), Payload: &secretmanagerpb.SecretPayload{Data: data}}
	_, err := b.client.AddSecretVersion(ctx, add)
	if status.Code(err) != codes.NotFound {
		return err
	}
	_, err = b.client.CreateSecret(ctx, &secretmanagerpb.CreateSecretRequest{Parent: project, SecretId: flat(name), Secret: &secretmanagerpb.Secret{
		Replication: &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}}},
	}})
	if err == nil {
		_, err = b.client.AddSecretVersion(ctx, add)
	}
	return err
}

func (b bareGCP) all(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var names []string
		list := b.client.ListSecrets(ctx, &secretmanagerpb.ListSecretsRequest{Parent: project, PageSize: 25_000, Filter: "name:" + barePrefix + "-"})
		for {
			s, err := list.Next()
			if errors.Is(err, iterator.Done) {
				break
			}
			if err != nil {
				yield(nil, err)
				return
			}
			names = append(names, s.GetName())
		}
		together(ctx, names, b.access, yield)
	}
}

// vaultEntry is how large a secret can be in Vault's own storage
// (https://developer.hashicorp.com/vault/docs/internals/limits).
const vaultEntry = 1 << 20

func vaultBed(m *meter, now func() time.Time) (*bed, error) {
	server := fakevault.New(&fakevault.Options{Now: now})
	config := api.DefaultConfig()
	config.Address = server.URL
	config.MaxRetries = 0
	config.HttpClient = &http.Client{Transport: inProcess{m, server, vaultMethod}}
	client, err := api.NewClient(config)
	if err != nil {
		server.Close()
		return nil, fmt.Errorf("vault client: %w", err)
	}
	client.SetToken(fakevault.RootToken)
	return &bed{
		name:    "vault",
		meter:   m,
		bare:    bareVault{client},
		driver:  func() (driver.Secrets, error) { return vaultstore.NewDriver(client, "secret", recordPrefix, nil) },
		advance: server.Advance,
		inject:  injectVault(server),
		forget:  server.Reset,
		kept: func(name string) int {
			n := 0
			_ = m.free(func() error {
				meta, err := client.KVv2("secret").GetMetadata(context.Background(), recordPrefix+"/tokens/"+name)
				if err == nil {
					n = len(meta.Versions)
				}
				return err
			})
			return n
		},
		close: server.Close,
	}, nil
}

// vaultMethod names a request as an operator's audit log does: "read data".
func vaultMethod(r *http.Request) string {
	operation := map[string]string{http.MethodGet: "read", "LIST": "list", http.MethodPut: "write", http.MethodPost: "write",
		http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
	if r.URL.Query().Get("list") == "true" {
		operation = "list"
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/v1/"), "/", 3)
	return operation + " " + parts[min(1, len(parts)-1)]
}

type bareVault struct{ client *api.Client }

func (b bareVault) get(ctx context.Context, name string) ([]byte, error) {
	s, err := b.client.KVv2("secret").Get(ctx, name)
	if err != nil {
		return nil, err
	}
	text, _ := s.Data["value"].(string)
	return []byte(text), nil
}

func (b bareVault) put(ctx context.Context, name string, data []byte) error {
	if len(data) > vaultEntry {
		return errTooLarge
	}
	_, err := b.client.KVv2("secret").Put(ctx, name, map[string]any{"value": string(data)})
	return err
}

func (b bareVault) all(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		list, err := b.client.Logical().ListWithContext(ctx, "secret/metadata/"+barePrefix)
		if err != nil {
			yield(nil, err)
			return
		}
		var names []string
		if list != nil {
			keys, _ := list.Data["keys"].([]any)
			for _, k := range keys {
				names = append(names, barePrefix+"/"+fmt.Sprint(k))
			}
		}
		together(ctx, names, b.get, yield)
	}
}

// together gets the named secrets, atOnce at a time, and yields what they hold.
func together(ctx context.Context, names []string, get func(context.Context, string) ([]byte, error), yield func([]byte, error) bool) {
	type got struct {
		data []byte
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan got)
	var at atomic.Int64
	var work sync.WaitGroup
	for range min(atOnce, len(names)) {
		work.Go(func() {
			for i := at.Add(1) - 1; i < int64(len(names)); i = at.Add(1) - 1 {
				data, err := get(ctx, names[i])
				select {
				case results <- got{data, err}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() {
		work.Wait()
		close(results)
	}()
	for r := range results {
		if !yield(r.data, r.err) || r.err != nil {
			return
		}
	}
}
