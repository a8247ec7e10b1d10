package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// helpTopics are pages of help that belong to no command.
func helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: strings.TrimSuffix(exitCodes(), "\n")},
		{Use: "findings", Short: "What doctor can find, and what it means", Long: strings.TrimSuffix(findingsHelp(), "\n")},
		{Use: "records", Short: "How records are written as JSON, and searched for", Long: recordHelp()},
		{Use: "stores", Short: "How a store is named", Long: strings.TrimSuffix(storesHelp(), "\n")},
	}
}

// help shows the help on a command or topic. If there is none, the one that cobra
// has shows another, and reports success.
func help(c *cobra.Command, args []string) error {
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
