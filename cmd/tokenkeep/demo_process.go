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
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// processTime is more than a process of the demo can take.
const processTime = time.Minute

// readyLine is what a process of the demo says when it is ready for its input.
const readyLine = "ready\n"

// ready tells the demo that this process, one of its own, is ready for its input.
func (a *app) ready() error {
	a.printf(readyLine)
	return a.out.Flush()
}

// A child is this program, once more, on the same store. What it is to do it
// reads from a pipe, and what it has done it writes to one: nobody else sees that.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// startChild starts one.
func (a *app) startChild(ctx context.Context, command string) (*child, error) {
	cmd, err := a.command(ctx, command)
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
// its failure rather than err, which came of that.
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
func together[A any](d *demo, command string, inputs []any) ([]outcome[A], error) {
	ctx, cancel := context.WithTimeout(d.ctx, processTime)
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
			p, err := d.startChild(ctx, command)
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
		d.say("       %v", err)
	}
	return answers
}

// command returns the command that runs this program once more on the same store.
// Its arguments say which store that is, and nothing about records.
func (a *app) command(ctx context.Context, name string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, name, "--json", "--store", a.storeURL) //nolint:gosec // It is this program.
	cmd.Env = a.environment()
	return cmd, nil
}

// environment returns the environment of another process: this one's, as far as
// a.env knows it, and what a.env has besides for stores.
func (a *app) environment() []string {
	names := []string{
		api.EnvVaultAddress, api.EnvVaultToken, api.EnvVaultNamespace, envAWSKeyID, envAWSSecret,
		envMySQLPassword, envMySQLPasswordFile, envKeys,
	}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var entries []string
	for _, name := range names {
		if value := a.env(name); value != "" {
			entries = append(entries, name+"="+value)
		}
	}
	return entries
}
