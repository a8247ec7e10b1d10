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

// processTime is more than a process of the demo can take.
const processTime = time.Minute

// readyLine is what a process of the demo says when it is ready for its input.
const readyLine = "ready\n"

// envPlace is the environment variable that tells a process of the demo where the
// records are, as JSON. A process is one if it is set.
const envPlace = "TOKENKEEP_DEMO_PLACE"

// The roles of a process of the demo: its one argument.
const (
	roleSave = "save" // saves a record
	roleCall = "call" // is a program that calls the CRM once
)

// runChild is what a process of the demo does. It reads its order from standard input and
// writes its answer to standard output: no other program sees them.
func runChild(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	defer cancel()
	var at place
	if err := json.Unmarshal([]byte(os.Getenv(envPlace)), &at); err != nil {
		return err
	}
	s, err := at.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := io.WriteString(out, readyLine); err != nil {
		return err
	}
	if args[0] == roleSave {
		return answer(in, out, func(o saveOrder) (string, error) { return o.save(ctx, s) })
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

// answer reads the input of a process, calls do with it, and writes the result.
func answer[In, Out any](in io.Reader, out io.Writer, do func(In) (Out, error)) error {
	var input In
	if json.NewDecoder(in).Decode(&input) != nil { // the error would quote it
		return errors.New("standard input is not what the demo sends")
	}
	result, err := do(input)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// A child is a process of the demo: this program, once more.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// command returns the command that runs this program once more at the same place.
// Its arguments say nothing about that.
func (d *demo) command(ctx context.Context, role string) (*exec.Cmd, error) {
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

// startChild starts a process.
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

// end waits until the process ends. It returns what the process has to say about
// its failure rather than err, which is a consequence.
func (p *child) end(err error) error {
	if waitErr := p.cmd.Wait(); waitErr != nil {
		return fmt.Errorf("%w: %s", waitErr, strings.TrimSpace(p.stderr.String()))
	}
	return err
}

// An outcome is what one process answered.
type outcome[A any] struct {
	answer A
	err    error
}

// together starts a process for each of the inputs, waits until all of them are
// ready, and then gives each its input.
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

// succeeded checks that all processes succeeded, and returns the answers of those
// that did.
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
