package awssm_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/driverkit"
)

// A trail is one path through a tree of choices, from the root to a leaf.
type trail struct {
	at     int
	chosen []int
	of     []int
}

// choose returns the number from 0 to n-1 that the trail chooses at its next branch.
func (c *trail) choose(n int) int {
	if c.at == len(c.chosen) {
		c.chosen, c.of = append(c.chosen, 0), append(c.of, n)
	}
	c.at++
	return c.chosen[c.at-1]
}

// next moves the trail to the next leaf, and returns false if the trail was at the last leaf.
func (c *trail) next() bool {
	c.at = 0
	for i := len(c.chosen) - 1; i >= 0; i-- {
		if c.chosen[i]++; c.chosen[i] < c.of[i] {
			c.chosen, c.of = c.chosen[:i+1], c.of[:i+1]
			return true
		}
	}
	return false
}

// Outcomes of a write of tags or of a value.
const (
	applied = iota
	refused
	lost   // the request never arrives
	silent // the write is applied; the response is lost
	late   // the client gives up; the service applies the write later
	outcomes
)

// pending is a request that waits until the test lets it continue.
type pending struct {
	by        string
	operation string
	body      []byte
	header    http.Header
	answer    chan<- *http.Response // receives the response, or nil if the response is lost
}

// A world is one run of several writers on one service.
type world struct {
	*trail
	service *fakeaws.Service
	faults  int // number of faults that may still occur
	log     []string

	mu      sync.Mutex
	waiting []*pending // in no particular order
}

// byKey is the key of the context value that names the writer of a request.
type byKey struct{}

// Do holds requests whose order the test chooses, and carries out other requests
// immediately.
func (w *world) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	answer := make(chan *http.Response, 1)
	by, _ := r.Context().Value(byKey{}).(string)
	p := &pending{by, strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."), body, r.Header, answer}
	if p.operation == "GetSecretValue" || p.operation == "DescribeSecret" || p.operation == "CreateSecret" {
		return w.carryOut(p), nil
	}
	w.mu.Lock()
	w.waiting = append(w.waiting, p)
	w.mu.Unlock()
	if resp := <-answer; resp != nil {
		return resp, nil
	}
	return nil, io.ErrUnexpectedEOF
}

func (w *world) carryOut(p *pending) *http.Response {
	recorder := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(p.body))
	r.Header = p.header
	w.service.ServeHTTP(recorder, r)
	return recorder.Result()
}

// A gate passes the requests of a client to the world of the current run.
type gate struct {
	world  *world
	client *secretsmanager.Client
}

// Do implements the client's HTTPClient.
func (g *gate) Do(r *http.Request) (*http.Response, error) { return g.world.Do(r) }

func newGate() *gate {
	g := &gate{}
	g.client = secretsmanager.New(secretsmanager.Options{
		Region: "us-east-1", HTTPClient: g, Retryer: aws.NopRetryer{}, BaseEndpoint: aws.String("http://service"),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "app", SecretAccessKey: "x"}, nil
		}),
	})
	return g
}

func (g *gate) open(t testing.TB) driver.Secrets {
	d, err := awssm.NewDriver(g.client, app, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// arrived returns the waiting requests, ordered by writer and operation. A writer may have two
// concurrent requests.
func (w *world) arrived() []*pending {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.waiting, func(a, b *pending) int {
		return cmp.Or(strings.Compare(a.by, b.by), strings.Compare(a.operation, b.operation))
	})
	return slices.Clone(w.waiting)
}

func (w *world) leaves(p *pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = slices.DeleteFunc(w.waiting, func(q *pending) bool { return q == p })
}

// run lets requests continue until all writers are done, and calls check after each step.
func (w *world) run(check func()) {
	var delayed []*pending
	for {
		waiting := w.arrived()
		if len(waiting)+len(delayed) == 0 {
			return
		}
		i := w.choose(len(waiting) + len(delayed))
		if i >= len(waiting) {
			i -= len(waiting)
			w.log = append(w.log, "late "+delayed[i].operation)
			w.carryOut(delayed[i])
			delayed = slices.Delete(delayed, i, i+1)
			check()
			continue
		}
		p := waiting[i]
		w.leaves(p)
		outcome := applied
		if w.faults > 0 {
			outcome = w.choose(outcomes)
		}
		if outcome != applied {
			w.faults--
		}
		w.log = append(w.log, fmt.Sprintf("%s %s %d", p.by, p.operation, outcome))
		var resp *http.Response
		switch outcome {
		case applied:
			resp = w.carryOut(p)
		case refused:
			resp = &http.Response{
				StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
				Body: io.NopCloser(strings.NewReader(`{"__type":"AccessDeniedException","Message":"no"}`)),
			}
		case silent:
			w.carryOut(p)
		case late:
			delayed = append(delayed, p)
		}
		check()
		p.answer <- resp
	}
}

// A note is the content of a record in these tests: its writer and its labels.
type note struct {
	By     string
	Labels []driver.Label
	Former []driver.Label // labels that a later write removes
}

// A writer saves labeled records as package tokenstore does.
type writer struct {
	driver.Secrets
	id     string
	leaves bool // whether the writer leaves replaced labels to the next write
}

func (w writer) save(ctx context.Context, t testing.TB, base driver.Secret, value byte, attempts int) driver.Secret {
	for i := range attempts {
		var p driver.Payload
		mine := fmt.Sprint(w.id, i, value)
		if value != 0 {
			l := label("user", value, 'x')
			held := slices.IndexFunc(base.Labels, func(b driver.Label) bool { return b.Key == l.Key && b.Value == l.Value })
			if held >= 0 {
				p.Labels = base.Labels[held : held+1]
			} else {
				p.Labels = w.Secrets.(driver.Labeler).Relabel(name, base.Version, []driver.Label{l})
			}
		}
		if w.leaves {
			p.Former = driverkit.Without(base.Labels, p.Labels)
		}
		p.Data, _ = json.Marshal(note{mine, p.Labels, p.Former})
		v, err := w.Update(ctx, name, base, p)
		if err == nil {
			return driver.Secret{Payload: p, Version: v}
		}
		if errors.Is(err, driver.ErrDenied) {
			continue
		}
		now, err := w.Fresh(ctx, name, base)
		if err != nil {
			t.Errorf("Fresh: %v", err)
			return base
		}
		var read note
		if err := json.Unmarshal(now.Data, &read); err != nil {
			t.Errorf("Fresh: %v", err)
		}
		now.Labels, now.Former = read.Labels, read.Former
		if base = now; read.By == mine {
			return now
		}
	}
	return base
}

// TestLabelsInEveryOrder checks that the secret has the labels of its current state at all times.
// The test tries all orders of the requests of two writers, and all outcomes of a limited number of
// requests.
func TestLabelsInEveryOrder(t *testing.T) {
	t.Parallel()
	most, err := strconv.Atoi(os.Getenv("TOKENKEEP_EXPLORE_FAULTS"))
	for name, s := range map[string]struct {
		first      byte
		one, other []byte // values of the labels that each writer saves
		leaves     bool
	}{
		"both add a label":                      {0, []byte{'a'}, []byte{'a'}, false},
		"one adds it, the other something else": {0, []byte{'a'}, []byte{'b'}, false},
		"one removes it, and adds it again":     {'a', []byte{0, 'a'}, []byte{'a'}, false},
		"one leaves it, and adds it again":      {'a', []byte{'b', 'a'}, []byte{'a'}, true},
		"one leaves it, the other removes it":   {'a', []byte{'b'}, []byte{'c', 'a'}, true},
	} {
		faults := 1
		if s.leaves {
			faults = 0 // a write sends two concurrent requests, so there are ten times as many orders
		}
		if err == nil {
			faults = most
		}
		for _, shared := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, in one process: %v", name, shared), func(t *testing.T) {
				t.Parallel()
				runs := 0
				for c, g := new(trail), newGate(); ; {
					runs++
					if synctest.Test(t, func(t *testing.T) { explore(t, c, g, faults, shared, s.leaves, s.first, s.one, s.other) }); t.Failed() || !c.next() {
						break
					}
				}
				t.Logf("%d runs", runs)
			})
		}
	}
}

// explore runs two writers once, along the trail c.
func explore(t *testing.T, c *trail, g *gate, faults int, shared, leaves bool, first byte, one, other []byte) {
	w := &world{trail: c, service: fakeaws.NewService(nil), faults: faults}
	g.world = w
	a := writer{g.open(t), "a", leaves}
	b := writer{a.Secrets, "b", leaves}
	if !shared {
		b.Secrets = g.open(t)
	}
	var p driver.Payload
	if first != 0 {
		p.Labels = []driver.Label{label("user", first, 'y')}
	}
	p.Data, _ = json.Marshal(note{By: "first", Labels: p.Labels})
	v, err := a.Create(t.Context(), name, p)
	if err != nil {
		t.Fatal(err)
	}
	base := driver.Secret{Payload: p, Version: v}
	for _, wr := range []struct {
		writer
		values []byte
	}{{a, one}, {b, other}} {
		go func() {
			now := base
			for _, value := range wr.values {
				now = wr.save(context.WithValue(t.Context(), byKey{}, wr.id), t, now, value, 2)
			}
		}()
	}
	w.run(func() { w.check(t) })
	most := 1 + 2*faults
	if leaves {
		most++
	}
	if n := len(w.tags(t)); n > most {
		t.Errorf("%d tags are left after %q", n, w.log)
	}
}

// ask makes a request for the test, not for a writer, and decodes the response into out.
func (w *world) ask(t *testing.T, operation string, out any) {
	body := fmt.Sprintf(`{"SecretId":%q}`, path)
	resp := w.carryOut(&pending{body: []byte(body), header: http.Header{
		"X-Amz-Target":  {"secretsmanager." + operation},
		"Authorization": {"AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/secretsmanager/aws4_request, "},
	}})
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatal(err)
	}
}

func (w *world) tags(t *testing.T) []string {
	var secret struct{ Tags []struct{ Key string } }
	w.ask(t, "DescribeSecret", &secret)
	var tags []string
	for _, tag := range secret.Tags {
		tags = append(tags, tag.Key)
	}
	return tags
}

// check reports an error if the secret lacks a label of its current state.
func (w *world) check(t *testing.T) {
	var value struct{ SecretString string }
	w.ask(t, "GetSecretValue", &value)
	_, text, _ := strings.Cut(value.SecretString, "\n")
	var now note
	if err := json.Unmarshal([]byte(text), &now); err != nil {
		t.Fatal(err)
	}
	tags := w.tags(t)
	for _, l := range now.Labels {
		if !slices.Contains(tags, "tokenkeep:"+l.Key+":"+l.Value+":"+l.Nonce) {
			t.Errorf("the state %s has lost its label: %q", now.By, w.log)
		}
	}
}
