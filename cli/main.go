// Package cli implements the tokenkeep command. A program can add its own kinds of store to the
// command.
//
// The command of this module is
//
//	func main() { cli.Main(stores.All()...) }
//
// Package stores contains the kinds of store of this module, except mem and file, which are part
// of every program. Package scheme describes how a program adds other kinds. To keep the clients
// of other services out of its binary, a program imports only the packages that it needs, such as
// stores/vault, instead of package stores.
package cli

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
)

// Main runs the command with the arguments and the environment of the process, and ends the
// process with the exit code of the command. The first interrupt or SIGTERM cancels the
// command; the second ends the process immediately.
func Main(schemes ...scheme.Scheme) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // restores the default handling of a second signal
	os.Exit(Run(ctx, Process{os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr}, schemes...))
}

// A Process contains the arguments, the environment and the standard streams of a run of the
// command. All fields except Args are required.
type Process struct {
	// Args is the command line without the name of the program.
	Args []string

	// LookupEnv returns the value of an environment variable, and reports whether the variable
	// is set. Clients of some services read further variables from the environment of the
	// process.
	LookupEnv func(name string) (value string, set bool)

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Run runs the command once and returns its exit code. "tokenkeep help exit-codes" describes the
// codes. Canceling ctx has the effect of an interrupt. Multiple goroutines may call Run
// simultaneously. If a scheme is invalid, or two schemes have the same name, every command ends
// with exit code 2.
func Run(ctx context.Context, p Process, schemes ...scheme.Scheme) int {
	env := func(name string) string {
		value, _ := p.LookupEnv(name)
		return value
	}
	a := &app{
		schemes: slices.Concat(builtIn(), schemes),
		env:     env, lookup: p.LookupEnv, in: p.Stdin, out: bufio.NewWriter(p.Stdout), errs: p.Stderr, now: time.Now,
	}
	if err := checkSchemes(a.schemes); err != nil {
		err = scheme.Usage(err)
		a.json = slices.Contains(p.Args, "--json")
		a.report(err)
		return classOf(err).code
	}
	return a.run(ctx, p.Args)
}
