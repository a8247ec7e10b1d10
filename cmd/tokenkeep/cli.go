package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	http   *http.Client // to authorization servers; nil: one of its own

	storeURL string
	isThere  bool // the store has to be there: it is not made
	readOnly bool // the store is not written to: one that does not exist counts as empty
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
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...))
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errs)
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
		a.lsCommand(), a.getCommand(), a.saveCommand(), a.rmCommand(), a.forgetCommand(),
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

// begin is called before every command. An argument or flag that is given and empty is
// an error: a variable of a shell that is not set must not stand for the default.
func (a *app) begin(c *cobra.Command, args []string) error {
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" && err == nil {
			err = usagef("--%s is given and empty", f.Name)
		}
	})
	for i, arg := range args {
		if arg == "" && err == nil {
			err = usagef("argument %d of %s is empty", i+1, nameOf(c))
		}
	}
	switch {
	case err != nil:
		return err
	case a.timeout < 0:
		return usagef("--timeout is negative")
	case a.timeout > 0:
		ctx, cancel := context.WithTimeoutCause(c.Context(), a.timeout, errTimeout)
		context.AfterFunc(ctx, cancel) // until then the command runs
		c.SetContext(ctx)
	}
	a.began = true
	return nil
}

// errTimeout is why the context of a command ends at its --timeout.
var errTimeout = fmt.Errorf("the time that --timeout allows is over: %w", context.DeadlineExceeded)

// timedOut returns err with the reason if it is that the time of --timeout is over.
func (a *app) timedOut(err error) error {
	if a.timeout > 0 && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errTimeout) {
		return fmt.Errorf("%w (--timeout %v)", err, a.timeout)
	}
	return err
}
