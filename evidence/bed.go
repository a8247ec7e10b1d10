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
	"net/http/httptrace"
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
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/internal/wholesend"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

// atOnce is the maximum number of concurrent reads while a bare lists the secrets on Google Cloud
// or Vault, where each read returns one secret. The adapters have the same maximum.
const atOnce = 16

// A meter counts the calls of a client by method, and delays each call.
type meter struct {
	delay   atomic.Int64 // delay of each call, in nanoseconds
	refused atomic.Int64 // number of calls that were refused because of a quota

	mu     sync.Mutex
	counts map[string]int
}

// call counts a call of the method and waits for the delay. If ctx is done first, call returns
// the error from ctx.
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

// take returns the counts since the previous call of take.
func (m *meter) take() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := m.counts
	m.counts = map[string]int{}
	return counts
}

// free calls f, and returns the error that f returns. While f runs, calls to the service are
// neither delayed nor counted.
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

// A bed is a fake service for measurements and checks. All calls by the clients of a bed go
// through meter. A bed from startBroken has neither a meter nor a bare.
type bed struct {
	name  string
	meter *meter
	bare  bare

	driver  func() (driver.Secrets, error)
	advance func(time.Duration) // advances the service's clock
	inject  func(s strike, hold <-chan struct{})
	forget  func()                // clears the service's own log of requests and, on Kubernetes, old states
	kept    func(name string) int // number of stored versions of a record
	close   func()
}

// services lists the services in the order in which the tables of the evidence show them.
var services = []string{"aws", "gcp", "vault", "k8s"}

// current holds the services whose reads always return the newest state.
var current = map[string]bool{"vault": true, "k8s": true}

// open returns a store with a new driver. The store shares no state in memory with other
// stores, like a store in another process.
func (b *bed) open(opts *tokenstore.Options) (*tokenstore.Store, error) {
	d, err := b.driver()
	if err != nil {
		return nil, err
	}
	return tokenstore.New(d, opts)
}

// A clock is the real clock with an offset.
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

// A bare reads and writes whole secrets like a program without this module. A bare uses the
// service's own client, and writes unconditionally. A name has the form "prefix/rest".
type bare interface {
	get(ctx context.Context, name string) ([]byte, error)
	put(ctx context.Context, name string, data []byte) error
	all(ctx context.Context) iter.Seq2[[]byte, error] // secrets under barePrefix
}

// errTooLarge is the error that put returns for a secret that exceeds the service's limit.
var errTooLarge = errors.New("larger than a secret can be")

const (
	recordPrefix = "tokens"
	barePrefix   = "users" // prefix of the secrets that a bare lists
)

// newBed starts a service whose clock is the function now; nil means the real clock. If quotas is
// true, the fakes of AWS and Google Cloud enforce the documented quotas by that clock. Measurements
// of time set quotas to false, because a list of 10,000 records would exceed the quotas.
func newBed(service string, now func() time.Time, quotas bool) (*bed, error) {
	m := &meter{counts: map[string]int{}}
	switch service {
	case "aws":
		return awsBed(m, now, quotas), nil
	case "gcp":
		return gcpBed(m, now, quotas, false)
	case "vault":
		return vaultBed(m, now)
	case "k8s":
		return k8sBed(m, now)
	}
	return nil, fmt.Errorf("there is no service %q", service)
}

// newBubbleBed is like newBed, but clients of Google Cloud call the fake without a socket, in the
// caller's goroutine. No goroutine waits for a socket, so the clock of a testing/synctest bubble
// advances.
func newBubbleBed(service string, now func() time.Time, quotas bool) (*bed, error) {
	if service == "gcp" {
		return gcpBed(&meter{counts: map[string]int{}}, now, quotas, true)
	}
	return newBed(service, now, quotas)
}

// An inProcess is an http.RoundTripper that passes requests to a handler in this process. The
// measurements therefore exclude the loopback interface.
type inProcess struct {
	*meter
	handler http.Handler
	method  func(*http.Request) string
}

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := p.call(r.Context(), p.method(r)); err != nil {
		return nil, err
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{}) // vaultstore counts the attempts at a write in GotConn
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

type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// serve calls the handler. If the handler panics with http.ErrAbortHandler, serve returns
// io.ErrUnexpectedEOF.
func (a *answer) serve(h http.Handler, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = io.ErrUnexpectedEOF
		default:
			panic(p)
		}
	}()
	h.ServeHTTP(a, r)
	return nil
}

func awsBed(m *meter, now func() time.Time, quotas bool) *bed {
	opts := &fakeaws.Options{Now: now}
	if quotas {
		opts.Quotas = fakeaws.Documented()
	}
	server := fakeaws.NewService(opts)
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
		Retryer:    aws.NopRetryer{}, // so that each fault reaches the adapter
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

// gcpBed starts a fake of Google Cloud. If direct is true, the fake has no socket.
func gcpBed(m *meter, now func() time.Time, quotas, direct bool) (*bed, error) {
	opts := &fakegcp.Options{Now: now, NoSocket: direct}
	if quotas {
		opts.Quota = fakegcp.Documented()
	}
	server := fakegcp.New(opts)
	counting := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if err := m.call(ctx, method[strings.LastIndexByte(method, '/')+1:]); err != nil {
			return err
		}
		err := invoke(ctx, method, req, reply, cc, opts...)
		if status.Code(err) == codes.ResourceExhausted {
			m.refused.Add(1)
		}
		return err
	}
	client, err := gcpClient(server, direct, counting)
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

// gcpClient returns a client for server. Each call by the client goes through the interceptor in
// the parameter counting. If direct is true, the calls use no socket.
func gcpClient(server *fakegcp.Server, direct bool, counting grpc.UnaryClientInterceptor) (*secretmanager.Client, error) {
	if !direct {
		return secretmanager.NewClient(context.Background(), append(server.ClientOptions(), option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(counting)))...)
	}
	conn, err := grpc.NewClient("passthrough:///unused", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(counting, server.Direct()))
	if err != nil {
		return nil, err
	}
	return secretmanager.NewClient(context.Background(), option.WithGRPCConn(conn))
}

type bareGCP struct{ client *secretmanager.Client }

// flat returns name with hyphens in place of slashes, because Google Cloud and Kubernetes
// allow no slash in the name of a secret.
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

// vaultEntry is the maximum size of a secret in Vault's integrated storage
// (https://developer.hashicorp.com/vault/docs/internals/limits).
const vaultEntry = 1 << 20

func vaultBed(m *meter, now func() time.Time) (*bed, error) {
	server := fakevault.New(&fakevault.Options{Now: now, NoSocket: true})
	config := api.DefaultConfig()
	config.Address = "http://vault.example"
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

// vaultMethod returns the operation of a request and the path element after the mount, such as
// "read data".
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

// secretSize is the maximum size of a Kubernetes Secret
// (https://kubernetes.io/docs/concepts/configuration/secret/).
const secretSize = 1 << 20

func k8sBed(m *meter, now func() time.Time) (*bed, error) {
	server := fakek8s.New(&fakek8s.Options{Now: now, NoSocket: true})
	client, err := corev1.NewForConfig(&rest.Config{
		Host: "http://kubernetes.example", BearerToken: fakek8s.AdminToken, QPS: -1, Transport: inProcess{m, server, k8sVerb},
	})
	if err != nil {
		server.Close()
		return nil, fmt.Errorf("client of Kubernetes: %w", err)
	}
	return &bed{
		name:    "k8s",
		meter:   m,
		bare:    bareK8s{client.Secrets("default")},
		driver:  func() (driver.Secrets, error) { return k8sstore.NewDriver(client, "default", recordPrefix, nil) },
		advance: server.Advance,
		inject:  injectK8s(server),
		forget:  func() { server.Reset(); server.Compact() },
		kept:    func(string) int { return 1 },
		close:   server.Close,
	}, nil
}

// k8sVerb returns the verb of a request, such as "list".
func k8sVerb(r *http.Request) string {
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/secrets") {
		return "list"
	}
	return map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update",
		http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
}

type bareK8s struct{ client corev1.SecretInterface }

func (b bareK8s) get(ctx context.Context, name string) ([]byte, error) {
	o, err := b.client.Get(ctx, flat(name), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return o.Data["value"], nil
}

func (b bareK8s) put(ctx context.Context, name string, data []byte) error {
	if len(data) > secretSize {
		return errTooLarge
	}
	folder, _, _ := strings.Cut(name, "/")
	o := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: flat(name), Labels: map[string]string{"in": folder}}, Data: map[string][]byte{"value": data}}
	_, err := b.client.Update(ctx, o, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = b.client.Create(ctx, o, metav1.CreateOptions{})
	}
	return err
}

func (b bareK8s) all(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		options := metav1.ListOptions{LabelSelector: "in=" + barePrefix, Limit: 500}
		for {
			page, err := b.client.List(ctx, options)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, o := range page.Items {
				if !yield(o.Data["value"], nil) {
					return
				}
			}
			if options.Continue = page.Continue; options.Continue == "" {
				return
			}
		}
	}
}

// together passes the contents of the named secrets to yield, in any order. together makes at most
// atOnce concurrent calls of the function get, and stops after the first error.
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
