package cli

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

const doctorHelp = `Examines everything in the store, and reports each fault with its meaning and its
remedy. An unreadable record is reported, and the check continues. Nothing is changed
unless one of these flags is given:

  --repair            repair faults; programs may read and write meanwhile
  --merge-duplicates  also merge duplicate records
  --purge --alone     also remove the remains of deletions. A program that writes
                      meanwhile may lose its writes: --alone confirms that none does
  --permissions       try each call that programs make, on a temporary secret, and
                      report those that are not allowed

With any of these flags, doctor first tests on a temporary secret whether the server
compares before it writes. If it does not, nothing is repaired.

With --races, doctor measures the service instead of checking the records:

  races   how many of several concurrent writes succeed: exactly one should, in each
          round
  lags    how long a write stays invisible to a read by name, a search by label and a
          list, as a histogram. A list reads all records, and is left out if the store
          has more than 20

It writes only to two temporary secrets. Before it begins, it prints the maximum number of
calls and their cost at list prices, and asks for consent, unless --yes is given. It ends
early after --calls calls. Use a prefix that no program uses. A round without exactly one
winner, and a lag above the bound of the store, are harmful findings.

The temporary secrets are removed at the end, even after Ctrl-C. In Vault, a tombstone of
each remains, which --purge removes. On AWS with keep-deleted, the secrets remain, and are
billed. After a kill, --repair removes the temporary secrets once they are 15 minutes
old; until then, --races fails.

Findings with the same cause are one line; --json prints each of them. "tokenkeep help
findings" lists all kinds of findings. The exit code is 0 if no harmful finding is
left.`

func (a *app) doctorCommand() *cobra.Command {
	var (
		o     doctor.CheckOptions
		alone bool
		races racing
	)
	c := &cobra.Command{
		Use:     "doctor",
		GroupID: groupUpkeep,
		Short:   "Check a store, and repair it",
		Long:    doctorHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Purge != alone {
				return usagef("--purge is safe only while nothing else writes to the store: --purge requires --alone")
			}
			if err := races.check(c); err != nil {
				return err
			}
			if races.wanted {
				return a.changing().withStore(c.Context(), func(s *store) error { return a.measure(c.Context(), s, races) })
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
	f.BoolVar(&o.Repair, "repair", false, "repair faults; other programs may write meanwhile")
	f.BoolVar(&o.MergeDuplicates, "merge-duplicates", false, "merge duplicate records")
	f.BoolVar(&o.Purge, "purge", false, "remove the remains of deletions")
	f.BoolVar(&alone, "alone", false, "nothing else writes to the store, with --purge")
	f.BoolVar(&o.Permissions, "permissions", false, "test which calls the credentials allow")
	f.DurationVar(&o.Grace, "grace", time.Minute, "minimum age of an intermediate state of a write that counts as a fault")
	races.flags(c)
	return c
}

func (a *app) doctor(ctx context.Context, s *store, o doctor.CheckOptions) error {
	c, ok := s.TokenStore.(doctor.Checker)
	if !ok {
		return usagef("a store of this kind cannot be checked")
	}
	if o.Grace == 0 {
		o.Grace = -1 // in the options, 0 means the default, and -1 means no grace
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

// count returns the number of readable records in a store.
func count(ctx context.Context, s *store) (int, error) {
	tokens, _, err := bulk.Readable(s.GetTokens(ctx))
	return len(tokens), err
}

func findingsHelp() string {
	text := `"tokenkeep doctor" can report these findings. Findings marked with * do not change the
exit code.

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
