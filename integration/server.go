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
	startTimeout = 2 * time.Minute  // from the start of a server to its being ready
	stopTimeout  = 10 * time.Second // from the request to end to the end
	callTimeout  = 30 * time.Second // of one call that prepares a test or cleans up after it
)

// A Server is a running server: a container, a process, or one that somebody
// else runs.
type Server struct {
	// Addr is where it answers, as host:port. A container that was started again
	// may have another one.
	Addr string

	what  string   // what it is, in words: "container 0123456789ab of image"
	about string   // its version, and whether it is real
	run   instance // nil if somebody else runs it

	buried sync.Once // its log is printed once
}

// An instance is a server that the tests have started and can treat as they like.
type instance interface {
	kill(ctx context.Context) error            // at once, as a crash does
	start(ctx context.Context) (string, error) // again, with what it has stored; returns its address
	stop(ctx context.Context) error            // for good; nothing is left
	died() <-chan struct{}                     // closed soon after it ends without having been told to
	running(ctx context.Context) bool          // whether it is there at this moment
	log(ctx context.Context) string            // what it has printed
}

// String says what the server is.
func (s *Server) String() string { return s.what + ", " + s.about }

// About says what version the server has, and whether it is real.
func (s *Server) About() string { return s.about }

// own reports whether the server is the tests' own, so that nothing needs to be
// cleaned up.
func (s *Server) own() bool { return s != nil && s.run != nil }

// dead reports whether the server has ended without having been told to.
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

// Watch makes the test log what the server printed if the test fails and the
// server has died, and fail at once if it has died already.
func (s *Server) Watch(t testing.TB) {
	t.Helper()
	if !s.own() {
		return
	}
	if s.dead() {
		t.Fatal(s.obituary())
	}
	t.Cleanup(func() {
		// That the test fails may be the first sign of it.
		if t.Failed() && !s.run.running(context.Background()) {
			t.Log(s.obituary())
		}
	})
}

// obituary says that the server has died, and the first time what it printed.
func (s *Server) obituary() string {
	text := s.what + " has died; what it printed is above"
	s.buried.Do(func() { text = fmt.Sprintf("%s has died; it printed:\n%s", s.what, s.Log()) })
	return text
}

// bury prints what the server printed if it has died and no test has said so: all
// of them may have failed before the engine knew.
func (s *Server) bury() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if s.own() && !s.run.running(ctx) {
		s.buried.Do(func() { logf("%s has died; it printed:\n%s", s.what, s.Log()) })
	}
}

// Log returns what the server has printed.
func (s *Server) Log() string {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return tail(s.run.log(ctx), 4<<10)
}

// tail returns the last lines of text, at most n bytes.
func tail(text string, n int) string {
	if len(text) <= n {
		return text
	}
	text = text[len(text)-n:]
	_, text, _ = strings.Cut(text, "\n")
	return "…\n" + text
}

// Kill ends the server as a crash does. Start starts it again.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if err := s.run.kill(ctx); err != nil {
		t.Fatal(err)
	}
}

// Start starts a server that was killed, with what it had stored.
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

// cleanUp stops the server when the test is over.
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

func (s *Server) stop() error {
	if s.run == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return s.run.stop(ctx)
}

// A process is a server that runs beside the tests. Its program prints where it
// listens, in one line, and ends when its standard input is closed: that happens
// also if the tests are killed.
type process struct {
	command func() *exec.Cmd
	scratch string // removed in the end, unless it is empty

	// ready, if it is not nil, waits until the program is ready and returns where
	// it listens, in the place of the line.
	ready func(ctx context.Context) (string, error)

	// tied is set if the command is a supervisor, which kills the program when it
	// reads a line.
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

// startProcess starts a server. command makes the command that starts it, and is
// called again when it is started again; scratch is a folder of its own.
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

// address waits until the program is ready, and returns where it listens.
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

// ending returns what is needed to end the process, which is not unexpected from
// now on.
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
	_ = stdin.Close() // which Wait has done
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

// A lockedBuffer is written by one goroutine while another one reads it.
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
