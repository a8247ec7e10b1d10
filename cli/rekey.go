package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/keys"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

func (a *app) rekeyCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "rekey",
		GroupID: groupUpkeep,
		Short:   "Rewrite all records with the new keys",
		Long: `Gives every record a name by the first of name_keys and labels by the first of
index_keys, encrypts it with the first of encryption_keys, and reads it back. IDs do not
change. Programs can run meanwhile. If the command is interrupted, run it again. To change
keys, to add them, or to remove them:

  1  tokenkeep keys add FILE      and give the file to every program
  2  tokenkeep keys switch FILE   and give the file to every program
  3  tokenkeep rekey
  4  tokenkeep keys drop FILE     and give the file to every program`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.env(envKeys) == "" {
				return usagef("rekey uses the keys in the file that %s names", envKeys)
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.rekey(c.Context(), s, dryRun) })
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say which records would be written, and write nothing")
	return c
}

// A rekeyReport is the outcome of rekeying. With --json, the command prints this struct.
type rekeyReport struct {
	DryRun    bool           `json:"dry_run"`
	Records   int            `json:"records"`
	Rewritten int            `json:"rewritten"`
	Current   int            `json:"current"` // number of records already under the current keys
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
	k, ok := s.TokenStore.(doctor.Rekeyer)
	if !ok {
		return usagef("a store of this kind has no keys")
	}
	r := rekeyReport{DryRun: dryRun, Failed: []rekeyFailure{}}
	bar := a.progress("rekeying", 0)
	var ended error
	for done, err := range k.Rekey(ctx, &doctor.RekeyOptions{DryRun: dryRun}) {
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
	a.printf("%d records: %d %s, %d under the current keys already, %d failed\n", r.Records, r.Rewritten, verb, r.Current, len(r.Failed))
	if err == nil && !dryRun {
		a.printf("%s\n", a.afterRekey())
	}
	return err
}

// afterRekey returns a remark that says whether keys in the keys file can be dropped.
func (a *app) afterRekey() string {
	k, err := keys.Load(a.env(envKeys))
	if err == nil {
		_, err = k.Drop()
	}
	if err != nil { // Drop fails if there is only one key of each kind
		return "all records are under the current keys"
	}
	return "no record needs any key but the first ones: the others can be dropped"
}

func (r *rekeyReport) add(done doctor.Rekeyed, err error) {
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
		return fmt.Errorf("interrupted after %d records: %w", r.Records-len(r.errs), ended)
	case len(r.errs) > 0:
		return fmt.Errorf("%w: %d of %d records are as they were:\n%w", errPartial, len(r.errs), r.Records, problems(r.errs))
	}
	return nil
}
