// Command demo demonstrates tokenkeep with made-up records.
//
// The demo has these steps:
//
//   - Import a token file of Zoho's Python SDK.
//   - Find a record by its ID, by its user, and by two of its tokens.
//   - Save the same new user from eight processes at the same time.
//   - Start a program with a one-time code, and kill the program.
//   - Start the program again, without the code.
//   - Start the program in 100 processes at the same time after its access token has expired.
//   - Start a Python program in ten processes after the access token has expired again. The
//     demo omits this step if the machine has no Python.
//   - Export the records to a token file.
//
// The demo prints whether each step had the expected result. The exit code is 0 if every step
// had the expected result, and 1 otherwise.
//
// The demo keeps the records in a stand-in for AWS Secrets Manager, which runs inside the
// program. With -keep, the demo instead keeps the records in a new token file, and does not
// remove the file. Zoho's accounts server and CRM are also stand-ins.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unicode/utf8"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run runs the demo or, in a process that the demo has started, the task of that process.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if os.Getenv(envPlace) != "" {
		return runChild(ctx, args, in, out)
	}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	keep := flags.String("keep", "", "keep the records in a new token `FILE`")
	processes := flags.Int("processes", 100, "how many processes find the token expired at once")
	if err := flags.Parse(args); err != nil {
		return err
	}
	const most = 1000
	if *processes < 1 || *processes > most || flags.NArg() > 0 {
		return fmt.Errorf("-processes is a number from 1 to %d, and there are no arguments", most)
	}
	at, err := findPlace(*keep)
	if err != nil {
		return err
	}
	defer at.close()
	d := &demo{out: out, colours: colours(out), place: at.place, processes: *processes, python: findPython(ctx)}
	return d.run(ctx, at)
}

type demo struct {
	out       io.Writer
	colours   bool
	place     place
	store     store
	processes int
	python    string // the path of the interpreter; "" if there is none
	zoho      *zohoStandIn
	checks    int
	wrong     int // number of failed checks
	steps     int
}

func (d *demo) run(ctx context.Context, at *openPlace) (err error) {
	standIns := "Zoho is a stand-in here, a server inside this program that speaks its interface\nand enforces its rules."
	if at.standIn {
		standIns = "Both are stand-ins here, servers inside this program that speak their interfaces\nand enforce their rules."
	}
	if d.zoho, err = startZoho(); err != nil {
		return err
	}
	defer d.zoho.close()
	if d.store, err = d.place.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.store.Close()) }()
	d.say("This keeps the OAuth tokens of Zoho's users in %s.\n%s The records are made up.", at.name, standIns)
	for _, step := range []func(context.Context) error{
		d.moveInStep, d.findStep, d.raceStep, d.codeStep, d.coldStep, d.expiryStep, d.pythonStep, d.moveOutStep,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return d.closing()
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// title prints the heading of a step. The parameter named by contains the command or the functions
// that the step uses.
func (d *demo) title(text, by string) {
	d.steps++
	const column = 62
	pad := max(2, column-utf8.RuneCountInString(text))
	d.say("\n%s%*s%s", d.bold(fmt.Sprintf("%d  %s", d.steps, text)), pad, "", by)
}

// check prints a result of a step, and whether the result is as expected. It counts the check.
func (d *demo) check(ok bool, format string, args ...any) {
	d.checks++
	mark := d.colour("32", "ok")
	if !ok {
		d.wrong++
		mark = d.colour("31", "WRONG")
	}
	d.say("   %s  %s", mark, fmt.Sprintf(format, args...))
}

// detail prints err, the reason why a check failed, unless err is nil.
func (d *demo) detail(err error) {
	if err != nil {
		d.say("       %v", err)
	}
}

func (d *demo) bold(s string) string { return d.colour("1", s) }

func (d *demo) colour(code, s string) string {
	if !d.colours {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// colours reports whether the demo should print colors to out.
func colours(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// closing returns an error if a check failed. Otherwise closing prints the number of checks,
// and commands to try next.
func (d *demo) closing() error {
	if d.wrong > 0 {
		return fmt.Errorf("%d of %d checks failed", d.wrong, d.checks)
	}
	d.say("\n%s", d.bold(fmt.Sprintf("All %d checks came out as they should.  What to try next:", d.checks)))
	d.say("%s", strings.Trim(next, "\n"))
	return nil
}

const next = `
   go run ./examples/demo -keep demo.csv  the same on a token file, which stays
   tokenkeep ls --store file:demo.csv     what is in it; add --json, or use get 3, rm 3
   tokenkeep help stores                  how to name your own store
   (tokenkeep is short for: go run ./cmd/tokenkeep)
`
