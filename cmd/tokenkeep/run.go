package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// An app is one run of the program: what it was given, and the flags that all
// commands have.
type app struct {
	env    func(string) string
	lookup func(string) (value string, set bool) // nil: what is empty is not set
	in     io.Reader
	out    *bufio.Writer // standard output; write errors show when it is flushed
	errs   io.Writer     // standard error
	now    func() time.Time

	storeURL string
	isThere  bool // the store has to be there: it is not made
	readOnly bool // the store is not written to: if it is not there, it is as good as empty
	json     bool
	timeout  time.Duration

	tried bool // the permissions are being tried
	began bool // a command has begun: what is wrong is not how it was called
}

// run runs the program and returns its exit code. lookup is the environment; what
// the Vault client reads of it, it reads from the process.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	env := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	a := &app{env: env, lookup: lookup, in: stdin, out: bufio.NewWriter(stdout), errs: stderr, now: time.Now}
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...))
	root.SetIn(stdin)
	root.SetOut(a.out)
	root.SetErr(stderr)
	err := a.timedOut(root.ExecuteContext(ctx))
	if err != nil && !a.began {
		a.json = a.json || slices.Contains(args, "--json")
		err = usage{err}
	}
	if flushErr := a.out.Flush(); flushErr != nil && err == nil {
		err = fmt.Errorf("write standard output: %w", flushErr)
	}
	if err != nil {
		a.report(err)
	}
	return classOf(err).code
}

// The groups that commands are listed in.
const (
	groupRecords = "records"
	groupFiles   = "files"
	groupUpkeep  = "upkeep"
)

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tokenkeep",
		Short: "Keep OAuth tokens in the secret manager you already trust",
		Long: `Tokenkeep keeps OAuth token records in a secret manager, and moves them there
from the token files of the Zoho SDKs and back.

Name a store with --store or TOKENKEEP_STORE; "tokenkeep help stores" tells how.
Secrets are masked unless --reveal is given, and are never taken from arguments.`,
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              knownCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: a.begin,
	}
	root.SetVersionTemplate("tokenkeep {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&a.storeURL, "store", "", "`URL` of the store, see \"tokenkeep help stores\" (default: $"+envStore+")")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write one JSON document, for programs")
	a.timeoutFlag(root)
	root.AddGroup(
		&cobra.Group{ID: groupRecords, Title: "Records:"},
		&cobra.Group{ID: groupFiles, Title: "Token files of the Zoho SDKs:"},
		&cobra.Group{ID: groupUpkeep, Title: "Upkeep:"},
	)
	root.AddCommand(
		a.lsCommand(), a.getCommand(), a.saveCommand(), a.rmCommand(),
		a.importCommand(), a.exportCommand(), a.migrateCommand(),
		a.doctorCommand(), a.rekeyCommand(),
		a.keysCommand(), a.versionCommand(),
	)
	root.AddCommand(helpTopics()...)
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Run, c.RunE = nil, help
		}
	}
	return root
}

// report writes an error to standard error: as text, or as one line of JSON.
func (a *app) report(err error) {
	class := classOf(err)
	if a.json {
		_ = json.NewEncoder(a.errs).Encode(struct {
			Error string `json:"error"`
			Class string `json:"class"`
			Code  int    `json:"code"`
			Hint  string `json:"hint,omitempty"`
		}{textOf(err), class.name, class.code, a.hint(err)})
		return
	}
	_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", textOf(err))
	if text := a.hint(err); text != "" {
		_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", text)
	}
}

// note writes a remark to standard error.
func (a *app) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.json {
		_ = json.NewEncoder(a.errs).Encode(map[string]string{"note": text})
		return
	}
	_, _ = fmt.Fprintf(a.errs, "tokenkeep: %s\n", text)
}

// printf writes to standard output.
func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format, args...) }

// printJSON writes the one JSON document of a command to standard output.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// readAll reads r to its end, but no more than limit bytes. It returns as soon
// as ctx is done, though a read of a terminal or pipe may go on.
func readAll(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(r, limit+1))
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		if r.err == nil && int64(len(r.data)) > limit {
			return nil, fmt.Errorf("%w: longer than %d MiB", errInput, limit>>20)
		}
		return r.data, r.err
	}
}
