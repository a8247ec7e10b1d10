package main

import (
	"bytes"
	"context"
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
	"github.com/tokenkeep/tokenkeep/examples/internal/lambdaenv"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	token = "a-token-of-the-agent-for-tests"
	user  = "ann@example.com:6001"
)

// program builds the command once for all tests. It returns the directory of the executable.
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

type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string
	errs    bytes.Buffer
	ended   chan error
	began   time.Time
}

// start starts the command with secrets as its Secrets Manager. It does not wait until the
// agent answers.
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
		"HOME=" + t.TempDir(), "TOKEN_PREFIX=oauth/crm", "ZOHO_DATA_CENTER=eu", "TOKENKEEP_ONLY_CLIENT=1000.C", "TOKENKEEP_AGENT_TOKEN=" + token, "TOKENKEEP_AGENT_LISTEN=" + p.address,
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

// healthy waits until the agent answers, and returns the time since the start of the process.
// It fails the test if the agent does not answer within 30 seconds of the start.
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

// find requests the record of a user, and returns the status and the body of the response. If
// there is no response, it returns 0 and the error.
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

// users saves the records of n users, with access tokens that are valid for three hours.
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

// environment starts an execution environment whose runtime answers each invocation
// immediately. It also returns the environment variable that an extension needs to find the
// environment. The test fails if Lambda would refuse a request.
func environment(t *testing.T) (e *lambdaenv.Environment, setting string) {
	t.Helper()
	e = lambdaenv.New("tokenkeep", func(problem string) { t.Error(problem) })
	base, stop, err := fakeserver.Serve(e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	go func() {
		if e.Registered(t.Context()) == nil {
			answer(t.Context(), base+"/2018-06-01/runtime/invocation/")
		}
	}()
	return e, "AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(base, "http://")
}

// answer simulates the runtime of a function that returns null. It returns after a request
// fails, for example because ctx is done.
func answer(ctx context.Context, base string) {
	do := func(method, path string) (id string) {
		req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader("null"))
		if err != nil {
			return ""
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return ""
		}
		_ = res.Body.Close()
		return res.Header.Get("Lambda-Runtime-Aws-Request-Id")
	}
	for id := do(http.MethodGet, "next"); id != ""; id = do(http.MethodGet, "next") {
		do(http.MethodPost, id+"/response")
	}
}

func TestExtension(t *testing.T) {
	t.Parallel()
	extend(t, time.Minute)
}

// TestShutdown_Time checks that the extension exits before Lambda kills it.
func TestShutdown_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	extend(t, lambdaenv.ShutdownTime)
}

// extend runs the extension from its start to its exit. The extension must exit within
// patience after SHUTDOWN.
func extend(t *testing.T, patience time.Duration) {
	t.Helper()
	secrets := fakeaws.New(nil)
	t.Cleanup(secrets.Close)
	users(t, secrets, 1)
	e, setting := environment(t)
	p := start(t, secrets, setting)
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", p.address); err == nil {
		_ = c.Close()
		t.Error("it listens before the first invocation: a snapshot would hold what it has read")
	}
	if _, err := e.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	p.healthy()
	client := &http.Client{Transport: &http.Transport{}}
	if status, answer := p.find(client, user); status != http.StatusOK || !strings.Contains(answer, `"1000.a0"`) {
		t.Errorf("status %d", status)
	}
	if _, err := e.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	client.CloseIdleConnections()
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("%v: %s", err, p.errs.String())
		}
	case <-time.After(patience):
		t.Errorf("it runs %v after SHUTDOWN", patience)
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
			e, api := environment(t)
			p := start(t, secrets, api, setting)
			if err := e.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			var err error
			for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); {
				_, err = e.Invoke(t.Context(), nil) // the first invocation may end before the extension fails
			}
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("the invocation ends with %v", err)
			}
			if err := <-p.ended; err == nil || !strings.Contains(p.errs.String(), reason) {
				t.Errorf("it ends with %v: %s", err, p.errs.String())
			}
		})
	}
}

// TestPolicyOfTheTemplate checks that the role in template.yaml has exactly the permissions
// that the store needs. The role in main.tf comes from deploy/terraform/aws, which has its own
// test.
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
