package cli

import (
	"bufio"
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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/agent"
	"github.com/tokenkeep/tokenkeep/internal/fakeaws"
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// A served is an agent that runs as a separate process.
type served struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *bufio.Reader
	errs  *bytes.Buffer
	url   string
	token string
	http  *http.Client
	ended chan error
}

// serveProcess starts "tokenkeep serve" in the environment e, and waits until the agent
// listens. The process is killed when the test ends.
func serveProcess(t *testing.T, e env, args ...string) *served {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, errs: &bytes.Buffer{}, ended: make(chan error, 1), http: &http.Client{Timeout: time.Minute}}
	s.cmd = exec.Command(self, append([]string{"serve"}, args...)...)
	s.cmd.Env = []string{envAsMain + "=1", "HOME=" + t.TempDir()}
	for name, value := range e {
		s.cmd.Env = append(s.cmd.Env, name+"="+value)
	}
	s.cmd.Stderr = s.errs
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	line, err := s.out.ReadString('\n')
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if !ok {
		t.Fatalf("it says %q: %v: %s", line, err, <-s.ended)
	}
	s.url = address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		s.url = "http://localhost"
		s.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}
	}
	return s
}

func (s *served) post(op, body string) (int, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/v1/"+op, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(agent.TokenHeader, s.token)
	res, err := s.http.Do(req)
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Error(err)
	}
	return res.StatusCode, decode[map[string]any](s.t, string(text))
}

// accounts returns a fake of Zoho's accounts server with one client, the URL of the fake, and the
// refresh token of a user who gave consent.
func accounts(t *testing.T) (server *zohoaccounts.Server, base, refresh string) {
	t.Helper()
	server = zohoaccounts.New(nil)
	base, stop, err := server.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	server.AddClient(zohoaccounts.Client{ID: "1000.C", Secret: canary + "secret"})
	refresh, _ = server.Tokens(zohoaccounts.Consent{ClientID: "1000.C", Email: "ann", ZGID: "6001"})
	return server, base, refresh
}

func TestServe(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	zoho, base, refresh := accounts(t)
	aws := fakeaws.New(nil)
	t.Cleanup(aws.Close)
	dir := t.TempDir()
	e := env{envStore: "awssm:p?region=eu-central-1&endpoint=" + aws.URL}
	for name, args := range map[string][]string{
		"TCP":  {"--listen", "127.0.0.1:0", "--token-file", filepath.Join(dir, "token")},
		"Unix": {"--listen", "unix:" + filepath.Join(dir, "s")},
	} {
		s := serveProcess(t, e, append(args, "--accounts-url", base, "--verbose")...)
		if name == "TCP" {
			token, err := os.ReadFile(filepath.Join(dir, "token"))
			if err != nil {
				t.Fatal(err)
			}
			if status, _ := s.post("list", "{}"); status != http.StatusUnauthorized {
				t.Errorf("status %d without the token", status)
			}
			s.token = strings.TrimSpace(string(token))
		}
		like := fmt.Sprintf(`{"client_id":"1000.C","client_secret":%q,"refresh_token":%q}`, canary+"secret", refresh)
		status, answer := s.post("find", like)
		record, _ := answer["token"].(map[string]any)
		if status != http.StatusOK || !zoho.Alive(fmt.Sprint(record["access_token"])) {
			t.Errorf("%s: status %d", name, status)
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-s.ended; err != nil {
			t.Errorf("%s: %v: %s", name, err, s.errs)
		}
		for _, secret := range []string{canary, refresh, s.token, fmt.Sprint(record["access_token"])} {
			if secret != "" && strings.Contains(s.errs.String(), secret) {
				t.Errorf("%s: the log has a secret", name)
			}
		}
		if !strings.Contains(s.errs.String(), `"operation":"find"`) {
			t.Errorf("%s: the request is not logged: %s", name, s.errs)
		}
	}
	if n := zoho.Count(zohoaccounts.Refresh); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	if _, err := os.Lstat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestServeEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	zoho, base, refresh := accounts(t)
	aws := fakeaws.New(nil)
	t.Cleanup(aws.Close)
	e := env{envStore: "awssm:p?region=eu-central-1&endpoint=" + aws.URL}
	s := serveProcess(t, e.with(envAgentToken, canary+canary), "--accounts-url", base, "--listen", "127.0.0.1:0")
	s.token = canary + canary
	hold, arrived := make(chan struct{}), make(chan struct{})
	zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
		close(arrived)
		return &zohoaccounts.Fault{Wait: hold}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		status, _ := s.post("find", fmt.Sprintf(`{"client_id":"1000.C","client_secret":%q,"refresh_token":%q,"user_name":"ann"}`, canary+"secret", refresh))
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
	<-arrived
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	close(hold)
	wg.Wait()
	if err := <-s.ended; err != nil {
		t.Errorf("%v: %s", err, s.errs)
	}
	record := decode[map[string]any](t, e.ok(t, "", "get", "--user", "ann", "--client", "1000.C", "--json", "--reveal"))
	if !zoho.Alive(fmt.Sprint(record["access_token"])) {
		t.Error("the token is not stored")
	}
}

func TestServeIsNotCalledAsItShouldBe(t *testing.T) {
	t.Parallel()
	e := fileStoreEnv(t).with(envAgentToken, "a-token-that-is-long-enough")
	for _, args := range [][]string{
		{},
		{"--data-center", "xx"},
		{"--data-center", "eu", "--accounts-url", "https://accounts.example"},
		{"--data-center", "eu", "--environment", "moon"},
		{"--data-center", "eu", "--token-file", "f"},
		{"--data-center", "eu", "--max-records", "0"},
		{"--environment", "sandbox", "--accounts-url", "https://accounts.example"},
		{"--accounts-url", "http://accounts.example"},
		{"--token-url", "https://id.example/token"},
		{"--data-center", "eu", "--issuer", "https://id.example"},
		{"--pass-through", "--data-center", "eu"},
		{"--data-center", "eu", "argument"},
	} {
		e.fails(t, 2, "", append([]string{"serve"}, args...)...)
	}
	e.with(envAgentToken, "short").fails(t, 2, "", "serve", "--data-center", "eu")
	e.with(envAgentToken, "").fails(t, 2, "", "serve", "--data-center", "eu")
	e.fails(t, 1, "", "serve", "--data-center", "eu", "--listen", "192.0.2.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"serve", "--json", "--pass-through", "--listen", "127.0.0.1:0"}, e.lookup, strings.NewReader(""), &out, &errs); code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	var said struct{ Listening string }
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || !strings.HasPrefix(said.Listening, "http://127.0.0.1:") {
		t.Errorf("it says %s", out.String())
	}
}
