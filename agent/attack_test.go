package agent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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
	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// envConnect is an environment variable with the path of a socket. If the variable is set, the test
// binary connects to the socket and prints the response.
const envConnect = "TOKENKEEP_TEST_CONNECT"

func TestMain(m *testing.M) {
	if path := os.Getenv(envConnect); path != "" {
		fmt.Print(connect(path))
		return
	}
	os.Exit(m.Run())
}

func connect(path string) string {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "unix", path)
	if err != nil {
		return err.Error()
	}
	_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(c)
	return fmt.Sprint(string(answer), err)
}

func TestRequestsOfOthersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	port := w.url[strings.LastIndex(w.url, ":"):]
	body := `{"id":"` + have.ID + `"}`
	for name, c := range map[string]struct {
		status int
		header map[string]string
	}{
		"no token":            {401, map[string]string{agent.TokenHeader: ""}},
		"another token":       {401, map[string]string{agent.TokenHeader: "agent-token-of-26-letters_"}},
		"the token and more":  {401, map[string]string{agent.TokenHeader: agentToken + "x"}},
		"half the token":      {401, map[string]string{agent.TokenHeader: agentToken[:13]}},
		"token as bearer":     {401, map[string]string{agent.TokenHeader: "", "Authorization": "Bearer " + agentToken}},
		"rebound name":        {403, map[string]string{"Host": "attacker.example" + port}},
		"name with own port":  {403, map[string]string{"Host": "localhost.attacker.example" + port}},
		"another port":        {403, map[string]string{"Host": "127.0.0.1:1"}},
		"no port":             {403, map[string]string{"Host": "127.0.0.1"}},
		"another address":     {403, map[string]string{"Host": "169.254.169.254" + port}},
		"origin":              {403, map[string]string{"Origin": "http://attacker.example"}},
		"origin of its own":   {403, map[string]string{"Origin": "http://127.0.0.1" + port}},
		"null origin":         {403, map[string]string{"Origin": "null"}},
		"forwarded":           {400, map[string]string{"X-Forwarded-For": "127.0.0.1"}},
		"forwarded by RFC":    {400, map[string]string{"Forwarded": "for=127.0.0.1"}},
		"through a proxy":     {400, map[string]string{"Via": "1.1 proxy"}},
		"a form":              {415, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
		"plain text":          {415, map[string]string{"Content-Type": "text/plain"}},
		"no type":             {415, map[string]string{"Content-Type": ""}},
		"its own other names": {200, map[string]string{"Host": "LOCALHOST" + port}},
	} {
		status, answer := w.do(http.MethodPost, "/v1/find_by_id", body, c.header)
		if status != c.status {
			t.Errorf("%s: status %d, not %d", name, status, c.status)
		}
		if status != http.StatusOK && strings.Contains(answer, "1000.") {
			t.Errorf("%s: the answer has a token", name)
		}
	}
	w.asked(0, 1)
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, path := range []string{"/v1/find", "/healthz"} {
		for _, header := range []map[string]string{
			{"Origin": "http://attacker.example", "Access-Control-Request-Method": "POST"},
			{"Access-Control-Request-Method": "POST"},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, w.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range header {
				req.Header.Set(name, value)
			}
			res, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("%s: status %d", path, res.StatusCode)
			}
			for name := range res.Header {
				if strings.HasPrefix(name, "Access-Control") {
					t.Errorf("%s: the answer has %s", path, name)
				}
			}
		}
	}
}

func TestPathsThatAreAlmostOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/find/", "//v1/find", "/v1//find", "/v1/../v1/find", "/v1/./find", "/v1/FIND", "/V1/find",
		"/v1/find%2f", "/v1/f%69nd", "/v1%2Ffind", "/v1/find%00", "/v1/find;a", "/v1/find_by_id%20", "/v2/find", "/healthz/..%2fv1/find",
	} {
		if status, _ := w.do(http.MethodPost, path, `{"id":"`+have.ID+`"}`, nil); status != http.StatusNotFound {
			t.Errorf("%s: status %d", path, status)
		}
	}
	for _, path := range []string{"/v1/find?id=" + have.ID, "/v1/find?", "/healthz?x=1"} {
		if status, _ := w.do(http.MethodPost, path, `{"id":"`+have.ID+`"}`, nil); status != http.StatusBadRequest {
			t.Errorf("%s: status %d", path, status)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "POSTX"} {
		if status, _ := w.do(method, "/v1/find", "", nil); status != http.StatusMethodNotAllowed {
			t.Errorf("%s: status %d", method, status)
		}
	}
	if status, _ := w.do(http.MethodPost, "/healthz", "", nil); status != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz: status %d", status)
	}
	w.asked(0, 0)
}

func TestPagesNeedNoToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.saved()
	for _, path := range []string{"/healthz", "/readyz", "/v1/openapi.json"} {
		status, answer := w.do(http.MethodGet, path, "", map[string]string{agent.TokenHeader: ""})
		if status != http.StatusOK || strings.Contains(answer, "1000.") {
			t.Errorf("%s: status %d", path, status)
		}
	}
	calls := w.secrets.calls()
	for range 20 {
		w.do(http.MethodGet, "/readyz", "", nil)
	}
	if n := w.secrets.calls() - calls; n != 0 {
		t.Errorf("20 requests ask the store %d times", n)
	}
}

// raw connects to the agent, and passes the connection to the function write. raw returns the
// status line of the response and the time until the status line arrived.
func (w *world) raw(write func(net.Conn)) (string, time.Duration) {
	w.t.Helper()
	begin := time.Now()
	c, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		w.t.Error(err)
		return "", 0
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(begin.Add(time.Minute))
	write(c)
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), time.Since(begin)
}

func TestSlowAndHugeRequestsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	have := w.saved()
	head := "POST /v1/find_by_id HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.url, "http://") + "\r\n" + agent.TokenHeader + ": " + agentToken + "\r\nContent-Type: application/json\r\n"
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		write func(net.Conn)
		want  string
		most  time.Duration
	}{
		"slow head":  {func(c net.Conn) { _, _ = io.WriteString(c, "POST /v1/fi") }, "400", 10 * time.Second},
		"no head":    {func(net.Conn) {}, "", 10 * time.Second},
		"slow body":  {func(c net.Conn) { _, _ = io.WriteString(c, head+"Content-Length: 100\r\n\r\n{") }, "400", 20 * time.Second},
		"huge head":  {func(c net.Conn) { _, _ = io.WriteString(c, head+"X: "+strings.Repeat("x", 64<<10)+"\r\n\r\n") }, "431", 10 * time.Second},
		"huge body":  {func(c net.Conn) { huge(c, head+"Content-Length: 1073741824\r\n\r\n") }, "413", 10 * time.Second},
		"chunks":     {func(c net.Conn) { huge(c, head+"Transfer-Encoding: chunked\r\n\r\n40000000\r\n") }, "413", 10 * time.Second},
		"two bodies": {func(c net.Conn) { _, _ = io.WriteString(c, head+"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ") }, "400", 10 * time.Second},
	} {
		wg.Go(func() {
			line, took := w.raw(c.write)
			if !strings.Contains(line, c.want) || (c.want == "") != (line == "") || took > c.most {
				t.Errorf("%s: %q after %v", name, line, took)
			}
		})
	}
	w.ok("find_by_id", object{"id": have.ID}) // while the other requests are in progress
	wg.Wait()
}

// huge sends the head of a request and a body that is larger than the agent reads.
func huge(c net.Conn, head string) {
	_, _ = io.WriteString(c, head)
	block := strings.Repeat(" ", 64<<10)
	for range 16 {
		if _, err := io.WriteString(c, block); err != nil {
			return
		}
	}
}

func TestConnectionsOverTheLimitAreTold(t *testing.T) {
	t.Parallel()
	const most, connections = 20, 500
	h, err := agent.New(agent.Config{Store: memstore.New(nil), PassThrough: true, Token: agentToken})
	if err != nil {
		t.Fatal(err)
	}
	l, err := agent.Listen(t.Context(), "127.0.0.1:0", &agent.ListenOptions{MaxConnections: most})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- agent.Serve(ctx, l, h, nil) }()
	w := &world{t: t, url: "http://" + l.Addr().String()}
	get := "GET /healthz HTTP/1.1\r\nHost: " + l.Addr().String() + "\r\n\r\n"

	var held []net.Conn
	for range most {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, get)
		if line, _ := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "200") {
			t.Fatalf("the answer is %q", line)
		}
		held = append(held, c)
	}
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			line, took := w.raw(func(c net.Conn) {
				if i%2 == 0 { // the other half of the connections send no request
					_, _ = io.WriteString(c, get)
				}
			})
			if line != "HTTP/1.1 429 Too Many Requests" || took > 20*time.Second {
				t.Errorf("%q after %v", line, took)
			}
		})
	}
	wg.Wait()
	_ = held[0].Close()
	until := time.Now().Add(10 * time.Second)
	for line := ""; !strings.Contains(line, "200"); {
		if line, _ = w.raw(func(c net.Conn) { _, _ = io.WriteString(c, get) }); time.Now().After(until) {
			t.Fatalf("a slot that is free again is not used: %q", line)
		}
	}
	for _, c := range held {
		_ = c.Close()
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestRequestsOverTheLimitAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *agent.Config) { c.MaxRequests = 1 })
	have := w.saved()
	hold, arrived := make(chan struct{}), make(chan struct{})
	w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
		close(arrived)
		return &zohoaccounts.Fault{Wait: hold}
	})
	var wg sync.WaitGroup
	wg.Go(func() { w.post("find_by_id", object{"id": have.ID}) })
	<-arrived
	w.fails("find_by_id", object{"id": have.ID}, http.StatusTooManyRequests, "too_many")
	if status, _ := w.do(http.MethodGet, "/healthz", "", nil); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	close(hold)
	wg.Wait()
}

func TestServeStoppedWhileMinting(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"the process is told to end", "the caller goes"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			have := w.saved()
			w.conf.Logger = nil
			h, err := agent.New(w.conf)
			if err != nil {
				t.Fatal(err)
			}
			l, err := agent.Listen(t.Context(), "127.0.0.1:0", nil)
			if err != nil {
				t.Fatal(err)
			}
			hold, arrived := make(chan struct{}), make(chan struct{})
			w.zoho.Inject(func(zohoaccounts.Request) *zohoaccounts.Fault {
				close(arrived)
				return &zohoaccounts.Fault{Wait: hold}
			})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			served := make(chan error, 1)
			go func() { served <- agent.Serve(ctx, l, h, nil) }()
			body := `{"id":"` + have.ID + `"}`
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(c, "POST /v1/find_by_id HTTP/1.1\r\nHost: %s\r\n%s: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
				l.Addr(), agent.TokenHeader, agentToken, len(body), body)
			<-arrived
			if end == "the caller goes" {
				_ = c.Close()
			}
			stop()
			close(hold)
			if err := <-served; err != nil {
				t.Error(err)
			}
			now, err := w.store.FindTokenByID(t.Context(), have.ID)
			if err != nil || now.AccessToken == have.AccessToken {
				t.Errorf("the new token is not stored: %v", err)
			}
			if end != "the caller goes" {
				if line, _ := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "200") {
					t.Errorf("the answer is %q", line)
				}
				_ = c.Close()
			}
			w.asked(0, 1)
		})
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	w := newWorld(t, nil)
	w.conf.Token = ""
	w.start("unix:" + path)
	have := w.saved()
	w.ok("find_by_id", object{"id": have.ID})
	for host, want := range map[string]int{"localhost": 200, "attacker.example": 403} {
		if status, _ := w.do(http.MethodGet, "/healthz", "", map[string]string{"Host": host}); status != want {
			t.Errorf("%s: status %d", host, status)
		}
	}
	at, err := os.Stat(path)
	if err != nil || at.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %v: %v", at.Mode(), err)
	}
	if _, err := agent.Listen(t.Context(), "unix:"+path, nil); err == nil {
		t.Error("a second process listens on the socket")
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Errorf("%d files are left: %v", len(names), err)
	}
}

func TestListenStaleSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	old, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = old.Close()
	l, err := agent.Listen(t.Context(), "unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is there after Close: %v", err)
	}
	if runtime.GOOS != "windows" { // Windows has no Unix datagram sockets
		// A datagram socket accepts no connection, even if a process uses the socket.
		packets, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "unixgram", filepath.Join(dir, "packets"))
		if err != nil {
			t.Fatal(err)
		}
		defer packets.Close()
		if _, err := agent.Listen(t.Context(), "unix:"+packets.LocalAddr().String(), nil); err == nil {
			t.Error("a socket that a process uses is replaced")
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Listen(t.Context(), "unix:"+file, nil); err == nil {
		t.Error("a file is replaced")
	}
}

// TestAnotherUserOnTheSocket checks that the agent refuses a process of another user even if the
// mode of the socket lets that process connect.
func TestAnotherUserOnTheSocket(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root on Linux can be another user")
	}
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // another user cannot enter the parent directory of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path, program := filepath.Join(dir, "s"), filepath.Join(dir, "connect")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil)
	w.conf.Token = ""
	w.start("unix:" + path)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{65534: "403 Forbidden", 0: "200 OK"} {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = []string{envConnect + "=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("user %d: %v: %s", uid, err, out)
		}
	}
}

// TestGuessing_Time checks that the agent refuses a token with a wrong first character as fast as a
// token with a wrong last character. The test compares the fastest of 2,000 attempts with each
// token, and allows a factor of two.
func TestGuessing_Time(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures times")
	}
	secret := tokenstore.Secret(strings.Repeat("s", 4096))
	h, err := agent.New(agent.Config{Store: memstore.New(nil), PassThrough: true, Token: secret})
	if err != nil {
		t.Fatal(err)
	}
	guess := func(token string) time.Duration {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/list", strings.NewReader("{}"))
		req.Host = "localhost"
		req.Header.Set(agent.TokenHeader, token)
		res := httptest.NewRecorder()
		begin := time.Now()
		h.ServeHTTP(res, req)
		took := time.Since(begin)
		if res.Code != http.StatusUnauthorized {
			t.Fatalf("status %d", res.Code)
		}
		return took
	}
	early, late := "x"+string(secret[1:]), string(secret[1:])+"x"
	least := map[string]time.Duration{early: time.Hour, late: time.Hour}
	for range 2000 {
		for token := range least {
			least[token] = min(least[token], guess(token))
		}
	}
	if a, b := least[early], least[late]; a > 2*b || b > 2*a {
		t.Errorf("a guess takes %v if it is wrong at the beginning, and %v at the end", a, b)
	}
}
