package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/internal/calls"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// Prefixes of environment variables that apply only to the source or the target.
const (
	fromPrefix = "FROM_"
	toPrefix   = "TO_"
)

const migrateHelp = `Saves the records of one store to another, reads each of them back, and compares.
Nothing is written before all records of both stores have been examined. If there are
problems, they are listed and nothing is written:

  duplicate   two records of the source are the same record for the target, or have
              the same ID that is to be kept
  conflict    the target has the record with other tokens or under another ID, or
              has another record under its ID
  unusable    the target cannot hold the record

Unreadable records of the source are listed as "unreadable" with the store's reason;
they stay where they are, and the others are moved.

Standard error shows the progress: on a terminal in one line, elsewhere as a line every
30 seconds, and with --json not at all.

If the command is interrupted or killed, run it again: it continues where it stopped.
The source is only read, unless --delete-source is given. Then verified records are
removed from it at the end, unless they have changed since. Before that, an entry
without a token is created in both stores and removed again, to prove that they are
different. Let no program write to the source meanwhile. Backups, and remains of
deleted secrets in a service, are not removed: see "tokenkeep rm --help".

The target derives the IDs. With --keep-ids, records keep IDs that the target can
hold; --json lists the IDs that changed.

If the two stores need different environment variables, a name with the prefix FROM_
or TO_ applies to one of them: FROM_VAULT_ADDR, TO_` + envKeys + `.
FROM_` + envKeys + ` or TO_` + envKeys + `, if set but empty, means
that the store has no keys.

The exit code is 0 only if every record was verified. With --dry-run, the exit code is 0
if nothing stops the move. Unreadable records do not stop the move.`

type migrateOptions struct {
	migrate.Options

	from, to string
	dryRun   bool

	mergeDuplicates bool
}

func (a *app) migrateCommand() *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use:     "migrate --from URL --to URL",
		GroupID: groupRecords,
		Short:   "Move the records of one store to another",
		Long:    migrateHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if c.Flags().Changed("store") {
				return usagef("migrate takes its stores from --from and --to, not from --store")
			}
			return a.migrate(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "`URL` of the source store")
	f.StringVar(&o.to, "to", "", "`URL` of the target store")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and write nothing")
	f.BoolVar(&o.KeepIDs, "keep-ids", false, "keep the IDs that the target can hold")
	f.StringVar((*string)(&o.OnConflict), "on-conflict", string(migrate.Stop), "which side wins if both have a record: stop, source, target, newer")
	f.BoolVar(&o.mergeDuplicates, "merge-duplicates", false, "merge duplicate records")
	f.BoolVar(&o.SkipBad, "skip-bad", false, "leave out records with problems")
	f.BoolVar(&o.DeleteSource, "delete-source", false, "remove verified records from the source")
	return c
}

// check returns a usage error if the flags are invalid or contradict each other.
func (o migrateOptions) check() error {
	switch {
	case o.from == "" || o.to == "":
		return usagef("migrate takes --from and --to")
	case !slices.Contains([]migrate.Policy{migrate.Stop, migrate.Source, migrate.Target, migrate.Newer}, o.OnConflict):
		return usagef("--on-conflict must be one of stop, source, target, newer")
	case o.dryRun && o.DeleteSource:
		return usagef("--dry-run and --delete-source cannot be used together")
	}
	return nil
}

// A side is an app with the environment of the source or the target.
type side struct {
	app
	empty string // the prefixed name of a variable that was read and is set to an empty value
}

func (a *app) side(prefix string) *side {
	s := &side{app: *a}
	s.lookup = func(name string) (string, bool) {
		value, set := a.isSet(prefix + name)
		if set && value == "" && name != envKeys { // an empty envKeys means that this store has no keys
			s.empty = prefix + name
		}
		if set {
			return value, true
		}
		return a.isSet(name)
	}
	s.env = func(name string) string {
		value, _ := s.lookup(name)
		return value
	}
	return s
}

// isSet returns the value of an environment variable, and reports whether the variable is set.
func (a *app) isSet(name string) (value string, set bool) {
	if a.lookup != nil {
		return a.lookup(name)
	}
	value = a.env(name)
	return value, value != ""
}

// openURL opens the store of the side. It returns a usage error if the store reads a variable whose
// prefixed name is set to an empty value.
func (s *side) openURL(ctx context.Context, url string) (*store, error) {
	opened, err := s.app.openURL(ctx, url)
	if s.empty == "" {
		return opened, err
	}
	if err == nil {
		err = opened.Close()
	}
	return nil, errors.Join(usagef("%s is set and empty: unset it, or give it a value", s.empty), err)
}

func (a *app) migrate(ctx context.Context, o migrateOptions) (err error) {
	source := a.side(fromPrefix)
	source.isThere, source.readOnly = true, !o.DeleteSource
	from, err := source.openURL(ctx, o.from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	target := a.side(toPrefix)
	target.readOnly = true
	to, err := target.openURL(ctx, o.to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if from.place != "" && from.place == to.place {
		return migrate.ErrSameStore
	}
	ctx, sent := calls.Count(ctx)
	w := &watch{app: a, o: o, from: from, to: to, calls: sent, began: map[migrate.Step]int64{}}
	o.Lag, o.Progress = to.lag, w.progress
	if o.mergeDuplicates {
		o.Duplicates = migrate.Merge
	}
	o.Writable = func(ctx context.Context) (tokenstore.TokenStore, error) {
		if to.writable == nil {
			return to.TokenStore, nil
		}
		planned := to
		if to, err = planned.writable(ctx); err != nil {
			to = planned
			return nil, err
		}
		return to.TokenStore, planned.Close()
	}
	w.m, err = migrate.Plan(ctx, from.TokenStore, to.TokenStore, &o.Options)
	if err != nil {
		return err
	}
	w.noteUnread(source)
	err = w.m.Ready()
	blocked := err != nil
	if !blocked && !o.dryRun {
		_, err = w.m.Run(ctx)
	}
	w.bar.done()
	return errors.Join(err, a.printMigration(w.report(), blocked))
}

// noteUnread prints a remark if records of the target are unreadable. If every record of the
// source is unreadable, noteUnread calls noteKeys for the source.
func (w *watch) noteUnread(source *side) {
	r := w.m.Report()
	if r.Unread != nil {
		w.note("some records of the target cannot be read, and are left alone: %v", r.Unread)
	}
	var unread []error
	for _, p := range r.Problems {
		if p.Kind == migrate.KindUnreadable {
			unread = append(unread, p.Err)
		}
	}
	if len(unread) == r.Records {
		source.noteKeys(w.from, errors.Join(unread...))
	}
}

// A watch shows the progress of a migration, and counts the calls of each step.
type watch struct {
	*app

	o        migrateOptions
	from, to *store
	m        *migrate.Migration // nil during planning
	calls    *atomic.Int64
	began    map[migrate.Step]int64 // number of calls before the step
	bar      *bar
}

// progress implements migrate.Options.Progress.
func (w *watch) progress(p migrate.Progress) {
	if _, ok := w.began[p.Step]; !ok {
		w.began[p.Step] = w.calls.Load()
	}
	switch {
	case p.All == 0 || p.Done > 0:
		w.bar.set(p.Done)
		return
	case p.Step == migrate.StepDelete:
		w.announce("removing %d of %s of %s, which are verified in %s", p.All, records(w.m.Report().Records), clean(w.o.from), clean(w.o.to))
	}
	w.bar.done()
	w.bar = w.app.progress(map[migrate.Step]string{
		migrate.StepWrite: "writing", migrate.StepVerify: "verifying", migrate.StepDelete: "removing from the source",
	}[p.Step], p.All)
}
