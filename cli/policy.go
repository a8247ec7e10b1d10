package cli

import (
	"flag"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

func (a *app) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "policy",
		GroupID: groupUpkeep,
		Short:   "Print the minimal permissions for a store",
		Long: `Prints the minimal permissions of a program in the format of the service. With
--terraform it prints a Terraform resource. No store is opened, and none is named: the
argument is a part of the store's URL, such as secret/oauth of vault:secret/oauth.`,
		Args: knownCommand,
		RunE: a.showHelp,
	}
	for _, s := range a.schemes {
		if s.Policy != nil {
			c.AddCommand(a.onePolicyCommand(s.Policy))
		}
	}
	return c
}

func (a *app) onePolicyCommand(p *scheme.Policy) *cobra.Command {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	policy := p.New(flags)
	var terraform bool
	c := &cobra.Command{
		Use:   p.Name + " " + p.Argument,
		Short: p.Short,
		Long:  p.Long,
		Args:  oneArg(p.Argument),
		RunE: func(_ *cobra.Command, args []string) error {
			kind, _, url := strings.Cut(args[0], ":")
			if url && slices.ContainsFunc(a.schemes, func(s scheme.Scheme) bool { return kind == s.Name || kind == s.Alias }) {
				return usagef("policy %s takes %s, which is a part of the store's URL, and not the URL", p.Name, p.Argument)
			}
			text, err := policy(args[0], terraform)
			if err != nil {
				return err
			}
			a.printf("%s", text)
			return nil
		},
	}
	c.Flags().AddGoFlagSet(flags)
	c.Flags().BoolVar(&terraform, "terraform", false, "print a Terraform resource")
	return c
}
