package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// processTime limits the run time of a process.
const processTime = time.Minute

// readyLine is the line that a process prints when it is ready for its input.
const readyLine = "ready\n"

// envPlace is the name of the environment variable with the location of the records as JSON.
// If the variable is set, the program runs as a process of the demo.
const envPlace = "TOKENKEEP_DEMO_PLACE"

// The roles of a process. A process gets its role as its only argument, unless the process
// runs the Python program.
const (
	roleSave   = "save"   // saves a record
	roleCall   = "call"   // runs a program that calls the CRM once
	roleAgent  = "agent"  // serves the store to programs
	rolePython = "python" // runs a Python program that calls the CRM once; gets no place
)

// runChild runs the role in args. It reads the input of the process from in, and writes the result
// to out. The parameters in and out are pipes to the demo, so that no other program can read the
// secrets in the input and the result.
func runChild(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	defer cancel()
	var at place
	if err := json.Unmarshal([]byte(os.Getenv(envPlace)), &at); err != nil {
		return err
	}
	s, err := at.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := io.WriteString(out, readyLine); err != nil {
		return err
	}
	switch args[0] {
	case roleSave:
		return answer(in, out, func(o saveOrder) (string, error) { return o.save(ctx, s) })
	case roleAgent:
		var o agentOrder
		if err := readOrder(in, &o); err != nil {
			return err
		}
		return runAgent(ctx, s, o, func(url string) error { return json.NewEncoder(out).Encode(url) })
	}
	stay := false
	err = answer(in, out, func(o programOrder) (crmAnswer, error) {
		stay = o.Stay
		return callCRM(ctx, s, o)
	})
	if err == nil && stay {
		<-ctx.Done()
	}
	return err
}

// readOrder decodes the input of a process into order.
func readOrder(in io.Reader, order any) error {
	if json.NewDecoder(in).Decode(order) != nil { // omit the decoder's error, which could quote a secret
		return errors.New("standard input is not what the demo sends")
	}
	return nil
}

// answer reads the input of a process, calls the function do with the input, and writes the result.
func answer[In, Out any](in io.Reader, out io.Writer, do func(In) (Out, error)) error {
	var input In
	if err := readOrder(in, &input); err != nil {
		return err
	}
	result, err := do(input)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// A child is a process that the demo started. It runs this program or the Python program.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// command returns a command that starts this program in the given role, with d.place in its
// environment. If role is rolePython, the command starts the Python program without d.place.
func (d *demo) command(ctx context.Context, role string) (*exec.Cmd, error) {
	if role == rolePython {
		return exec.CommandContext(ctx, d.python, "-I", "-c", pythonProgram), nil
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	at, err := json.Marshal(d.place)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, role)
	cmd.Env = append(os.Environ(), envPlace+"="+string(at))
	return cmd, nil
}

func (d *demo) startChild(ctx context.Context, role string) (*child, error) {
	cmd, err := d.command(ctx, role)
	if err != nil {
		return nil, err
	}
	p := &child{cmd: cmd}
	cmd.Stderr = &p.stderr
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(stdout)
	return p, cmd.Start()
}

// ask waits until the process is ready, calls the function wait, writes input to the process, and
// reads answer from the process.
func (p *child) ask(input any, wait func(), answer any) error {
	line, err := p.stdout.ReadString('\n')
	if line == readyLine {
		wait()
		err = json.NewEncoder(p.stdin).Encode(input)
	}
	err = errors.Join(err, p.stdin.Close())
	if err == nil {
		err = json.NewDecoder(p.stdout).Decode(answer)
	}
	return err
}

// end waits until the process ends, and returns err. If the process failed, end instead returns an
// error with the exit status and standard error of the process, which show the cause of err.
func (p *child) end(err error) error {
	if waitErr := p.cmd.Wait(); waitErr != nil {
		return fmt.Errorf("%w: %s", waitErr, strings.TrimSpace(p.stderr.String()))
	}
	return err
}

type outcome[A any] struct {
	answer A
	err    error
}

// together starts a process for each of the inputs, and waits until each process is ready or has
// failed. The function then sends each ready process its input. It returns the outcomes in the
// order of inputs, and an error if processTime has passed or ctx is done.
func together[A, In any](ctx context.Context, d *demo, role string, inputs []In) ([]outcome[A], error) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	defer cancel()
	outcomes := make([]outcome[A], len(inputs))
	var ready, finished sync.WaitGroup
	ready.Add(len(inputs))
	start := make(chan struct{})
	for i, input := range inputs {
		finished.Go(func() {
			isReady := sync.OnceFunc(ready.Done)
			defer isReady()
			o := &outcomes[i]
			p, err := d.startChild(ctx, role)
			if err != nil {
				o.err = err
				return
			}
			o.err = p.end(p.ask(input, func() {
				isReady()
				<-start
			}, &o.answer))
		})
	}
	ready.Wait()
	close(start)
	finished.Wait()
	return outcomes, ctx.Err()
}

// succeeded checks that all processes succeeded, and returns the answers of the processes that
// succeeded.
func succeeded[A any](d *demo, outcomes []outcome[A]) []A {
	const shown = 3
	var (
		answers []A
		failed  []error
	)
	for _, o := range outcomes {
		if o.err != nil {
			failed = append(failed, o.err)
			continue
		}
		answers = append(answers, o.answer)
	}
	d.check(len(failed) == 0, "%d of %d processes succeeded", len(answers), len(outcomes))
	for _, err := range failed[:min(shown, len(failed))] {
		d.detail(err)
	}
	return answers
}
