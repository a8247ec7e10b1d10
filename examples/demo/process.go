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

// envPlace is the environment variable that holds the location of the records, as
// JSON. If it is set, the program runs as a process of the demo.
const envPlace = "TOKENKEEP_DEMO_PLACE"

// The roles of a process, given as its only argument.
const (
	roleSave  = "save"  // saves a record
	roleCall  = "call"  // is a program that calls the CRM once
	roleAgent = "agent" // serves the store to programs

	// rolePython is a Python program that calls the CRM once. It does not get the place.
	rolePython = "python"
)

// runChild runs the task of a process of the demo. It reads the input from in and writes the
// result to out. Both are pipes to the demo, so that no other program can read the secrets in
// them.
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
	if json.NewDecoder(in).Decode(order) != nil { // the decoder's error could quote the input
		return errors.New("standard input is not what the demo sends")
	}
	return nil
}

// answer reads the input of a process, calls do with it, and writes the result.
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

// A child is a process of the demo. It runs this program or the Python program.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// command returns a command that starts this program again in the given role, with d.place in
// its environment. If role is rolePython, the command starts the Python program.
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

// startChild starts a process in the given role.
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

// ask waits until the process is ready, calls wait, writes the input, and reads the
// answer.
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

// end waits until the process ends. If the process failed, end returns the error message of
// the process instead of err, which is only a consequence.
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

// together starts a process for each of the inputs, waits until all processes are ready,
// and then sends each process its input. It returns the outcomes in the order of inputs.
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

// succeeded checks that all processes succeeded, and returns the results of the successful
// processes.
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
