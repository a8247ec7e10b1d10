package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	startTimeout = 5 * time.Minute  // time for a server to become ready on a busy machine
	stopTimeout  = 10 * time.Second // time for a server to end after it is told to stop
	callTimeout  = 30 * time.Second // time for one call that prepares a test or cleans up after a test
)

// A Server is a server that runs in a container, as a process, or outside the tests.
type Server struct {
	// Addr is the address of a server that the tests started, as host:port. Addr may
	// change when a container is restarted. For an external server, Addr is the address from
	// the environment, or empty.
	Addr string

	what  string   // a description, such as "container 0123456789ab of IMAGE"
	about string   // the version, and whether the server is real
	run   instance // nil for an external server

	logged sync.Once // prints the server's output
}

// An instance is a server that the tests started and control.
type instance interface {
	kill(ctx context.Context) error            // ends the server immediately, as a crash would
	start(ctx context.Context) (string, error) // restarts the server with its stored data, and returns its address
	stop(ctx context.Context) error            // ends the server permanently, and removes its data
	died() <-chan struct{}                     // returns a channel that is closed soon after the server ends unexpectedly
	running(ctx context.Context) bool          // reports whether the server is running now
	log(ctx context.Context) string            // returns the output of the server
}

// String returns a description of the server, which includes the text of About.
func (s *Server) String() string { return s.what + ", " + s.about }

// About returns the version of the server and whether it is real.
func (s *Server) About() string { return s.about }

// own reports whether the tests started the server. Tests need not remove their data from
// such a server, because the server is removed at the end.
func (s *Server) own() bool { return s != nil && s.run != nil }

// dead reports whether the server has ended unexpectedly.
func (s *Server) dead() bool {
	if !s.own() {
		return false
	}
	select {
	case <-s.run.died():
		return true
	default:
		return false
	}
}

// Watch fails the test immediately if the server has crashed. If the test fails later and the
// server is not running when the test ends, Watch logs that the server has crashed. Watch ignores
// external servers.
func (s *Server) Watch(t testing.TB) {
	t.Helper()
	if !s.own() {
		return
	}
	if s.dead() {
		t.Fatal(s.obituary())
	}
	t.Cleanup(func() {
		// The test may fail before s.dead reports the crash, so ask whether the server still runs.
		if t.Failed() && !s.run.running(context.Background()) {
			t.Log(s.obituary())
		}
	})
}

// obituary returns a message that the server has crashed. The message that the first call returns
// includes the server's output.
func (s *Server) obituary() string {
	text := s.what + " has died; what it printed is above"
	s.logged.Do(func() { text = fmt.Sprintf("%s has died; it printed:\n%s", s.what, s.Log()) })
	return text
}

// report prints the output of a crashed server, unless a test has printed the output. No test
// prints the output if all tests fail before the engine notices the crash.
func (s *Server) report() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if s.own() && !s.run.running(ctx) {
		s.logged.Do(func() { logf("%s has died; it printed:\n%s", s.what, s.Log()) })
	}
}

// Log returns the last lines of the server's output, at most 4 KiB. The tests must have started
// the server.
func (s *Server) Log() string {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return tail(s.run.log(ctx), 4<<10)
}

// tail returns text if text has at most n bytes. Otherwise, tail returns an ellipsis on a line of
// its own, and the complete lines in the last n bytes of text.
func tail(text string, n int) string {
	if len(text) <= n {
		return text
	}
	text = text[len(text)-n:]
	_, text, _ = strings.Cut(text, "\n")
	return "…\n" + text
}

// Kill ends the server immediately, as a crash would. Start restarts the server.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if err := s.run.kill(ctx); err != nil {
		t.Fatal(err)
	}
}

// Start restarts a killed server with its stored data.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	addr, err := s.run.start(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Log())
	}
	s.Addr = addr
}

// cleanUp stops the server when the test ends. If the test has failed, cleanUp first logs the
// server's output.
func (s *Server) cleanUp(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s printed:\n%s", s.what, s.Log())
		}
		if err := s.stop(); err != nil {
			t.Errorf("stop %s: %v", s.what, err)
		}
	})
}

// orStop returns s if err, the error from the last step of the start, is nil. Otherwise, orStop
// stops s and returns the error, because the caller gets no server to stop.
func (s *Server) orStop(err error) (*Server, error) {
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *Server) stop() error {
	if s.run == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return s.run.stop(ctx)
}

// A process is a server that runs as a child process. The program ends when its standard input is
// closed. The system closes the standard input if the tests are killed.
type process struct {
	command func() *exec.Cmd
	scratch string // a folder that is removed at the end; empty if there is none

	// ready waits until the program is ready, and returns the program's address. If ready is nil,
	// the first line that the program prints must be "listening " and the program's URL.
	ready func(ctx context.Context) (string, error)

	// tied reports whether the command is a supervisor, which kills the program when the
	// supervisor reads a line from its standard input.
	tied bool

	mu     sync.Mutex
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	exited chan struct{}
	killed bool
	output lockedBuffer
	dead   chan struct{}
	once   sync.Once
}

// startProcess starts a server, and returns its address. command returns the command for each
// start and restart. scratch is a folder that is removed at the end, or if the first start fails;
// "" means none.
func startProcess(ctx context.Context, scratch string, command func() *exec.Cmd) (*process, string, error) {
	p := &process{command: command, scratch: scratch, dead: make(chan struct{})}
	addr, err := p.start(ctx)
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("%w\n%s", err, p.output.String()), os.RemoveAll(scratch))
	}
	return p, addr, nil
}

func (p *process) start(ctx context.Context) (string, error) {
	cmd := p.command()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	cmd.Stderr = &p.output
	if err := cmd.Start(); err != nil {
		return "", err
	}
	exited := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.stdin, p.exited, p.killed = cmd, stdin, exited, false
	p.mu.Unlock()
	first := make(chan string, 1)
	go func() {
		output := bufio.NewReader(stdout)
		if p.ready == nil {
			line, _ := output.ReadString('\n')
			first <- line
		}
		_, _ = io.Copy(&p.output, output)
		_ = cmd.Wait()
		close(exited)
		p.mu.Lock()
		unexpected := !p.killed && p.cmd == cmd
		p.mu.Unlock()
		if unexpected {
			p.once.Do(func() { close(p.dead) })
		}
	}()
	addr, err := p.address(ctx, first)
	if err != nil {
		return "", errors.Join(err, p.kill(ctx))
	}
	return addr, nil
}

// address waits until the program is ready, and returns its address. first receives the first
// line that the program prints, unless p.ready is set.
func (p *process) address(ctx context.Context, first <-chan string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if p.ready != nil {
		return p.ready(ctx)
	}
	select {
	case line := <-first:
		url, ok := strings.CutPrefix(line, "listening ")
		if !ok {
			return "", fmt.Errorf("the program printed %q, not where it listens", line)
		}
		_, addr, _ := strings.Cut(strings.TrimSpace(url), "://")
		return addr, nil
	case <-ctx.Done():
		return "", fmt.Errorf("the program was not ready: %w", ctx.Err())
	}
}

// ending records that the process is about to be stopped on purpose. ending returns the command,
// the command's standard input, and a channel that is closed after the process has ended.
func (p *process) ending() (*exec.Cmd, io.WriteCloser, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	return p.cmd, p.stdin, p.exited
}

func (p *process) kill(context.Context) error {
	cmd, stdin, exited := p.ending()
	if p.tied {
		_, _ = io.WriteString(stdin, "kill\n")
	} else {
		_ = cmd.Process.Kill()
	}
	<-exited
	_ = stdin.Close() // the error is expected, because Wait has closed stdin
	return nil
}

func (p *process) stop(ctx context.Context) error {
	cmd, stdin, exited := p.ending()
	_ = stdin.Close()
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-exited:
		return os.RemoveAll(p.scratch)
	case <-timeout.C:
		err := fmt.Errorf("%s did not stop when its input was closed", cmd.Path)
		return errors.Join(err, p.kill(ctx), os.RemoveAll(p.scratch))
	}
}

func (p *process) running(context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) died() <-chan struct{} { return p.dead }

func (p *process) log(context.Context) string { return p.output.String() }

// A lockedBuffer is a buffer that goroutines can read and write concurrently.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
