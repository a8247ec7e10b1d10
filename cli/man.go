package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		GroupID: groupUpkeep,
		Short:   "Write the manual pages",
		Long: `Writes the manual pages of all commands and topics into a directory that exists:

  tokenkeep man /usr/local/share/man/man1
  man tokenkeep-login`,
		Args: oneArg("directory"),
		RunE: func(c *cobra.Command, args []string) error {
			n := 0
			err := everyPage(c.Root(), func(name, text string) error {
				n++
				return os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644) //nolint:gosec // everyone reads manuals
			})
			if err != nil {
				return withoutToken(err, args[0], maybeTokenFile)
			}
			if a.json {
				return a.printJSON(map[string]int{"pages": n})
			}
			a.printf("wrote %d pages\n", n)
			return nil
		},
	}
}

// everyPage calls the function do once for the manual page of each command and topic, with the
// file name and the text. It omits hidden commands, completion and help. If do returns an error,
// everyPage stops and returns that error.
func everyPage(root *cobra.Command, do func(name, text string) error) error {
	if root.Hidden || root.Name() == "completion" || root.Name() == "help" {
		return nil
	}
	if err := do(pageName(root)+".1", page(root)); err != nil {
		return err
	}
	for _, c := range root.Commands() {
		if err := everyPage(c, do); err != nil {
			return err
		}
	}
	return nil
}

// pageName returns the name of the manual page of a command, without the suffix.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// roff escapes text for man(7), in which a line that begins with a dot or an apostrophe is a
// request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			b.WriteString(`\&`)
		}
		b.WriteString(line)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// page returns the manual page of a command in the format of man(7). The page turns filling off,
// because the help already has line breaks.
func page(c *cobra.Command) string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	line(`.TH "%s" "1" "" "tokenkeep" "tokenkeep"`, strings.ToUpper(roff(pageName(c))))
	line(".SH NAME\n%s \\- %s", roff(pageName(c)), roff(c.Short))
	if c.Runnable() || c.HasAvailableSubCommands() {
		line(".SH SYNOPSIS\n.B %s", roff(c.UseLine()))
	}
	if len(c.Aliases) > 0 {
		line(".PP\nAlso: %s", roff(strings.Join(c.Aliases, ", ")))
	}
	line(".SH DESCRIPTION\n.nf\n%s\n.fi", roff(c.Long))
	options := func(title string, flags *pflag.FlagSet) {
		if !flags.HasAvailableFlags() {
			return
		}
		line(".SH %s", title)
		flags.VisitAll(func(f *pflag.Flag) { pageFlag(line, f) })
	}
	options("OPTIONS", c.LocalFlags())
	options("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	var also []string
	if c.HasParent() {
		also = append(also, roff(pageName(c.Parent()))+"(1)")
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "completion" && sub.Name() != "help" {
			also = append(also, roff(pageName(sub))+"(1)")
		}
	}
	if len(also) > 0 {
		line(".SH SEE ALSO\n%s", strings.Join(also, ",\n"))
	}
	return b.String()
}

func pageFlag(line func(format string, args ...any), f *pflag.Flag) {
	value, text := pflag.UnquoteUsage(f)
	if value != "" {
		value = " " + value
	}
	line(".TP\n.B %s", roff("--"+f.Name+value))
	switch f.DefValue {
	case "", "false", "0", "0s", "[]":
	default:
		text += fmt.Sprintf(" (default %s)", f.DefValue)
	}
	line("%s", roff(text))
}
