package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

const doctorHelp = `Looks at everything in the store and says what is wrong with it, what that means,
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
does no harm.`

func (a *app) doctorCommand() *cobra.Command {
	var (
		o     doctor.CheckOptions
		alone bool
	)
	c := &cobra.Command{
		Use:     "doctor",
		GroupID: groupUpkeep,
		Short:   "Check a store, and repair it",
		Long:    doctorHelp,
		Args:    noArgs,
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

func (a *app) doctor(ctx context.Context, s *store, o doctor.CheckOptions) error {
	c, ok := s.TokenStore.(doctor.Checker)
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

// findingsHelp is the help on what doctor finds.
func findingsHelp() string {
	text := `What "tokenkeep doctor" can find. Those marked with * do no harm: they do not make
the exit code another than 0.

`
	for _, kind := range doctor.Kinds() {
		name := string(kind)
		if kind.Harmless() {
			name += " *"
		}
		text += "  " + name + "\n" + wrapText("      "+kind.Meaning(), "      ")
	}
	return text
}
