// Package sidecarapp runs the two containers of a manifest as processes. The sidecar is the
// command tokenkeep. The application is examples/sidecar-app with a stand-in for the SDK.
package sidecarapp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/languages"
)

// A Container holds the arguments and the environment of a container in a manifest.
type Container struct {
	Args []string
	Env  map[string]string
}

// Run starts the agent and the application, and returns the URL of the application. api is the
// URL of the API that the SDK calls, and root is the directory of the repository. Run skips
// the test if this machine has no Python.
func Run(t testing.TB, root, api string, sidecar, app Container) string {
	t.Helper()
	languages.Python().Need(t)
	agent := exec.Command(languages.Command(t), sidecar.args()...)
	agent.Env = append(sidecar.env(), "HOME="+t.TempDir())
	languages.Start(t, agent)
	return App(t, root, api, app)
}

// App starts the application without an agent, and returns the URL of the application. See Run
// for the parameters.
func App(t testing.TB, root, api string, app Container) string {
	t.Helper()
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	const run = "import runpy, standin, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
	cmd := exec.Command("python3", "-c", run, filepath.Join(root, "examples/sidecar-app/app.py"))
	address := Free(t)
	_, port, _ := net.SplitHostPort(address)
	cmd.Env = append(app.env(), "PORT="+port, "API="+api, "PYTHONDONTWRITEBYTECODE=1",
		"PYTHONPATH="+root+"/sdk/python/src:"+root+"/sdk/python/test", "PATH=/usr/local/bin:/usr/bin:/bin")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the application says %s", errs.String())
		}
	})
	if err := listens(t, address); err != nil {
		t.Fatal(err)
	}
	return "http://" + address
}

// reference matches a reference to an environment variable in an argument, in the Kubernetes
// syntax.
var reference = regexp.MustCompile(`\$\((\w+)\)`)

func (c Container) args() (args []string) {
	for _, arg := range c.Args {
		args = append(args, reference.ReplaceAllStringFunc(arg, func(name string) string { return c.Env[name[2:len(name)-1]] }))
	}
	return args
}

func (c Container) env() (env []string) {
	for name, value := range c.Env {
		env = append(env, name+"="+value)
	}
	return env
}

// Free returns a local TCP address on which no process listens.
func Free(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// listens waits until a process listens on address. It returns an error after a minute.
func listens(t testing.TB, address string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			return c.Close()
		}
	}
	return errors.New("the application does not listen")
}

// Get requests url from the application, and returns the HTTP status.
func Get(t testing.TB, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(fmt.Errorf("the application: %w", err))
	}
	_ = res.Body.Close()
	return res.StatusCode
}
