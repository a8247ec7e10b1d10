package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) doctorCommand() *cobra.Command {
	var (
		o     tokenstore.CheckOptions
		alone bool
	)
	c := &cobra.Command{
		Use:     "doctor",
		GroupID: groupUpkeep,
		Short:   "Check a store, and repair it",
		Long: `Looks at everything in the store and says what is wrong with it, what that means,
and what it takes to repair it. A record that cannot be read is named, and the check
goes on. Nothing is changed unless one of these is given:

  --repair            repair what can be repaired while programs read and write
  --merge-duplicates  and make one record of those that are the same
  --purge --alone     and remove what deletions have left behind. A program that
                      writes meanwhile may lose what it writes: --alone says that
                      there is none
  --permissions       try each call that programs make, on a secret that is made for
                      it and removed, and name those that are not allowed

With any of them, the first thing is to try on such a secret whether the server
compares before it writes. Where it does not, nothing is repaired.

Findings that have one cause are one line; --json has each of them. "tokenkeep help
findings" lists all that can be found. The exit code is 0 if nothing is left but what
does no harm.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Purge != alone {
				return usagef("--purge is safe only while nothing else writes to the store: --purge and --alone go together")
			}
			o.Repair = o.Repair || o.MergeDuplicates || o.Purge
			o.Compare = o.Repair || o.Permissions
			a.tried = o.Permissions
			checked := a.reading()
			if o.Repair || o.Permissions {
				checked = a.changing()
			}
			return checked.withStore(c.Context(), func(s *store) error { return a.doctor(c.Context(), s, o) })
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Repair, "repair", false, "repair what can be repaired while others write")
	f.BoolVar(&o.MergeDuplicates, "merge-duplicates", false, "make one record of those that are the same")
	f.BoolVar(&o.Purge, "purge", false, "remove what deletions have left behind")
	f.BoolVar(&alone, "alone", false, "nothing else writes to the store, with --purge")
	f.BoolVar(&o.Permissions, "permissions", false, "try what the credentials may do")
	f.DurationVar(&o.Grace, "grace", time.Minute, "how old what writers pass through has to be to count as left behind")
	return c
}

// A doctorReport is what a check has found. With --json it is printed as it is
// here.
type doctorReport struct {
	Store    string        `json:"store"`
	Before   *int          `json:"records_before,omitempty"` // of repairs
	After    *int          `json:"records_after,omitempty"`
	Checked  int           `json:"checked"` // secrets, or rows
	Repaired int           `json:"repaired"`
	Left     int           `json:"left"` // findings that do harm
	Findings []findingJSON `json:"findings"`
}

type findingJSON struct {
	Kind     string `json:"kind"`
	Name     string `json:"name,omitempty"`
	ID       string `json:"id,omitempty"`
	Detail   string `json:"detail"`
	Remedy   string `json:"remedy,omitempty"`
	Action   string `json:"action,omitempty"`
	Harmless bool   `json:"harmless"`
	Repaired bool   `json:"repaired"`
	Error    string `json:"error,omitempty"`
}

func (a *app) doctor(ctx context.Context, s *store, o tokenstore.CheckOptions) error {
	c, ok := s.TokenStore.(tokenstore.Checker)
	if !ok {
		return usagef("a store of this kind cannot be checked")
	}
	if o.Grace == 0 {
		o.Grace = -1 // what is meant is none, and not the default
	}
	r := doctorReport{Store: a.storeName(), Findings: []findingJSON{}}
	if o.Repair {
		n, err := count(ctx, s)
		if err != nil {
			return err
		}
		r.Before = &n
		a.announce("repairing %s: %s", clean(r.Store), records(n))
	}
	bar := a.progress("checking", 0)
	o.Progress = func(done int) {
		bar.set(done)
		r.Checked = done
	}
	var ended error
	for f, err := range c.Check(ctx, &o) {
		if err != nil {
			ended = err
			break
		}
		r.add(f)
	}
	bar.done()
	slices.SortStableFunc(r.Findings, func(a, b findingJSON) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), sdkid.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name))
	})
	if o.Repair && ended == nil {
		n, err := count(ctx, s)
		r.After, ended = &n, err
	}
	return errors.Join(r.err(ended), a.printFindings(r, ended == nil))
}

// count returns how many records a store has that can be read.
func count(ctx context.Context, s *store) (int, error) {
	tokens, _, err := bulk.Readable(s.GetTokens(ctx))
	return len(tokens), err
}

func (r *doctorReport) add(f tokenstore.Finding) {
	j := findingJSON{
		Kind: string(f.Kind), Name: f.Name, ID: f.ID, Detail: f.Detail, Remedy: string(f.Remedy), Action: f.Action,
		Harmless: f.Kind.Harmless(), Repaired: f.Repaired,
	}
	if f.Err != nil {
		j.Error = f.Err.Error()
	}
	switch {
	case f.Repaired:
		r.Repaired++
	case !j.Harmless:
		r.Left++
	}
	r.Findings = append(r.Findings, j)
}

// err returns the error of a check that ended with the given one.
func (r *doctorReport) err(ended error) error {
	switch {
	case ended != nil:
		return fmt.Errorf("the check broke off: %w", ended)
	case r.Left > 0:
		return fmt.Errorf("%w: harmful findings: %d", errFindings, r.Left)
	}
	return nil
}

// findingsHelp is the help on what doctor finds.
func findingsHelp() string {
	text := `What "tokenkeep doctor" can find. Those marked with * do no harm: they do not make
the exit code another than 0.

`
	for _, kind := range tokenstore.Kinds() {
		name := string(kind)
		if kind.Harmless() {
			name += " *"
		}
		text += "  " + name + "\n" + wrapText("      "+kind.Meaning(), "      ")
	}
	return text
}

func (a *app) rekeyCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "rekey",
		GroupID: groupUpkeep,
		Short:   "Bring all records under the new keys",
		Long: `Gives every record a name by the first of name_keys and labels by the first of
index_keys, encrypts it with the first of encryption_keys, and reads it back. IDs stay.
Programs go on meanwhile, and the same command goes on where it was interrupted. To
change keys, bring them in, or take them out:

  1  tokenkeep keys add FILE      and give the file to every program
  2  tokenkeep keys switch FILE   and give the file to every program
  3  tokenkeep rekey
  4  tokenkeep keys drop FILE     and give the file to every program`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.env(envKeys) == "" {
				return usagef("rekey is about the keys of the file that %s names", envKeys)
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.rekey(c.Context(), s, dryRun) })
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say which records would be written, and write nothing")
	return c
}

// A rekeyReport is what became of a rekeying. With --json it is printed as it is
// here.
type rekeyReport struct {
	DryRun    bool           `json:"dry_run"`
	Records   int            `json:"records"`
	Rewritten int            `json:"rewritten"`
	Current   int            `json:"current"` // under the present keys already
	Failed    []rekeyFailure `json:"failed"`
	errs      []error
}

type rekeyFailure struct {
	Name  string `json:"name"`
	ID    string `json:"id,omitempty"`
	Error string `json:"error"`
	Class string `json:"class"`
}

func (a *app) rekey(ctx context.Context, s *store, dryRun bool) error {
	k, ok := s.TokenStore.(tokenstore.Rekeyer)
	if !ok {
		return usagef("a store of this kind has no keys")
	}
	r := rekeyReport{DryRun: dryRun, Failed: []rekeyFailure{}}
	bar := a.progress("rekeying", 0)
	var ended error
	for done, err := range k.Rekey(ctx, &tokenstore.RekeyOptions{DryRun: dryRun}) {
		if err != nil && done.Name == "" {
			ended = err
			break
		}
		r.add(done, err)
		bar.set(r.Records)
	}
	bar.done()
	err := r.err(ended)
	if a.json {
		return errors.Join(err, a.printJSON(r))
	}
	verb := "rewritten"
	if dryRun {
		verb = "to be rewritten"
	}
	a.printf("%d records: %d %s, %d under the present keys already, %d failed\n", r.Records, r.Rewritten, verb, r.Current, len(r.Failed))
	if err == nil && !dryRun {
		a.printf("no record needs any key but the first ones: the others can be dropped\n")
	}
	return err
}

func (r *rekeyReport) add(done tokenstore.Rekeyed, err error) {
	r.Records++
	switch {
	case err != nil:
		r.errs = append(r.errs, fmt.Errorf("secret %s: %w", strconv.Quote(done.Name), err))
		r.Failed = append(r.Failed, rekeyFailure{done.Name, done.ID, err.Error(), classOf(err).name})
	case done.Rewritten:
		r.Rewritten++
	default:
		r.Current++
	}
}

func (r *rekeyReport) err(ended error) error {
	switch {
	case ended != nil:
		return fmt.Errorf("%d records are done, and it did not come to its end: %w", r.Records-len(r.errs), ended)
	case len(r.errs) > 0:
		return fmt.Errorf("%w: %d of %d records are as they were:\n%w", errPartial, len(r.errs), r.Records, problems(r.errs))
	}
	return nil
}
