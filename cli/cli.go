package cli

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

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An app is one run of the program: its environment, and the flags that all
// commands share.
type app struct {
	schemes []scheme.Scheme // the kinds of store

	env    func(string) string
	lookup func(string) (value string, set bool) // if nil, a variable with an empty value counts as unset
	in     io.Reader
	out    *bufio.Writer // standard output; Flush returns the errors of earlier writes
	errs   io.Writer     // standard error
	now    func() time.Time
	http   *http.Client // client for authorization servers; nil means a default client

	observer *tokenstore.Observer // observes the store; may be nil
	slow     *slowStore           // notes slow calls; nil with --json, or if standard error is not a terminal

	storeURL string
	isThere  bool // the store must exist, and is not created
	readOnly bool // the store is only read; unless isThere is set, a store that does not exist counts as empty
	json     bool
	timeout  time.Duration

	overdue func() bool // reports whether the time of --timeout is over; nil without --timeout

	tried bool // the command is doctor --permissions
	began bool // a command has started; errors before its start are usage errors
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
		err = scheme.Usage(err)
	}
	if flushErr := a.out.Flush(); flushErr != nil && err == nil {
		err = fmt.Errorf("write standard output: %w", flushErr)
	}
	if err != nil {
		a.report(err)
	}
	return classOf(err).code
}

// IDs of the groups of commands in the help.
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

Name a store with --store or TOKENKEEP_STORE; see "tokenkeep help stores".
Commands that show records mask secrets unless --reveal is given. No command takes a
secret from an argument.`,
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              knownCommand,
		RunE:              a.showHelp,
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
	root.AddCommand(onStore(
		a.lsCommand(), a.getCommand(), a.saveCommand(), a.rmCommand(), a.forgetCommand(),
		a.loginCommand(), a.tokenCommand(), a.refreshCommand(), a.statusCommand(), a.serveCommand(),
		a.importCommand(), a.exportCommand(), a.migrateCommand(),
		a.keepCommand(), a.doctorCommand(), a.rekeyCommand(),
	)...)
	root.AddCommand(a.keysCommand(), a.manCommand(), a.versionCommand())
	if policies := a.policyCommand(); policies.HasSubCommands() {
		root.AddCommand(policies)
	}
	root.AddCommand(a.helpTopics()...)
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Run, c.RunE = nil, a.help
			c.ValidArgsFunction = a.withTopics(c.ValidArgsFunction)
		}
	}
	a.completeValues(root)
	return root
}

// begin runs before each command. For a request for completions, begin does nothing. Otherwise,
// begin returns the error from checkGiven or, if there is none, starts the timer of --timeout and
// the notes about slow calls.
func (a *app) begin(c *cobra.Command, args []string) error {
	if completing(c) {
		return nil
	}
	if err := checkGiven(c, args); err != nil {
		return err
	}
	if a.timeout > 0 {
		ctx, cancel := context.WithTimeoutCause(c.Context(), a.timeout, errTimeout)
		context.AfterFunc(ctx, cancel) // a deferred cancel would end ctx before the command runs
		c.SetContext(ctx)
		a.overdue = func() bool { return errors.Is(context.Cause(ctx), errTimeout) }
	}
	a.began = true
	if !a.json && isTerminal(a.errs) {
		a.slow = &slowStore{note: a.note}
		a.observer = a.slow.observer()
	}
	return nil
}

// checkGiven returns a usage error if a duration is negative, if an argument or flag is empty, or
// if --store is given to a command that uses no store. An empty value often comes from an unset
// shell variable, and must not select the default.
func checkGiven(c *cobra.Command, args []string) error {
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		if hasEmpty(f.Value) && err == nil {
			err = usagef("--%s is empty", f.Name)
		}
		if f.Name == "store" && !usesStore(c) && err == nil {
			err = usagef("%s uses no store: leave out --store", nameOf(c))
		}
		if d, wrong := c.Flags().GetDuration(f.Name); wrong == nil && d < 0 && err == nil {
			err = usagef("--%s is negative", f.Name)
		}
	})
	for i, arg := range args {
		if arg == "" && err == nil {
			err = usagef("argument %d of %s is empty", i+1, nameOf(c))
		}
	}
	return err
}

// storeAnnotation is the annotation of a command that uses a store.
const storeAnnotation = "store"

// onStore annotates commands that use a store, and returns the commands.
func onStore(commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.Annotations = map[string]string{storeAnnotation: ""}
	}
	return commands
}

// usesStore reports whether c accepts --store. The root command accepts --store, even though it
// only shows the help.
func usesStore(c *cobra.Command) bool {
	_, uses := c.Annotations[storeAnnotation]
	return uses || !c.HasParent()
}

// hasEmpty reports whether v is the empty string, or a list that contains the empty string.
func hasEmpty(v pflag.Value) bool {
	if all, ok := v.(pflag.SliceValue); ok {
		return slices.Contains(all.GetSlice(), "")
	}
	return v.String() == ""
}

// errTimeout is the cause with which --timeout ends the context of a command.
var errTimeout = fmt.Errorf("the time that --timeout allows is over: %w", context.DeadlineExceeded)

// timedOut appends the value of --timeout to the text of err if --timeout has expired and err
// matches context.DeadlineExceeded. If err matches errTimeout, timedOut returns err unchanged,
// because err already names the flag.
func (a *app) timedOut(err error) error {
	if a.overdue != nil && a.overdue() && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errTimeout) {
		return fmt.Errorf("%w (--timeout %v)", err, a.timeout)
	}
	return err
}
