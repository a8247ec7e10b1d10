package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// helpTopics returns the help pages that belong to no command.
func (a *app) helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: strings.TrimSuffix(exitCodes(), "\n")},
		{Use: "findings", Short: "What doctor can find, and what it means", Long: strings.TrimSuffix(findingsHelp(), "\n")},
		{Use: "records", Short: "How records are written as JSON, and searched for", Long: recordHelp()},
		{Use: "stores", Short: "How a store is named", Long: strings.TrimSuffix(storesHelp(a.schemes), "\n")},
	}
}

// withTopics returns a completion function that adds the help topics to the completions from the
// function complete.
func (a *app) withTopics(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		all, directive := complete(c, args, word)
		for _, topic := range a.helpTopics() {
			if len(args) == 0 && strings.HasPrefix(topic.Name(), word) {
				all = append(all, cobra.CompletionWithDesc(topic.Name(), topic.Short))
			}
		}
		return all, directive
	}
}

// errHelpJSON means that --json was given to a command that only prints help.
var errHelpJSON = usagef("--json needs a command")

// showHelp prints the help about a command that only has subcommands. With --json, it returns
// errHelpJSON.
func (a *app) showHelp(c *cobra.Command, _ []string) error {
	if a.json {
		return errHelpJSON
	}
	return c.Help()
}

// help prints the help about a command or topic. It returns a usage error if --json is set or,
// unlike the help command of cobra, if there is no such command or topic.
func (a *app) help(c *cobra.Command, args []string) error {
	if a.json {
		return errHelpJSON
	}
	found, rest, err := c.Root().Find(args)
	if err != nil && len(args) > 0 {
		rest = args[:1]
	}
	if len(rest) > 0 {
		var names []string
		for _, sub := range found.Commands() {
			names = append(names, sub.Name())
		}
		return usagef("there is no command or topic %s%s; see 'tokenkeep help'", echoed(rest[0], "of that name"), didYouMean(rest[0], names))
	}
	found.InitDefaultHelpFlag()
	found.InitDefaultVersionFlag()
	return found.Help()
}
