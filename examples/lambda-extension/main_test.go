package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	token = "a-token-of-the-agent-for-tests"
	user  = "ann@example.com:6001"
)

// program builds the command, once for all tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "extension-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "tokenkeep"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := program(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// A process is a running process of the command.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string
	errs    bytes.Buffer
	ended   chan error
	began   time.Time
}

// start starts the command with a fake of Secrets Manager. It does not wait until the agent
// answers.
func start(t *testing.T, secrets *fakeaws.Server, env ...string) *process {
	t.Helper()
	dir, err := program()
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, address: l.Addr().String(), ended: make(chan error, 1)}
	_ = l.Close() // free the port for the agent
	p.cmd = exec.Command(filepath.Join(dir, "tokenkeep"))
	p.cmd.Env = append([]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + secrets.URL, "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s",
		"HOME=" + t.TempDir(), "TOKEN_PREFIX=oauth/crm", "ZOHO_DATA_CENTER=eu", "TOKENKEEP_AGENT_TOKEN=" + token, "TOKENKEEP_AGENT_LISTEN=" + p.address,
	}, env...)
	p.cmd.Stderr = &p.errs
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// healthy waits until the agent answers, and returns the time since its start.
func (p *process) healthy() time.Duration {
	p.t.Helper()
	for end := p.began.Add(30 * time.Second); time.Now().Before(end); {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			continue
		}
		_, _ = fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", p.address)
		answer, err := io.ReadAll(c)
		_ = c.Close()
		if err == nil && strings.Contains(string(answer), "200 OK") {
			return time.Since(p.began)
		}
	}
	p.t.Fatalf("the agent does not answer: %s", p.errs.String())
	return 0
}

// find finds the record of a user, and returns the status.
func (p *process) find(client *http.Client, name string) (int, string) {
	p.t.Helper()
	body := fmt.Sprintf(`{"user_name":%q,"client_id":"1000.C"}`, name)
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+p.address+"/v1/find", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(agent.TokenHeader, token)
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	answer, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(answer)
}

// users saves the records of n users, with access tokens that are valid for hours.
func users(t *testing.T, secrets *fakeaws.Server, n int) {
	t.Helper()
	client := secretsmanager.New(secretsmanager.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(secrets.URL), Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""),
	})
	store, err := awssm.New(client, "oauth/crm", nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			name := user
			if i > 0 {
				name = fmt.Sprintf("user%d@example.com:6001", i)
			}
			_, err := store.SaveToken(t.Context(), tokenstore.Token{
				UserName: name, ClientID: "1000.C", ClientSecret: "s", RefreshToken: tokenstore.Secret(fmt.Sprint("1000.r", i)),
				AccessToken: tokenstore.Secret(fmt.Sprint("1000.a", i)), ExpiresAt: time.Now().Add(3 * time.Hour), APIDomain: "https://www.zohoapis.eu",
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A lambda is a fake of the Extensions API. It reports a test error if the extension does not
// follow the documented order of requests.
type lambda struct {
	t      *testing.T
	events chan string // the next events for the extension
	asked  chan string // one value for each request of the extension

	mu         sync.Mutex
	registered bool
}

func (l *lambda) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const id = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
	path, _ := strings.CutPrefix(r.URL.Path, "/2020-01-01/extension/")
	l.mu.Lock()
	registered := l.registered
	l.registered = true
	l.mu.Unlock()
	switch {
	case path == "register" && !registered:
		var body struct{ Events []string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Events) != 2 {
			l.t.Errorf("it registers for %v: %v", body.Events, err)
		}
		if name := r.Header.Get("Lambda-Extension-Name"); name != "tokenkeep" {
			l.t.Errorf("it registers as %q, and not by the name of its file", name)
		}
		w.Header().Set("Lambda-Extension-Identifier", id)
		_, _ = io.WriteString(w, `{"functionName":"crm","functionVersion":"1","handler":"app.handler"}`)
		l.asked <- path
	case !registered || r.Header.Get("Lambda-Extension-Identifier") != id:
		l.t.Errorf("%s before registration, or without the identifier", path)
		w.WriteHeader(http.StatusForbidden)
	case path == "event/next" && r.Method == http.MethodGet:
		l.asked <- path
		select {
		case event := <-l.events:
			_, _ = fmt.Fprintf(w, `{"eventType":%q,"deadlineMs":%d}`, event, time.Now().Add(2*time.Second).UnixMilli())
		case <-r.Context().Done():
		}
	default:
		l.asked <- path
		w.WriteHeader(http.StatusAccepted)
	}
}

// asks waits for the next request of the extension, which must be want.
func (l *lambda) asks(want string) {
	l.t.Helper()
	l.asksAll(want)
}

// asksAll waits for the next requests of the extension, which must be those in want in any
// order.
func (l *lambda) asksAll(want ...string) {
	l.t.Helper()
	var got []string
	for range want {
		select {
		case path := <-l.asked:
			got = append(got, path)
		case <-time.After(30 * time.Second):
			l.t.Fatalf("it asks for %q, not for %q", got, want)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		l.t.Errorf("it asks for %q, not for %q", got, want)
	}
}

func TestExtension(t *testing.T) {
	t.Parallel()
	secrets := fakeaws.New(nil)
	t.Cleanup(secrets.Close)
	users(t, secrets, 1)
	l := &lambda{t: t, events: make(chan string), asked: make(chan string, 16)}
	base, stop, err := fakeserver.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	p := start(t, secrets, "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(base, "http://"))
	l.asks("register")
	l.asks("event/next")
	if c, err := net.Dial("tcp", p.address); err == nil {
		_ = c.Close()
		t.Error("it listens before the first invocation: a snapshot would hold what it has read")
	}
	l.events <- "INVOKE"
	l.asks("event/next")
	p.healthy()
	if status, answer := p.find(http.DefaultClient, user); status != http.StatusOK || !strings.Contains(answer, `"1000.a0"`) {
		t.Errorf("status %d", status)
	}
	l.events <- "INVOKE"
	l.asks("event/next")
	http.DefaultClient.CloseIdleConnections()
	l.events <- "SHUTDOWN"
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("%v: %s", err, p.errs.String())
		}
	case <-time.After(2 * time.Second):
		t.Error("it runs two seconds after SHUTDOWN: Lambda kills it")
	}
}

func TestExtensionThatCannotServe(t *testing.T) {
	t.Parallel()
	secrets := fakeaws.New(nil)
	t.Cleanup(secrets.Close)
	for setting, reason := range map[string]string{
		"ZOHO_DATA_CENTER=nowhere":      "authorization server",
		"TOKENKEEP_KEYS_FILE=keys.json": "without keys",
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			l := &lambda{t: t, events: make(chan string), asked: make(chan string, 16)}
			base, stop, err := fakeserver.Serve(l)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
			p := start(t, secrets, "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(base, "http://"), setting)
			l.asks("register")
			l.asks("event/next")
			l.events <- "INVOKE"
			l.asksAll("event/next", "exit/error") // the loop and the server run concurrently
			if err := <-p.ended; err == nil || !strings.Contains(p.errs.String(), reason) {
				t.Errorf("it ends with %v: %s", err, p.errs.String())
			}
		})
	}
}

// TestPolicyOfTheTemplate checks that the role in the template has the permissions that the
// store needs. The role in main.tf comes from deploy/terraform/aws, which has its own test.
func TestPolicyOfTheTemplate(t *testing.T) {
	t.Parallel()
	action := regexp.MustCompile(`secretsmanager:[A-Z][A-Za-z]+`)
	var policy struct{ Statement []struct{ Action []string } }
	if err := json.Unmarshal([]byte(awssm.Policy("*", "*", "oauth/crm", nil)), &policy); err != nil {
		t.Fatal(err)
	}
	var needed []string
	for _, statement := range policy.Statement {
		needed = append(needed, statement.Action...)
	}
	slices.Sort(needed)
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	allowed := action.FindAllString(string(text), -1)
	slices.Sort(allowed)
	if !slices.Equal(allowed, needed) {
		t.Errorf("the template allows %v, and %v are needed", allowed, needed)
	}
}
