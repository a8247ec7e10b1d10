package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenkeep/tokenkeep/codec"
)

// plainName matches names of at most 12 characters. Errors can quote such a name, because tokens
// are longer.
var plainName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,11}$`) })

// echoed returns name in quotes for an error message. For a name that might be a token, echoed
// returns its second parameter.
func echoed(name, instead string) string {
	if !plainName().MatchString(name) {
		return instead
	}
	return fmt.Sprintf("%q", name)
}

// knownCommand returns an error if there are arguments, because cobra passes arguments to c only
// if they name no command.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			names = append(append(names, sub.Name()), sub.Aliases...)
		}
	}
	return fmt.Errorf("there is no command %s%s; see 'tokenkeep help'", echoed(args[0], "of that name"), didYouMean(args[0], names))
}

// didYouMean returns a question that suggests the element of names closest to name. It returns ""
// if no element is close.
func didYouMean(name string, names []string) string {
	const most = 2
	best, least := "", most+1
	for _, n := range names {
		d := distance(name, n)
		if strings.HasPrefix(n, name) && len(name) > 1 {
			d = min(d, 1)
		}
		if d < least && d < len(name) {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance returns the minimum number of bytes to change, add or remove in order to turn the string
// a into the string b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}

// flagError returns an error to report in place of err, which is an error from cobra about flags.
// The result quotes neither values nor other text that might be secret.
func flagError(c *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		value   *pflag.InvalidValueError
		missing *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &missing):
		return fmt.Errorf("--%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &value):
		f := value.GetFlag()
		return fmt.Errorf("--%s takes %s", f.Name, valuesOf(f))
	case !errors.As(err, &unknown):
		return errors.New("a flag is malformed")
	case unknown.GetSpecifiedShortnames() != "":
		return fmt.Errorf("unknown flag: -%.1s", unknown.GetSpecifiedName())
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	if !plainName().MatchString(unknown.GetSpecifiedName()) {
		return errors.New("unknown flag")
	}
	name := "--" + unknown.GetSpecifiedName()
	return fmt.Errorf("unknown flag: %s%s", name, didYouMean(name, names))
}

// valuesOf returns a description of the valid values of a flag.
func valuesOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false, or no value"
	case "duration":
		return "a time such as 90s or 5m"
	case "int":
		return "a number"
	}
	return "another value"
}

// nameOf returns the name of a command as users type it after "tokenkeep".
func nameOf(c *cobra.Command) string {
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
}

// noArgs returns an error if there are arguments. The error does not quote the arguments.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, and %d are given", nameOf(c), len(args))
	}
	return nil
}

// oneArg returns a function that returns an error unless there is exactly one argument. The
// parameter what is the name of the argument in errors.
func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one %s, and %d are given", nameOf(c), what, len(args))
		}
		return nil
	}
}

func (a *app) timeoutFlag(root *cobra.Command) {
	root.PersistentFlags().DurationVar(&a.timeout, "timeout", time.Duration(0), "give up after this `time`, such as 90s; 0 means no limit")
}

func revealFlag(c *cobra.Command, reveal *bool) {
	c.Flags().BoolVar(reveal, "reveal", false, "show secrets")
}

func dialectFlag(c *cobra.Command, dialect *string, value, text string) {
	c.Flags().StringVar(dialect, "dialect", value, text+": "+dialectNames(codec.Dialects(), ", "))
}

func dialectNames(dialects []codec.Dialect, separator string) string {
	var names []string
	for _, d := range dialects {
		names = append(names, string(d))
	}
	return strings.Join(names, separator)
}

func howMany(set ...bool) (n int) {
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

// knownDialect returns the dialect with the given name, or a usage error if the dialect does not
// exist. If name is empty, knownDialect returns "".
func knownDialect(name string) (codec.Dialect, error) {
	d := codec.Dialect(name)
	if name != "" && !d.Known() {
		return "", usagef("there is no such dialect%s; there are %s", didYouMean(name, strings.Split(dialectNames(codec.Dialects(), " "), " ")), dialectNames(codec.Dialects(), ", "))
	}
	return d, nil
}
