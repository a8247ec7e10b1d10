package integration

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A child is a vaultdev process that the test controls.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	addr   string
	exited chan struct{}
}

func program(t *testing.T) string {
	t.Helper()
	path, err := vaultdev()
	VaultBackend.must(t, err)
	return path
}

// newChild starts vaultdev and waits until it listens.
func newChild(t *testing.T, env []string, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(program(t), args...), exited: make(chan struct{})}
	c.cmd.Env = append(withoutVault(os.Environ()), env...)
	c.cmd.Stderr = &c.stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
	})
	output := bufio.NewReader(stdout)
	line, err := output.ReadString('\n')
	if err != nil {
		t.Errorf("standard output: %v", err)
	}
	go func() {
		defer close(c.exited)
		if rest, _ := io.ReadAll(output); len(rest) > 0 {
			t.Errorf("more on standard output: %q", rest)
		}
		_ = c.cmd.Wait()
	}()
	if !regexp.MustCompile(`^listening http://127\.0\.0\.1:[1-9][0-9]*\n$`).MatchString(line) {
		t.Fatalf("vaultdev printed %q", line)
	}
	c.addr = strings.TrimSpace(strings.TrimPrefix(line, "listening "))
	return c
}

// wait checks that the program exits without an error within stopTimeout.
func (c *child) wait(t *testing.T) {
	t.Helper()
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-c.exited:
		if state := c.cmd.ProcessState; !state.Success() {
			t.Errorf("vaultdev: %v\n%s", state, c.stderr.Bytes())
		}
	case <-timeout.C:
		t.Error("vaultdev does not stop")
	}
}

func (c *child) status(t *testing.T, token, path string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.addr+"/v1/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Vault-Token", token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestVaultdevStopsWithItsInput(t *testing.T) {
	t.Parallel()
	c := newChild(t, nil, "-stdin")
	if got := c.status(t, "", "sys/health"); got != http.StatusOK {
		t.Errorf("health: %d", got)
	}
	if err := c.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	c.wait(t)
}

func TestVaultdevStopsBySignal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	c := newChild(t, nil)
	if err := c.stdin.Close(); err != nil { // without -stdin, the program ignores the end of its input
		t.Fatal(err)
	}
	if got := c.status(t, "", "sys/health"); got != http.StatusOK {
		t.Errorf("health: %d", got)
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.wait(t)
}

func TestVaultdevFlags(t *testing.T) {
	t.Parallel()
	keyFile := filepath.Join(t.TempDir(), "key")
	c := newChild(t, []string{"VAULT_DEV_ROOT_TOKEN_ID=a-token"}, "-stdin", "-mount", "team/kv", "-unseal-key-file", keyFile)
	if got := c.status(t, "a-token", "team/kv/config"); got != http.StatusOK {
		t.Errorf("config of the mount: %d", got)
	}
	if got := c.status(t, "root", "team/kv/config"); got != http.StatusForbidden {
		t.Errorf("config of the mount with another token: %d", got)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := hex.DecodeString(string(bytes.TrimSpace(key))); err != nil || len(raw) != 32 {
		t.Errorf("the key is %q", key)
	}
	if info, err := os.Stat(keyFile); err != nil {
		t.Error(err)
	} else if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v", info.Mode())
	}

	c = newChild(t, nil, "-stdin")
	if got := c.status(t, "root", "secret/config"); got != http.StatusOK {
		t.Errorf("config of the mount, by default: %d", got)
	}

	for _, args := range [][]string{{"-addr", "nowhere"}, {"-log-level", "loud"}, {"token"}, {"-mount", "sys"}} {
		out, err := exec.CommandContext(t.Context(), program(t), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "vaultdev: ") {
			t.Errorf("vaultdev %q: %v\n%s", args, err, out)
		}
	}
}

// TestVaultdevIsBuiltOnce checks that the path of a build is the same at each call, and that
// the path contains a digest.
func TestVaultdevIsBuiltOnce(t *testing.T) {
	t.Parallel()
	first, err := locate("vaultdev")
	if err != nil {
		t.Fatal(err)
	}
	second, err := locate("vaultdev")
	if err != nil || first != second {
		t.Errorf("%q, then %q, %v", first, second, err)
	}
	if !regexp.MustCompile(`[/\\]tokenkeep[/\\]vaultdev-[0-9a-f]{24}(\.exe)?$`).MatchString(first) {
		t.Errorf("it is at %q", first)
	}
}

func TestOldBuildsGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := time.Now().Add(-2 * keepBuilds)
	for _, name := range []string{"vaultdev-old", "vaultdev-new", "vaultdev-this", "kubedev-old", "kubedev-used", "build-old", "other"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "vaultdev-new" {
			if err := os.Chtimes(path, long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !cached(filepath.Join(dir, "kubedev-used")) || cached(filepath.Join(dir, "kubedev-absent")) {
		t.Error("cached does not tell which builds there are")
	}
	removeOld(dir, filepath.Join(dir, "vaultdev-this"))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range left {
		left[i] = filepath.Base(path)
	}
	if got := strings.Join(left, " "); got != "kubedev-used other vaultdev-new vaultdev-this" {
		t.Errorf("left: %s", got)
	}
}
