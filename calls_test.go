package tokenkeep_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/hashicorp/vault/api"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakegcp"
	"github.com/tokenkeep/tokenkeep/internal/fakek8s"
	"github.com/tokenkeep/tokenkeep/internal/fakevault"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var updateCalls = flag.Bool("update", false, "rewrite testdata/calls")

// A gate passes requests to a server one at a time, and records each request. In record,
// concurrent requests pass in the order of their texts. A request begins in a synctest bubble.
// The goroutine that sends the request to the server is outside the bubble.
type gate struct {
	work  chan func()
	done  chan struct{}
	clock atomic.Int64 // the time of the bubble, for the server

	mu      sync.Mutex
	waiting []*waiting
	arrived chan struct{} // if not nil, receives a value when a request begins to wait
	lines   []string
	fault   int  // each request subtracts 1; the request that makes fault 0 fails
	applied bool // whether the server executes the failing request, so that only the answer is lost
}

type waiting struct {
	text string
	open chan struct{}
}

func newGate(t *testing.T) *gate {
	g := &gate{work: make(chan func()), done: make(chan struct{})}
	go func() {
		for f := range g.work {
			f()
			g.done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(g.work) })
	return g
}

// now returns the time of the bubble, for the clock of the server.
func (g *gate) now() time.Time { return time.Unix(0, g.clock.Load()) }

var errGate = errors.New("the connection was lost")

// shortened lists the parts of a request that short texts replace: names, digests, nonces, and
// the suffix of the name in an ARN.
var shortened = []struct {
	what *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`tokenkeepprobe[a-z2-7]+`), "probe"},
	{regexp.MustCompile(`\b([ugria][a-z2-7]{4})[a-z2-7]{28}\b`), "$1"},
	{regexp.MustCompile(`\b([a-z2-7]{4})[a-z2-7]{28}\b`), "$1"},
	{regexp.MustCompile(`\b[a-z2-7]{16}\b`), "nonce"},
	{regexp.MustCompile(`:secret:(crm/\w+)-\w{6}\b`), ":$1"},
}

func short(text string) string {
	for _, s := range shortened {
		text = s.what.ReplaceAllString(text, s.to)
	}
	return text
}

// pass waits until record or rounds lets the request through, and records the text of the request.
// After that, pass calls the function do, unless ctx is done or the request must be lost. It
// returns errGate if the request or its answer is lost.
func (g *gate) pass(ctx context.Context, text string, do func() error) error {
	w := &waiting{short(text), make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	g.mu.Unlock()
	<-w.open
	g.mu.Lock()
	g.fault--
	fails, applied := g.fault == 0, g.applied
	note := ""
	switch {
	case ctx.Err() != nil:
		note = "  (canceled)"
	case fails && applied:
		note = "  (answer lost)"
	case fails:
		note = "  (lost)"
	}
	g.lines = append(g.lines, "  "+w.text+note)
	g.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fails && !applied {
		return errGate
	}
	g.clock.Store(time.Now().UnixNano())
	var err error
	g.work <- func() { err = do() }
	<-g.done
	if fails {
		return errGate
	}
	return err
}

// record runs f, and returns the requests that f sends and the errors that f records, in order,
// one on each line.
func (g *gate) record(f func()) string {
	g.lines = nil
	ended := make(chan struct{})
	go func() { defer close(ended); f() }()
	for {
		synctest.Wait()
		g.mu.Lock()
		slices.SortFunc(g.waiting, func(a, b *waiting) int { return cmp.Compare(a.text, b.text) })
		var next *waiting
		if len(g.waiting) > 0 {
			next, g.waiting = g.waiting[0], g.waiting[1:]
		}
		g.mu.Unlock()
		if next != nil {
			close(next.open)
			continue
		}
		select {
		case <-ended:
			return strings.Join(g.lines, "\n") + "\n"
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A wire is an http.RoundTripper and an HTTPClient of the AWS SDK. A wire sends each request
// through the gate.
type wire struct {
	*gate
	text func(r *http.Request, body []byte) string
	to   http.RoundTripper
}

func (w wire) Do(r *http.Request) (*http.Response, error) { return w.RoundTrip(r) }

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	var answer *http.Response
	err := w.pass(r.Context(), w.text(r, body), func() error {
		out := r.Clone(context.WithoutCancel(r.Context()))
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		got, err := w.to.RoundTrip(out)
		if err != nil {
			return err
		}
		defer func() { _ = got.Body.Close() }()
		text, err := io.ReadAll(got.Body)
		got.Body = io.NopCloser(bytes.NewReader(text))
		answer = got
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// A cloud is a fake service whose requests pass a gate.
type cloud struct {
	*gate
	driver func() (driver.Secrets, error)
}

func transport(t *testing.T) http.RoundTripper {
	to := &http.Transport{}
	t.Cleanup(to.CloseIdleConnections)
	return to
}

// members returns the sorted names of the members of a JSON object. The names of the members of
// an inner object follow the name of the object, unless the object is "data".
func members(body []byte) string {
	var object map[string]any
	if json.Unmarshal(body, &object) != nil {
		return ""
	}
	var all []string
	for _, key := range slices.Sorted(maps.Keys(object)) {
		inner, ok := object[key].(map[string]any)
		if ok && key != "data" {
			key += fmt.Sprint(slices.Sorted(maps.Keys(inner)))
		}
		all = append(all, key)
	}
	return strings.Join(all, ",")
}

func onAWS(t *testing.T) *cloud {
	g := newGate(t)
	s := fakeaws.New(&fakeaws.Options{Now: g.now})
	t.Cleanup(s.Close)
	client := secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("app", "x", ""), Retryer: aws.NopRetryer{},
		HTTPClient: wire{g, func(r *http.Request, body []byte) string {
			var q struct{ SecretID, Name string }
			_ = json.Unmarshal(body, &q)
			_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
			_, id, byARN := strings.Cut(cmp.Or(q.SecretID, q.Name), ":123456789012")
			if !byARN {
				id = cmp.Or(q.SecretID, q.Name)
			}
			return fmt.Sprintf("%s %s {%s}", op, id, members(body))
		}, transport(t)},
	})
	return &cloud{g, func() (driver.Secrets, error) { return awssm.NewDriver(client, "crm", nil) }}
}

func onVault(t *testing.T) *cloud {
	g := newGate(t)
	s := fakevault.New(&fakevault.Options{Now: g.now})
	t.Cleanup(s.Close)
	c := api.DefaultConfig()
	c.Address, c.MaxRetries = s.URL, 0
	c.HttpClient = &http.Client{Transport: wire{g, func(r *http.Request, body []byte) string {
		return fmt.Sprintf("%s %s {%s}", r.Method, strings.TrimPrefix(r.URL.RequestURI(), "/v1/"), members(body))
	}, transport(t)}}
	client, err := api.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(fakevault.RootToken)
	return &cloud{g, func() (driver.Secrets, error) { return vaultstore.NewDriver(client, "secret", "crm", nil) }}
}

func onGCP(t *testing.T) *cloud {
	g := newGate(t)
	s := fakegcp.New(&fakegcp.Options{Now: g.now})
	t.Cleanup(s.Close)
	intercept := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := g.pass(ctx, method[strings.LastIndex(method, "/")+1:]+" "+fields(req.(proto.Message)), func() error {
			return invoke(context.WithoutCancel(ctx), method, req, reply, conn, opts...)
		})
		if errors.Is(err, errGate) {
			return status.Error(codes.Internal, err.Error())
		}
		return err
	}
	client, err := secretmanager.NewClient(t.Context(), append(s.ClientOptions(), option.WithGRPCDialOption(grpc.WithChainUnaryInterceptor(intercept)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &cloud{g, func() (driver.Secrets, error) { return gcpsm.NewDriver(client, "projects/p", "crm", nil) }}
}

func onK8s(t *testing.T) *cloud {
	g := newGate(t)
	s := fakek8s.New(&fakek8s.Options{Now: g.now})
	t.Cleanup(s.Close)
	client, err := corev1.NewForConfig(&rest.Config{
		Host: s.URL, BearerToken: fakek8s.AdminToken, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"},
		Transport: wire{g, func(r *http.Request, body []byte) string {
			text := r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), "/api/v1/namespaces/default/")
			return fmt.Sprintf("%s {%s}", text, members(body))
		}, transport(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{g, func() (driver.Secrets, error) { return k8sstore.NewDriver(client, "default", "crm", nil) }}
}

// fields returns the names of the fields that are set in a message and in its inner messages.
// The values of the fields name and parent follow their names.
func fields(m proto.Message) string {
	var all []string
	var collect func(prefix string, m protoreflect.Message)
	collect = func(prefix string, m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			name := prefix + string(f.Name())
			switch {
			case f.Kind() == protoreflect.StringKind && !f.IsList() && !f.IsMap() && (f.Name() == "name" || f.Name() == "parent"):
				value := v.String()
				name += "=" + strings.TrimPrefix(value, "projects/p/secrets/")
			case f.Kind() == protoreflect.MessageKind && !f.IsList() && !f.IsMap():
				collect(name+".", v.Message())
			}
			all = append(all, name)
			return true
		})
	}
	collect("", m.ProtoReflect())
	slices.Sort(all)
	return "{" + strings.Join(all, ",") + "}"
}

// A request is an operation whose requests the test records. If before is not nil, the test first
// runs the function before, without recording its requests.
type request struct {
	name   string
	before func(*bench)
	do     func(*bench)
}

// A bench opens drivers and token stores that use a fake service. It records the classes of
// the errors that the drivers and stores return.
type bench struct {
	*testing.T
	*cloud
	base    driver.Secret // the state that create stored
	options *tokenstore.Options
}

const secretName = "uaaaaabbbbbcccccdddddeeeeefffffgg"

func (b *bench) open() driver.Secrets {
	d, err := b.driver()
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func (b *bench) store() *tokenstore.Store {
	s, err := tokenstore.New(b.open(), b.options)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// says records the class of err, unless err is nil.
func (b *bench) says(err error) {
	classes := map[string]error{
		"not found": driver.ErrNotFound, "exists": driver.ErrExists, "conflict": driver.ErrConflict, "denied": driver.ErrDenied,
		"refused": driver.ErrRefused, "unavailable": driver.ErrUnavailable, "corrupt": driver.ErrCorrupt, "canceled": context.Canceled,
	}
	if err == nil {
		return
	}
	text := "another error"
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		if errors.Is(err, classes[name]) {
			text = name
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, "  error: "+text)
}

func payload(n int) driver.Payload {
	value := func(c string) string { return strings.Repeat(c, 32) }
	nonce := strings.Repeat(string(rune('a'+n)), 16)
	return driver.Payload{Data: []byte(fmt.Sprintf("data of write %d", n)), Incarnation: "aaaabbbbccccdddd", Labels: []driver.Label{
		{Key: "access", Value: value(string(rune('a' + n))), Nonce: nonce}, {Key: "user", Value: value("u"), Nonce: "aaaaaaaaaaaaaaaa"},
	}}
}

func create(b *bench) {
	d := b.open()
	p := payload(0)
	v, err := d.Create(b.Context(), secretName, p)
	if err != nil {
		b.Fatal(err)
	}
	b.base = driver.Secret{Payload: p, Version: v}
}

// changed creates the secret under test and changes it, so that b.base is outdated.
func changed(b *bench) {
	create(b)
	if _, err := b.open().Update(b.Context(), secretName, b.base, payload(1)); err != nil {
		b.Fatal(err)
	}
}

// removed creates the secret under test and deletes it, so that b.base is outdated.
func removed(b *bench) {
	create(b)
	if err := b.open().Delete(b.Context(), secretName, b.base); err != nil {
		b.Fatal(err)
	}
}

func creating(b *bench) {
	_, err := b.open().Create(b.Context(), secretName, payload(2))
	b.says(err)
}

func updating(b *bench) {
	_, err := b.open().Update(b.Context(), secretName, b.base, payload(3))
	b.says(err)
}

func removing(b *bench) { b.says(b.open().Delete(b.Context(), secretName, b.base)) }

func getting(b *bench) {
	_, err := b.open().Get(b.Context(), secretName)
	b.says(err)
}

func asking(b *bench) {
	_, err := b.open().Fresh(b.Context(), secretName, b.base)
	b.says(err)
}

func noting(b *bench) {
	l, ok := b.open().(driver.Leaser)
	if !ok {
		return
	}
	now, err := l.Fresh(b.Context(), secretName, b.base)
	if err == nil {
		err = l.Note(b.Context(), secretName, now, "abc.1.2")
	}
	b.says(err)
}

func searching(b *bench) {
	for _, err := range b.open().Lookup(b.Context(), payload(0).Labels) {
		b.says(err)
	}
}

func listing(b *bench) {
	for _, err := range b.open().List(b.Context()) {
		b.says(err)
	}
	for _, err := range b.open().Names(b.Context()) {
		b.says(err)
	}
}

func inspecting(b *bench) {
	d := b.open().(driver.Inspector)
	for i, err := range d.Inspect(b.Context()) {
		b.says(err)
		_, err = d.Present(b.Context(), i.Name, payload(0).Labels)
		b.says(err)
		b.says(d.Unlabel(b.Context(), i.Name, payload(5).Labels[:1]))
		for _, f := range i.Faults {
			if f.Mend != nil {
				b.says(f.Mend(b.Context()))
			}
		}
	}
}

func probing(b *bench) {
	for p := range b.open().(driver.Inspector).Probe(b.Context()) {
		b.says(p.Err)
	}
}

// each returns a function that calls the functions in all, in order.
func each(all ...func(*bench)) func(*bench) {
	return func(b *bench) {
		for _, do := range all {
			do(b)
		}
	}
}

const ann, crm = "ann@example.com", "client"

func saving(t tokenstore.Token) func(*bench) {
	return func(b *bench) {
		_, err := b.store().SaveToken(b.Context(), t)
		b.says(err)
	}
}

func finding(t tokenstore.Token) func(*bench) {
	return func(b *bench) {
		_, err := b.store().FindToken(b.Context(), t)
		b.says(err)
	}
}

func finds(like tokenstore.Token) func(*bench) {
	return func(b *bench) {
		for _, err := range b.store().Search(b.Context(), like) {
			b.says(err)
		}
	}
}

// others saves n records, each with a user and a client that no test searches for.
func others(n int) func(*bench) {
	return func(b *bench) {
		s := b.store()
		for i := range n {
			_, err := s.SaveToken(b.Context(), tokenstore.Token{UserName: fmt.Sprint("user", i), ClientID: fmt.Sprint("client", i), AccessToken: "access5"})
			b.says(err)
		}
	}
}

func promoting(b *bench) {
	s := b.store()
	code, err := s.FindToken(b.Context(), tokenstore.Token{ClientID: crm, GrantToken: "grant1"})
	if err == nil {
		_, err = s.SaveToken(b.Context(), tokenstore.Token{ID: code.ID, UserName: ann})
	}
	b.says(err)
}

func refreshing(b *bench) {
	s := b.store()
	t, err := s.FindToken(b.Context(), tokenstore.Token{UserName: ann, ClientID: crm})
	if err == nil {
		_, err = s.Refresh(b.Context(), t.ID, "access0", func(context.Context, tokenstore.Token) (tokenstore.Token, error) {
			return tokenstore.Token{AccessToken: "access9"}, nil
		})
	}
	b.says(err)
}

func deleting(b *bench) {
	s := b.store()
	t, err := s.FindToken(b.Context(), tokenstore.Token{UserName: ann, ClientID: crm})
	if err == nil {
		err = s.DeleteToken(b.Context(), t.ID)
	}
	b.says(err)
}

func checking(o doctor.CheckOptions) func(*bench) {
	return func(b *bench) {
		o.Grace = -1
		for f, err := range b.store().Check(b.Context(), &o) {
			b.says(errors.Join(err, f.Err))
		}
	}
}

func requests() []request {
	annToken := tokenstore.Token{UserName: ann, ClientID: crm, ClientSecret: "secret", RefreshToken: "refresh0", AccessToken: "access0"}
	code := tokenstore.Token{ClientID: crm, GrantToken: "grant1", RefreshToken: "refresh1", AccessToken: "access1"}
	annCode := each(saving(annToken), saving(code))
	return []request{
		{"create", nil, creating},
		{"create: it exists", create, creating},
		{"create: after a deletion", removed, creating},
		{"update", create, updating},
		{"update: of an old base", changed, updating},
		{"update: of what is gone", removed, updating},
		{"update: twice", create, each(updating, updating)},
		{"delete", create, removing},
		{"delete: of an old base", changed, removing},
		{"delete: of what is gone", removed, removing},
		{"get", create, getting},
		{"get: of what is not there", nil, getting},
		{"fresh", changed, asking},
		{"fresh: of what is gone", removed, asking},
		{"note", create, noting},
		{"note: twice", create, each(noting, noting)},
		{"lookup", changed, searching},
		{"list and names", changed, listing},
		{"inspect", changed, inspecting},
		{"inspect: after a deletion", removed, inspecting},
		{"probe", create, probing},

		{"save: a user's first", nil, saving(annToken)},
		{"save: a change", saving(annToken), saving(tokenstore.Token{UserName: ann, ClientID: crm, AccessToken: "access1"})},
		{"save: no change", saving(annToken), saving(annToken)},
		{"save: a code", nil, saving(code)},
		{"promotion: to a new record", saving(code), promoting},
		{"promotion: a second consent", annCode, promoting},
		{"find: by each key", annCode, each(
			finding(tokenstore.Token{UserName: ann, ClientID: crm}), finding(tokenstore.Token{UserName: ann}), finding(tokenstore.Token{ClientID: crm, RefreshToken: "refresh0"}),
			finding(tokenstore.Token{ClientID: crm, GrantToken: "grant1"}), finding(tokenstore.Token{AccessToken: "access0"}), finding(tokenstore.Token{UserName: "bob", ClientID: crm}),
		)},
		{"search by client", each(annCode, others(2)), finds(tokenstore.Token{ClientID: crm})},
		{"search by user", each(annCode, others(2)), finds(tokenstore.Token{UserName: ann})},
		{"search by user and client", each(annCode, others(2)), finds(tokenstore.Token{UserName: ann, ClientID: crm})},
		{"search by an unknown user", others(2), finds(tokenstore.Token{UserName: ann})},
		{"refresh", saving(annToken), refreshing},
		{"delete: a user's, with what has moved to it", each(annCode, promoting), deleting},
		{"all: list and delete", annCode, func(b *bench) {
			_, err := b.store().GetTokens(b.Context())
			b.says(errors.Join(err, b.store().DeleteTokens(b.Context())))
		}},
		{"check", annCode, checking(doctor.CheckOptions{})},
		{"check: with everything", each(annCode, promoting), checking(doctor.CheckOptions{Repair: true, MergeDuplicates: true, Purge: true, Permissions: true, Compare: true})},
		{"same", nil, func(b *bench) {
			_, err := b.store().SameAs(b.Context(), b.store())
			b.says(err)
		}},
	}
}

// services maps each adapter to a function that starts the fake of its service.
var services = map[string]func(*testing.T) *cloud{"awssm": onAWS, "gcpsm": onGCP, "vaultstore": onVault, "k8sstore": onK8s}

// TestSearchSendsTheSameRequests checks that a search by the user or the client of one record
// sends as many requests among 100 records as among two.
func TestSearchSendsTheSameRequests(t *testing.T) {
	t.Parallel()
	for name, open := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, like := range map[string]tokenstore.Token{
				"client": {ClientID: crm}, "user": {UserName: ann}, "user and client": {UserName: ann, ClientID: crm},
			} {
				sent := func(n int) (lines int) {
					c := open(t)
					synctest.Test(t, func(t *testing.T) {
						b := &bench{T: t, cloud: c}
						c.record(func() {
							others(n - 1)(b)
							saving(tokenstore.Token{UserName: ann, ClientID: crm, AccessToken: "access0"})(b)
						})
						lines = strings.Count(c.record(func() { finds(like)(b) }), "\n")
					})
					return lines
				}
				few, many := sent(2), sent(100)
				if few != many {
					t.Errorf("a search by %s sends %d requests among 2 records, and %d among 100", what, few, many)
				}
				t.Logf("a search by %s: %d requests", what, many)
			}
		})
	}
}

// TestRequests checks that each operation sends the requests in testdata/calls to each service.
// For some writes, the test also loses each request and each answer in turn, and checks the
// requests that follow.
func TestRequests(t *testing.T) {
	t.Parallel()
	for name, open := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var text strings.Builder
			record := func(q request, fault int, applied bool) (sent string) {
				c := open(t)
				synctest.Test(t, func(t *testing.T) {
					b := &bench{T: t, cloud: c}
					if q.before != nil {
						c.record(func() { q.before(b) })
					}
					c.fault, c.applied = fault, applied
					sent = c.record(func() { q.do(b) })
				})
				return sent
			}
			for _, q := range requests() {
				fmt.Fprintf(&text, "%s\n%s\n", q.name, record(q, 0, false))
			}
			for _, q := range requests() {
				if !slices.Contains([]string{"create", "update", "delete", "note", "create: it exists", "update: of an old base"}, q.name) {
					continue
				}
				for fault := 1; ; fault++ {
					lost := record(q, fault, false)
					if !strings.Contains(lost, "(lost)") {
						break
					}
					fmt.Fprintf(&text, "%s, request %d lost\n%s\n%s, the answer to request %d lost\n%s\n", q.name, fault, lost, q.name, fault, record(q, fault, true))
				}
			}
			path := filepath.Join("testdata", "calls", name+".txt")
			if *updateCalls {
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			had, have := strings.Split(string(want), "\n"), strings.Split(text.String(), "\n")
			for i := range min(len(had), len(have)) {
				if had[i] != have[i] {
					t.Fatalf("%s: line %d was\n%s\nand is\n%s", path, i+1, had[i], have[i])
				}
			}
			if len(had) != len(have) {
				t.Errorf("%s has %d lines, want %d", path, len(have), len(had))
			}
		})
	}
}
