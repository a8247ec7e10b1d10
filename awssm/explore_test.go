package awssm_test

import (
	"bytes"
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
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// A trail is one way through a tree of choices. The next one is the next leaf.
type trail struct {
	at     int
	chosen []int
	of     []int
}

// choose returns a number below n.
func (c *trail) choose(n int) int {
	if c.at == len(c.chosen) {
		c.chosen, c.of = append(c.chosen, 0), append(c.of, n)
	}
	c.at++
	return c.chosen[c.at-1]
}

// next reports whether there is another leaf, and goes there.
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

// What becomes of a write of tags or of a value.
const (
	applied = iota
	refused
	lost   // never arrives
	silent // is applied, and the answer is lost
	late   // the client gives up, and it is applied at some later time
	outcomes
)

// A pending request waits for its turn.
type pending struct {
	by        string
	operation string
	body      []byte
	header    http.Header
	answer    chan<- *http.Response // nil: no request waits
}

// A world is one run of the writers on one service.
type world struct {
	*trail
	service *fakeaws.Service
	faults  int           // that there may still be
	arrive  chan *pending // nil: a writer is done
	log     []string
}

// byKey is the key of the context's value that says whose a request is.
type byKey struct{}

// Do holds up what may come in any order, and carries out what may not.
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
	w.arrive <- p
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

// A gate leads the requests of a client to the world of the moment.
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

// open returns a driver.
func (g *gate) open(t testing.TB) driver.Secrets {
	d, err := awssm.NewDriver(g.client, app, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run schedules n writers until all are done, and checks after every step.
func (w *world) run(n int, check func()) {
	var waiting, delayed []*pending
	busy := n
	for {
		for busy > 0 {
			p := <-w.arrive
			busy--
			if p != nil {
				waiting = append(waiting, p)
			}
			slices.SortFunc(waiting, func(a, b *pending) int { return strings.Compare(a.by, b.by) })
		}
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
		waiting = slices.Delete(waiting, i, i+1)
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
		busy++
		p.answer <- resp
	}
}

// A note is the content of a record of these tests: what it is labelled with.
type note struct {
	By     string
	Labels []driver.Label
}

// A writer saves what it wants to be labelled, as the portable type does.
type writer struct {
	driver.Secrets
	id string
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
		p.Data, _ = json.Marshal(note{mine, p.Labels})
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
		now.Labels = read.Labels
		if base = now; read.By == mine {
			return now
		}
	}
	return base
}

// Whatever the order of the requests of two writers, and whatever becomes of one or
// more of them, the present state is found by its label at every moment.
func TestLabelsInEveryOrder(t *testing.T) {
	t.Parallel()
	faults := 1
	if n, err := strconv.Atoi(os.Getenv("TOKENKEEP_EXPLORE_FAULTS")); err == nil {
		faults = n
	}
	for name, s := range map[string]struct {
		first      byte
		one, other []byte // what each of them saves
	}{
		"both add a label":                      {0, []byte{'a'}, []byte{'a'}},
		"one adds it, the other something else": {0, []byte{'a'}, []byte{'b'}},
		"one removes it, and adds it again":     {'a', []byte{0, 'a'}, []byte{'a'}},
	} {
		for _, shared := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, in one process: %v", name, shared), func(t *testing.T) {
				t.Parallel()
				runs := 0
				for c, g := new(trail), newGate(); ; {
					runs++
					if explore(t, c, g, faults, shared, s.first, s.one, s.other); t.Failed() || !c.next() {
						break
					}
				}
				t.Logf("%d runs", runs)
			})
		}
	}
}

// explore makes one run.
func explore(t *testing.T, c *trail, g *gate, faults int, shared bool, first byte, one, other []byte) {
	w := &world{trail: c, service: fakeaws.NewService(nil), faults: faults, arrive: make(chan *pending)}
	g.world = w
	a := writer{g.open(t), "a"}
	b := writer{a.Secrets, "b"}
	if !shared {
		b.Secrets = g.open(t)
	}
	var p driver.Payload
	if first != 0 {
		p.Labels = []driver.Label{label("user", first, 'y')}
	}
	p.Data, _ = json.Marshal(note{"first", p.Labels})
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
			w.arrive <- nil
		}()
	}
	w.run(2, func() { w.check(t) })
	if n := len(w.tags(t)); n > 1+2*faults {
		t.Errorf("%d tags are left after %q", n, w.log)
	}
}

// ask makes a request of the test's own.
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

// check checks that the present state has its labels.
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
