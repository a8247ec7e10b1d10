package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tokenkeep/tokenkeep/examples/internal/lambdaenv"
	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// An instance is one instance of the function: the processes of the extension and of the
// runtime in one execution environment.
type instance struct {
	w           *world
	dir         string
	environment *lambdaenv.Environment
	api         string // the address of the server of environment
	stop        func()

	extension, runtime *process

	mu       sync.Mutex
	problems []error // one for each request that Lambda would refuse
}

type process struct {
	cmd   *exec.Cmd
	errs  bytes.Buffer
	ended chan struct{} // closed when the process has ended
	err   error         // valid after ended is closed
}

func (w *world) instance(n int) *instance {
	i := &instance{w: w, dir: filepath.Join(w.dir, fmt.Sprint(n)), stop: func() {}}
	i.environment = lambdaenv.New("tokenkeep", func(problem string) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.problems = append(i.problems, errors.New(problem))
	})
	return i
}

// start starts the extension and then the runtime, and waits until both have initialized.
func (i *instance) start(ctx context.Context) error {
	if err := os.Mkdir(i.dir, 0o700); err != nil {
		return err
	}
	api, stop, err := fakeserver.Serve(i.environment)
	if err != nil {
		return err
	}
	i.stop, i.api = stop, strings.TrimPrefix(api, "http://")
	listen, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	tokenFile := filepath.Join(i.dir, "agent-token")
	if i.extension, err = i.run(i.w.extension(), nil, map[string]string{
		"TOKEN_PREFIX": prefix, "ZOHO_ACCOUNTS_URL": i.w.accounts, "TOKENKEEP_ONLY_CLIENT": client,
		"TOKENKEEP_AGENT_LISTEN": listen, "TOKENKEEP_AGENT_TOKEN_FILE": tokenFile,
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": i.w.secrets.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
	}); err != nil {
		return err
	}
	if err := i.during(ctx, i.environment.Registered); err != nil {
		return err
	}
	at := func(path ...string) string { return filepath.Join(append([]string{i.w.root}, path...)...) }
	if i.runtime, err = i.run("python3", []string{"-c", "import runpy, standin, sys; runpy.run_path(sys.argv[1])", at("examples", "lambda-extension", "local", "runtime.py")}, map[string]string{
		"_HANDLER": "app.handler", "TOKEN_USER": user, "TOKENKEEP_AGENT": "http://" + listen, "TOKENKEEP_AGENT_TOKEN_FILE": tokenFile,
		"API": i.w.accounts, "PYTHONDONTWRITEBYTECODE": "1",
		"PYTHONPATH": strings.Join([]string{at("examples", "lambda-extension", "function"), at("sdk", "python", "src"), at("sdk", "python", "test")}, string(os.PathListSeparator)),
	}); err != nil {
		return err
	}
	return i.during(ctx, i.environment.Ready)
}

// run starts a program with the environment variables that Lambda sets, and with env.
func (i *instance) run(program string, args []string, env map[string]string) (*process, error) {
	//nolint:noctx // The instance ends the process as Lambda does, which needs more than a context.
	p := &process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Env = []string{"AWS_LAMBDA_RUNTIME_API=" + i.api, "HOME=" + i.dir, "PATH=" + os.Getenv("PATH"), "SYSTEMROOT=" + os.Getenv("SYSTEMROOT")}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, &p.errs
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// during calls the function f. If a process of the instance ends before f returns, during cancels
// the context of f. It returns the error from f, joined with an error for each request that Lambda
// would refuse.
func (i *instance) during(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, p := range i.processes() {
		go func() {
			select {
			case <-p.ended:
				cancel(fmt.Errorf("%s ended: %w\n%s", filepath.Base(p.cmd.Path), errors.Join(p.err), p.errs.String()))
			case <-ctx.Done():
			}
		}()
	}
	return errors.Join(f(ctx), i.refused())
}

func (i *instance) invoke(ctx context.Context) (answer []byte, err error) {
	err = i.during(ctx, func(ctx context.Context) (err error) {
		answer, err = i.environment.Invoke(ctx, []byte("{}"))
		return err
	})
	return answer, err
}

// shutdown kills the runtime, sends SHUTDOWN to the extension, and waits until the extension
// has exited. It returns an error if the extension fails or takes longer than Lambda allows,
// or if Lambda would have refused a request.
func (i *instance) shutdown(ctx context.Context) error {
	_ = i.runtime.cmd.Process.Kill()
	<-i.runtime.ended
	if err := i.environment.Shutdown(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lambdaenv.ShutdownTime)
	defer cancel()
	select {
	case <-i.extension.ended:
		if i.extension.err != nil {
			return fmt.Errorf("the extension ended: %w\n%s", i.extension.err, i.extension.errs.String())
		}
		return i.refused()
	case <-ctx.Done():
		return fmt.Errorf("the extension has not exited %v after SHUTDOWN", lambdaenv.ShutdownTime)
	}
}

// refused returns an error for the requests that Lambda would refuse, or nil if there are none.
func (i *instance) refused() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return errors.Join(i.problems...)
}

// kill kills the processes of the instance, and stops the server of its environment.
func (i *instance) kill() {
	for _, p := range i.processes() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	i.stop()
}

func (i *instance) processes() (started []*process) {
	for _, p := range []*process{i.extension, i.runtime} {
		if p != nil {
			started = append(started, p)
		}
	}
	return started
}

// freeAddress returns a local address on which no process listens.
func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
