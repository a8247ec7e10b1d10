package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// sdkFile was written by the FileStore of Zoho's Python SDK. The records are made
// up.
//
//go:embed testdata/python_filestore.csv
var sdkFile []byte

// envDemo is the environment variable that names the stand-in of the demo.
const envDemo = "DEMO_STORE"

// A demoPlan is how the demo is to be run.
type demoPlan struct {
	keep      bool
	processes int // that find a token expired at once
}

func (a *app) demoCommand() *cobra.Command {
	var plan demoPlan
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show what tokenkeep does, on made-up records",
		Long: `Imports a token file that Zoho's Python SDK has written, finds records by everything
they are known by, and has eight processes save the same user at once. Then a
program starts with a one-time code and is killed; starts again, cold and without
the code; and is a hundred processes when the token has expired. At the end the
records are exported and compared. The demo says what it does, and whether that
came out as it should; the exit code is 0 if it all did.

The records go to a stand-in inside the program: for Vault, or for what DEMO_STORE
names, one of vault, aws and gcp. With --store they go there, to an empty one
(TOKENKEEP_STORE is left alone). They are removed at the end. Zoho's accounts server
and CRM are stand-ins, too.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.demo(c.Context(), plan) },
	}
	c.Flags().BoolVar(&plan.keep, "keep", false, "leave the records in --store")
	c.Flags().IntVar(&plan.processes, "processes", 100, "how many processes find the token expired at once")
	return c
}

// A demo is one run of the demonstration.
type demo struct {
	*app
	ctx       context.Context
	store     store
	processes int
	zoho      *zohoStandIn
	checks    []check
	steps     int
	made      []tokenstore.Token // what it has saved, or is about to save
}

// A check is something that should come out in a certain way.
type check struct {
	Text string `json:"text"`
	OK   bool   `json:"ok"`
}

func (a *app) demo(ctx context.Context, plan demoPlan) (err error) {
	const most = 1000
	if plan.processes < 1 || plan.processes > most {
		return usagef("--processes is a number from 1 to %d", most)
	}
	place, standIns := "the store that --store names", "Zoho is a stand-in here, a server inside this program that speaks its interface\nand enforces its rules."
	if a.storeURL == "" {
		standIn, err := startStandIn(a.env(envDemo))
		if err != nil {
			return err
		}
		defer standIn.close()
		a, place = a.at(standIn), standIn.name
		standIns = "Both are stand-ins here, servers inside this program that speak their interfaces\nand enforce their rules."
	}
	zoho, err := startZoho()
	if err != nil {
		return err
	}
	defer zoho.close()
	s, err := a.openEmpty(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d := &demo{app: a, ctx: ctx, store: s, processes: plan.processes, zoho: zoho}
	if !plan.keep {
		defer func() { err = errors.Join(err, d.tidy()) }()
	}
	d.say("This keeps the OAuth tokens of Zoho's users in %s.\n%s The records are made up.", place, standIns)
	for _, step := range []func() error{d.importStep, d.findStep, d.raceStep, d.codeStep, d.coldStep, d.expiryStep, d.exportStep} {
		if err := step(); err != nil {
			return err
		}
		_ = d.out.Flush()
	}
	return d.closing()
}

// openEmpty opens the store, and refuses one in which there are records.
func (a *app) openEmpty(ctx context.Context) (store, error) {
	if strings.HasPrefix(a.storeURL, memScheme.name+":") {
		return nil, usagef("the demo's processes cannot share a store in memory")
	}
	s, err := a.openURL(ctx, a.storeURL)
	if err != nil {
		return nil, err
	}
	tokens, err := s.GetTokens(ctx)
	if err == nil && len(tokens) > 0 {
		err = usagef("the demo writes made-up records, and takes an empty store: this one has %d", len(tokens))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// tidyTime bounds how long the demo's records are being removed.
const tidyTime = 30 * time.Second

// tidy removes the records that the demo has made.
func (d *demo) tidy() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), tidyTime)
	defer cancel()
	for _, t := range d.made {
		found, err := d.store.FindToken(ctx, identity(t))
		if errors.Is(err, tokenstore.ErrNotFound) {
			continue
		}
		if err == nil {
			err = d.store.DeleteToken(ctx, found.ID)
		}
		if err != nil {
			return fmt.Errorf("remove the demo's records: %w", err)
		}
	}
	return nil
}

// say writes a line for people.
func (d *demo) say(format string, args ...any) {
	if !d.json {
		d.printf(format+"\n", args...)
	}
}

// title begins a step: what it shows, and the command or function that does it.
func (d *demo) title(text, by string) {
	d.steps++
	const column = 62
	pad := max(2, column-width(text))
	d.say("\n%s%*s%s", d.bold(fmt.Sprintf("%d  %s", d.steps, text)), pad, "", by)
	_ = d.out.Flush()
}

// check says whether something came out as it should.
func (d *demo) check(ok bool, format string, args ...any) {
	c := check{fmt.Sprintf(format, args...), ok}
	d.checks = append(d.checks, c)
	mark := d.colour("32", "ok")
	if !ok {
		mark = d.colour("31", "WRONG")
	}
	d.say("   %s  %s", mark, c.Text)
}

func (d *demo) bold(s string) string { return d.colour("1", s) }

func (d *demo) colour(code, s string) string {
	if !d.colours {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// colours reports whether standard output is a terminal that shows colours.
func colours(stdout io.Writer, env func(string) string) bool {
	return isTerminal(stdout) && env("NO_COLOR") == "" && env("TERM") != "dumb" && runtime.GOOS != "windows"
}

// importStep imports the SDK's file.
func (d *demo) importStep() error {
	d.title("Move in, with a token file of Zoho's Python SDK", "tokenkeep import sdk_tokens.csv --keep-ids")
	p, err := planImport(sdkFile, "", importOptions{keepIDs: true})
	if err != nil {
		return err
	}
	for _, row := range p.rows {
		d.made = append(d.made, row.token)
	}
	r := d.saveRows(d.ctx, d.store, "sdk_tokens.csv", p)
	if err := r.err(); err != nil {
		return err
	}
	tokens, err := d.store.GetTokens(d.ctx)
	if err != nil {
		return err
	}
	d.check(r.Imported == r.Rows && len(tokens) == r.Rows, "%d of %d rows are records now", r.Imported, r.Rows)
	slices.SortFunc(tokens, func(a, b tokenstore.Token) int { return compareIDs(a.ID, b.ID) })
	const some = 3
	t := d.listing(tokens[:min(some, len(tokens))])
	t.indent = "       "
	t.row("…")
	d.say("%s", strings.TrimSuffix(t.String(), "\n"))
	return nil
}

// demoRow is the row that is searched for, from 0: its user has a comma and an
// apostrophe.
const demoRow = 2

// findStep finds one record by everything it is known by.
func (d *demo) findStep() error {
	d.title("Find a record by everything it is known by", "tokenkeep get")
	f, err := parseFile(sdkFile, codec.Python)
	if err != nil {
		return err
	}
	want, err := fromRow(f.Row(demoRow))
	if err != nil {
		return err
	}
	for _, by := range []struct {
		what string
		like tokenstore.Token
	}{
		{"by its ID, " + want.ID, tokenstore.Token{ID: want.ID}},
		{"by its user, " + want.UserName, tokenstore.Token{UserName: want.UserName}},
		{"by its refresh token and client", tokenstore.Token{ClientID: want.ClientID, RefreshToken: want.RefreshToken}},
		{"by its access token", tokenstore.Token{AccessToken: want.AccessToken}},
	} {
		got, err := d.store.FindToken(d.ctx, by.like)
		d.check(err == nil && sameToken(got, want), "%s", by.what)
	}
	d.say("       secrets are masked wherever they are printed: refresh token %v", want.RefreshToken)
	return nil
}

// exportStep writes a token file of the records and compares it with the SDK's.
func (d *demo) exportStep() error {
	d.title("Move out again, to a file that the SDK can read", "tokenkeep export exported.csv --keep-ids")
	tokens, err := d.store.GetTokens(d.ctx)
	if err != nil {
		return err
	}
	exported, err := writeAndRead(tokens)
	if err != nil {
		return err
	}
	before, err := parseFile(sdkFile, codec.Python)
	if err != nil {
		return err
	}
	after, err := parseFile(exported, codec.Python)
	if err != nil {
		return err
	}
	equal := 0
	for i := range before.Len() {
		if i < after.Len() && before.Row(i) == after.Row(i) {
			equal++
		}
	}
	d.check(after.Len() == before.Len()+2, "%d rows: those of the SDK, and two new users'", after.Len())
	d.check(equal == before.Len(), "%d of %d rows of the SDK are equal, field by field", equal, before.Len())
	d.check(bytes.HasPrefix(exported, sdkFile), "they are equal byte for byte, with their quotes, umlauts and line ends")
	return nil
}

// writeAndRead writes a token file to a disk and reads it again.
func writeAndRead(tokens []tokenstore.Token) ([]byte, error) {
	data, err := tokenFile(tokens, codec.Python, true)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tokenkeep-demo-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "exported.csv")
	if err := createFile(name, data); err != nil {
		return nil, err
	}
	return os.ReadFile(name)
}

// closing says how it came out, and what to do next.
func (d *demo) closing() error {
	wrong := 0
	for _, c := range d.checks {
		if !c.OK {
			wrong++
		}
	}
	var err error
	if wrong > 0 {
		err = fmt.Errorf("%d of the %d things that the demo checked are not as they should be", wrong, len(d.checks))
	}
	if d.json {
		return errors.Join(err, d.printJSON(map[string]any{"ok": wrong == 0, "checks": d.checks}))
	}
	if err != nil {
		return err
	}
	d.say("\n%s", d.bold(fmt.Sprintf("All %d checks came out as they should.  What to try next:", len(d.checks))))
	next := table{indent: "   "}
	next.row("DEMO_STORE=aws tokenkeep demo", "the same on a stand-in for AWS; gcp is Google's")
	next.row("tokenkeep demo --keep --store file:demo.csv", "the same on a token file, which stays")
	next.row("tokenkeep ls --store file:demo.csv", "what is in it; add --json, or use get 3, rm 3")
	next.row("tokenkeep help stores", "how to name your own store")
	d.say("%s   (tokenkeep is short for: go run ./cmd/tokenkeep)", &next)
	return nil
}
