package languages

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/zohoaccounts"
)

// ClientID and ClientSecret are the credentials of the client at each Bed's accounts server.
// agentToken is the bearer token for each agent.
const (
	ClientID     = "1000.CLIENT"
	ClientSecret = "a-client-secret"
	agentToken   = "a-token-of-the-agent-for-tests"
)

// made is the directory of the program that the function command built, or nil.
var made atomic.Pointer[string]

// command builds the program tokenkeep, once for all tests, and returns its path.
var command = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tokenkeep-languages-")
	if err != nil {
		return "", err
	}
	made.Store(&dir)
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tokenkeep/tokenkeep").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	path := filepath.Join(dir, "tokenkeep")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/tokenkeep")
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// Command returns the path of the program tokenkeep. It builds the program on the first call.
func Command(t testing.TB) string {
	t.Helper()
	path, err := command()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// CleanUp removes the program that Command built. Call CleanUp in TestMain, after the tests.
func CleanUp() error {
	if dir := made.Swap(nil); dir != nil {
		return os.RemoveAll(*dir)
	}
	return nil
}

// A Bed is the environment of one test: an accounts server and a store.
type Bed struct {
	Zoho  *zohoaccounts.Server
	Base  string   // URL of the accounts server, and of its API
	Store string   // the value of --store
	Env   []string // environment variables with which commands use the store

	t testing.TB
}

// NewBed returns a Bed with the given store, and the variables that commands need for the
// store. The accounts server has one client, and takes half a second for a token.
func NewBed(t testing.TB, store string, env ...string) *Bed {
	t.Helper()
	b := &Bed{Zoho: zohoaccounts.New(nil), Store: store, Env: env, t: t}
	b.Zoho.AddClient(zohoaccounts.Client{ID: ClientID, Secret: ClientSecret})
	b.Zoho.Inject(Slow)
	base, stop, err := b.Zoho.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	b.Base = base
	return b
}

// Slow returns a fault that delays a request by half a second, about as long as Zoho takes. It
// returns nil for a call of the API.
func Slow(r zohoaccounts.Request) *zohoaccounts.Fault {
	if r.Kind == zohoaccounts.API {
		return nil
	}
	return &zohoaccounts.Fault{Delay: 500 * time.Millisecond}
}

// Consent returns the consent of the user ann to the client of a Bed.
func Consent() zohoaccounts.Consent {
	return zohoaccounts.Consent{ClientID: ClientID, Email: "ann", ZGID: "6001"}
}

// An Agent is a process of "tokenkeep serve".
type Agent struct {
	Address string

	cmd   *exec.Cmd
	errs  bytes.Buffer
	ended chan struct{}
}

// Serve starts an agent for the store. If address is "", the agent listens at a free address.
// Unless flags contains --pass-through, the agent uses the accounts server of b.
func (b *Bed) Serve(address string, flags ...string) *Agent {
	b.t.Helper()
	listen := strings.TrimPrefix(address, "http://")
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	args := append([]string{"serve", "--listen", listen}, flags...)
	if !slices.Contains(flags, "--pass-through") {
		args = append(args, "--accounts-url", b.Base)
	}
	return Start(b.t, b.command(args))
}

// Start starts a command that runs an agent, and waits until the agent listens. The agent is
// killed when the test ends.
func Start(t testing.TB, cmd *exec.Cmd) *Agent {
	t.Helper()
	a := &Agent{cmd: cmd, ended: make(chan struct{})}
	cmd.Stderr = &a.errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { _ = cmd.Wait(); close(a.ended) }()
	t.Cleanup(a.Kill)
	var ok bool
	if a.Address, ok = strings.CutPrefix(strings.TrimSpace(line), "listening "); !ok {
		a.Kill()
		t.Fatalf("the agent says %q: %v: %s", line, err, a.errs.String())
	}
	return a
}

// Kill kills the process of a, and waits until the process has ended.
func (a *Agent) Kill() {
	_ = a.cmd.Process.Kill()
	<-a.ended
}

// Run runs tokenkeep with the store and the given arguments. It fails the test if the program
// fails.
func (b *Bed) Run(stdin string, args ...string) {
	b.t.Helper()
	cmd := b.command(args)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("tokenkeep %v: %v: %s", args, err, out)
	}
}

func (b *Bed) command(args []string) *exec.Cmd {
	b.t.Helper()
	cmd := exec.Command(Command(b.t), args...)
	cmd.Env = append([]string{"TOKENKEEP_STORE=" + b.Store, "TOKENKEEP_AGENT_TOKEN=" + agentToken, "HOME=" + b.t.TempDir()}, b.Env...)
	return cmd
}
