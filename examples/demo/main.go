// Command demo shows what tokenkeep does, on made-up records.
//
// It moves in with a token file of Zoho's Python SDK, finds records by everything
// they are known by, and has eight processes save the same user at once. Then a
// program starts with a one-time code and is killed, starts again without the code,
// and is a hundred processes when the token has expired. At the end the records move
// out to a token file again. The demo says whether each step came out as it should;
// the exit code is 0 if all of them did.
//
// The records go to a stand-in inside the program: for Vault, or for what the
// environment variable DEMO_STORE names, one of vault, aws and gcp. With -keep they go
// to a new token file, which stays. Zoho's accounts server and CRM are stand-ins too.
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

// run runs the demo, or what one of its processes does.
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
	at, err := findPlace(*keep, os.Getenv("DEMO_STORE"))
	if err != nil {
		return err
	}
	defer at.close()
	d := &demo{out: out, colours: colours(out), place: at.place, processes: *processes}
	return d.run(ctx, at)
}

// A demo is one run of the demonstration.
type demo struct {
	out       io.Writer
	colours   bool
	place     place
	store     store
	processes int
	zoho      *zohoStandIn
	checks    int
	wrong     int // of the checks
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
	if d.store, err = d.place.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.store.Close()) }()
	d.say("This keeps the OAuth tokens of Zoho's users in %s.\n%s The records are made up.", at.name, standIns)
	for _, step := range []func(context.Context) error{
		d.moveInStep, d.findStep, d.raceStep, d.codeStep, d.coldStep, d.expiryStep, d.moveOutStep,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return d.closing()
}

// say writes a line.
func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// title begins a step: what it shows, and the command or function that does it.
func (d *demo) title(text, by string) {
	d.steps++
	const column = 62
	pad := max(2, column-utf8.RuneCountInString(text))
	d.say("\n%s%*s%s", d.bold(fmt.Sprintf("%d  %s", d.steps, text)), pad, "", by)
}

// check says whether something came out as it should.
func (d *demo) check(ok bool, format string, args ...any) {
	d.checks++
	mark := d.colour("32", "ok")
	if !ok {
		d.wrong++
		mark = d.colour("31", "WRONG")
	}
	d.say("   %s  %s", mark, fmt.Sprintf(format, args...))
}

// detail says why a check failed.
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

// colours reports whether out is a terminal that shows colours.
func colours(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// closing says how the demo came out, and what to do next.
func (d *demo) closing() error {
	if d.wrong > 0 {
		return fmt.Errorf("%d of the %d things that the demo checked are not as they should be", d.wrong, d.checks)
	}
	d.say("\n%s", d.bold(fmt.Sprintf("All %d checks came out as they should.  What to try next:", d.checks)))
	d.say("%s", strings.Trim(next, "\n"))
	return nil
}

const next = `
   DEMO_STORE=aws make demo               the same on a stand-in for AWS; gcp is Google's
   go run ./examples/demo -keep demo.csv  the same on a token file, which stays
   tokenkeep ls --store file:demo.csv     what is in it; add --json, or use get 3, rm 3
   tokenkeep help stores                  how to name your own store
   (tokenkeep is short for: go run ./cmd/tokenkeep)
`
