package languages

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// An order is the first input of a process. If Steps is set, the process runs the steps that follow
// as input. Otherwise the threads of the process request Token repeatedly.
type order struct {
	Steps   bool              `json:"steps"`
	Token   map[string]string `json:"token"`
	Threads int               `json:"threads"`
	Calls   int               `json:"calls"`
	Pause   float64           `json:"pause"` // seconds between calls
}

// A Step is one action of a process with its TokenStore and a token.
type Step struct {
	// Do is a method of the TokenStore by its name in Python, or one of
	//
	//	get_token  what the SDK does before a call of the API
	//	call       get_token and an API call; after a 401, the method "rejected", then both again
	Do string `json:"do"`

	// On is the name of the token that the step uses. If With is set, the step first creates that
	// token from With, the members of the agent's JSON. If Other is set without With, the type
	// of the token is not the SDK's OAuthToken.
	On    string            `json:"on"`
	With  map[string]string `json:"with,omitempty"`
	Other bool              `json:"other,omitempty"`

	// ID is the argument of a method that takes an ID.
	ID string `json:"id,omitempty"`

	// Address and Token, if set, configure another TokenStore for this step.
	Address string `json:"address,omitempty"`
	Token   string `json:"token,omitempty"`
}

// A Result is the result of a step.
type Result struct {
	Calls    []string          `json:"calls"`        // methods of the TokenStore that get_token called
	None     bool              `json:"none"`         // the method returned null
	Same     bool              `json:"same"`         // the method returned the token that it was called with
	Found    map[string]string `json:"found"`        // members of the token that the method returned
	Token    map[string]string `json:"token"`        // members of the step's token afterwards
	List     []string          `json:"list"`         // IDs of the tokens that the method returned
	Access   string            `json:"access_token"` // result of get_token
	Statuses []int             `json:"statuses"`     // of the calls of the API
	Code     string            `json:"code"`         // code of the SDK's exception
	Class    string            `json:"class"`        // class in the details of the exception
	Error    string            `json:"error"`        // message of the exception
}

// A Process is a running process of a Program.
type Process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	errs bytes.Buffer
}

// start starts a process that uses the agent at address.
func (p Program) start(t testing.TB, b *Bed, address string, o order) *Process {
	t.Helper()
	r := &Process{cmd: exec.Command(p.args[0], p.args[1:]...)}
	r.cmd.Env = append(os.Environ(), "TOKENKEEP_AGENT="+address, "TOKENKEEP_AGENT_TOKEN="+agentToken, "API="+b.Base)
	r.cmd.Stderr = &r.errs
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewScanner(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	if err := json.NewEncoder(r.in).Encode(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *Process) ready(t testing.TB) {
	t.Helper()
	var a struct{ Ready bool }
	if err := r.read(&a); err != nil || !a.Ready {
		t.Fatalf("the process is not ready: %v", err)
	}
}

// read reads a line from a process. The error is io.EOF if the process has ended successfully.
func (r *Process) read(v any) error {
	if !r.out.Scan() {
		if err := errors.Join(r.out.Err(), r.cmd.Wait()); err != nil {
			return fmt.Errorf("%w: %s", err, r.errs.String())
		}
		return io.EOF
	}
	if err := json.Unmarshal(r.out.Bytes(), v); err != nil {
		return fmt.Errorf("%w: %q", err, r.out.Text())
	}
	return nil
}

// Steps starts a process that runs steps with an agent. Do sends the steps.
func (p Program) Steps(t testing.TB, b *Bed, a *Agent) *Process {
	t.Helper()
	r := p.start(t, b, a.Address, order{Steps: true})
	r.ready(t)
	return r
}

// Do sends a step to the process, and returns the result.
func (r *Process) Do(s Step) (Result, error) {
	var res Result
	if err := json.NewEncoder(r.in).Encode(s); err != nil {
		return res, err
	}
	return res, r.read(&res)
}

// End ends a process that runs steps. It returns an error if the process failed.
func (r *Process) End() error {
	if err := r.in.Close(); err != nil {
		return err
	}
	var more any
	if err := r.read(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the process does not end: %v, %w", more, err)
	}
	return nil
}
