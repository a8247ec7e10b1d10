package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

var fileFlags = []string{"like", "token-file", "svg"}

// values returns the possible values of each flag that has a fixed set of values, keyed by the
// name of the flag.
func (a *app) values() map[string][]cobra.Completion {
	var stores, centers, kinds []cobra.Completion
	for _, s := range a.schemes {
		line, _, _ := strings.Cut(s.Text, "\n")
		stores = append(stores, cobra.CompletionWithDesc(s.Name+":", line))
	}
	for _, d := range initializer.DataCenters() {
		centers = append(centers, string(d))
	}
	for _, k := range keys.Kinds() {
		kinds = append(kinds, string(k))
	}
	return map[string][]cobra.Completion{
		"store": stores, "from": stores, "to": stores,
		"data-center": centers,
		"environment": {"production", "sandbox", "developer"},
		"dialect":     strings.Split(dialectNames(codec.Dialects(), ","), ","),
		"for":         kinds,
		"on-conflict": {string(migrate.Stop), string(migrate.Source), string(migrate.Target), string(migrate.Newer)},
	}
}

// completeValues sets the completions of flags and arguments for root and its subcommands.
// Completion never reads a store.
func (a *app) completeValues(root *cobra.Command) {
	known := a.values()
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		if c.ValidArgsFunction == nil && c.Runnable() && !strings.Contains(c.Use, "FILE") && !strings.Contains(c.Use, "DIR") {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		visit := func(f *pflag.Flag) {
			complete := cobra.NoFileCompletions
			if all := known[f.Name]; all != nil {
				directive := cobra.ShellCompDirectiveNoFileComp
				if strings.HasSuffix(strings.Split(all[0], "\t")[0], ":") {
					directive |= cobra.ShellCompDirectiveNoSpace
				}
				complete = cobra.FixedCompletions(all, directive)
			}
			for _, name := range fileFlags {
				if f.Name == name {
					return
				}
			}
			if f.Value.Type() != "bool" {
				_ = c.RegisterFlagCompletionFunc(f.Name, complete) // it fails only for an unknown or a repeated flag
			}
		}
		c.LocalNonPersistentFlags().VisitAll(visit)
		c.PersistentFlags().VisitAll(visit)
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(root)
}

// completing reports whether c is the command with which shells request completions. The
// arguments of that command may be empty.
func completing(c *cobra.Command) bool {
	return c.Name() == cobra.ShellCompRequestCmd || c.Name() == cobra.ShellCompNoDescRequestCmd
}
