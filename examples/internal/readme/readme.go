// Package readme runs the code blocks of an example's README in the example's test,
// as if a reader pasted them into a shell.
package readme

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Block is a fenced code block of a Markdown page.
type Block struct{ Language, Text string }

// Blocks returns the blocks of the page at path, in order. It fails the test if the page
// cannot be read, has no block, or has a block without an end.
func Blocks(t testing.TB, path string) []Block {
	t.Helper()
	page, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	var all []Block
	open := false
	for lines := bufio.NewScanner(page); lines.Scan(); {
		language, fence := strings.CutPrefix(lines.Text(), "```")
		switch {
		case fence && !open:
			all = append(all, Block{Language: language})
			open = true
		case fence:
			open = false
		case open:
			all[len(all)-1].Text += lines.Text() + "\n"
		}
	}
	if len(all) == 0 || open {
		t.Fatalf("%s: no fenced block, or one without an end", path)
	}
	return all
}

// Only returns the concatenated texts of the blocks in the given language.
func Only(blocks []Block, language string) string {
	var text strings.Builder
	for _, b := range blocks {
		if b.Language == language {
			text.WriteString(b.Text)
		}
	}
	return text.String()
}

// A Call describes how a script called a program.
type Call struct {
	Program string
	Args    []string
	Dir     string
	Env     []string
	Input   string // all of standard input
}

// Getenv returns the value of an environment variable of the call, or "" if the call has no
// such variable.
func (c Call) Getenv(name string) string {
	for _, entry := range c.Env {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// Flag returns the argument after "--name" in the call, or "" if there is none.
func (c Call) Flag(name string) string {
	for i, arg := range c.Args[:max(len(c.Args)-1, 0)] {
		if arg == "--"+name {
			return c.Args[i+1]
		}
	}
	return ""
}

// A Program is a function that runs in the process of the test, in place of a program that a
// script calls. It returns the standard output. If it returns an error, the call prints the
// error to standard error and exits with status 1.
type Program func(c Call) (string, error)

// Binary returns a Program that runs the executable at path. The function edit converts the
// arguments of the call to the arguments of the executable.
func Binary(path string, edit func(args []string) []string) Program {
	return func(c Call) (string, error) {
		cmd := exec.Command(path, edit(c.Args)...)
		cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, strings.NewReader(c.Input)
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return string(out), fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return string(out), err
	}
}

// Tokenkeep builds the command tokenkeep and returns the path of the executable.
func Tokenkeep(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokenkeep")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/tokenkeep/tokenkeep/cmd/tokenkeep")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// socket is the name of the environment variable with the address of the test's socket.
const socket = "TOKENKEEP_README_SOCKET"

type answer struct {
	Output, Error string
}

// Main runs the tests of a package, and exits. TestMain must call Main. If a script started the
// process in place of a program, Main instead sends the call to the test, and prints the output
// that the test returns.
func Main(m *testing.M) {
	if os.Getenv(socket) == "" {
		os.Exit(m.Run())
	}
	out, err := ask()
	_, _ = io.WriteString(os.Stdout, out)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

// ask sends the call of this process to the test, and returns the answer.
func ask() (string, error) {
	call := Call{Program: filepath.Base(os.Args[0]), Args: os.Args[1:], Env: os.Environ()}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	call.Dir = dir
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", err
	}
	call.Input = string(input)
	conn, err := net.Dial("unix", os.Getenv(socket))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var a answer
	if err := errors.Join(json.NewEncoder(conn).Encode(call), json.NewDecoder(conn).Decode(&a)); err != nil {
		return "", err
	}
	if a.Error != "" {
		return a.Output, errors.New(a.Error)
	}
	return a.Output, nil
}

// Run runs a script in dir with the given programs in place of installed programs, and with
// env added to the environment. It returns the standard output and standard error of the
// script. It fails the test if a command of the script fails.
func Run(t testing.TB, dir, script string, programs map[string]Program, env ...string) string {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range programs {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	address := filepath.Join(bin, "s")
	listener, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		serve(listener, programs)
	}()
	defer func() {
		_ = listener.Close()
		<-served
	}()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(env, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), socket+"="+address)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nThe script is:\n%s", err, out, script)
	}
	return string(out)
}

// serve answers the calls of programs, one after the other, until listener is closed.
func serve(listener net.Listener, programs map[string]Program) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		var call Call
		var a answer
		if err := json.NewDecoder(conn).Decode(&call); err != nil {
			a.Error = err.Error()
		} else if a.Output, err = programs[call.Program](call); err != nil {
			a.Error = err.Error()
		}
		_ = json.NewEncoder(conn).Encode(a)
		_ = conn.Close()
	}
}
