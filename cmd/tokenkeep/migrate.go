package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/migrate"
)

// A side's environment variables may have its prefix, so that the two stores can
// be on two servers, or have two sets of keys.
const (
	fromPrefix = "FROM_"
	toPrefix   = "TO_"
)

const migrateHelp = `Saves the records of one store to another, reads every one of them back, and
compares. Nothing is written before all records have been looked at, here and
there. What stands in the way is listed, and then nothing is written at all:

  duplicate   the source has a record twice, as the target sees it, or two under an
              ID that is to be kept
  conflict    the target has the record with other tokens, or under another ID, or
              has another record under its ID
  unusable    the target cannot hold the record

Records of the source that cannot be read are named as "unreadable", with what the
store says; they stay where they are, and the others are moved.

Interrupted or killed, the same command goes on where it was. The source is only
read, unless --delete-source is given: then what was verified is removed from it at
the end, unless it has changed since. Before that the two stores are told apart by
an entry without a token that is made in both and removed again. Let no program
write to the source meanwhile. Backups, and what a service keeps of deleted secrets,
are not touched: see "tokenkeep rm --help".

IDs are made up by the target. With --keep-ids they stay as they are where the
target can hold them; --json has those that changed.

Where the two stores need different environment variables, a name that begins with
FROM_ or TO_ holds for one of them: FROM_VAULT_ADDR, TO_` + envKeys + `.
FROM_` + envKeys + ` or TO_` + envKeys + `, set and empty, says that
the store has no keys.

The exit code is 0 only if every record was verified.`

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
	f.StringVar(&o.from, "from", "", "`URL` of the store that has the records")
	f.StringVar(&o.to, "to", "", "`URL` of the store that gets them")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and write nothing")
	f.BoolVar(&o.KeepIDs, "keep-ids", false, "keep the IDs that the target can hold")
	f.StringVar((*string)(&o.OnConflict), "on-conflict", string(migrate.Stop), "who is right if both have a record: stop, source, target, newer")
	f.BoolVar(&o.mergeDuplicates, "merge-duplicates", false, "make one record of those that are the same")
	f.BoolVar(&o.SkipBad, "skip-bad", false, "leave out records that stand in the way")
	f.BoolVar(&o.DeleteSource, "delete-source", false, "remove what was verified from the source")
	return c
}

// check reports what is wrong with the flags.
func (o migrateOptions) check() error {
	switch {
	case o.from == "" || o.to == "":
		return usagef("migrate takes --from and --to")
	case !slices.Contains([]migrate.Policy{migrate.Stop, migrate.Source, migrate.Target, migrate.Newer}, o.OnConflict):
		return usagef("--on-conflict is one of stop, source, target, newer")
	case o.dryRun && o.DeleteSource:
		return usagef("--dry-run and --delete-source do not go together")
	}
	return nil
}

// A side is an app that sees the environment of one of the two stores.
type side struct {
	app
	empty string // a variable with the side's prefix that is set and empty
}

func (a *app) side(prefix string) *side {
	s := &side{app: *a}
	s.lookup = func(name string) (string, bool) {
		value, set := a.isSet(prefix + name)
		if set && value == "" && name != envKeys { // no keys file: this store is without keys
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

// isSet looks up a variable of the environment.
func (a *app) isSet(name string) (value string, set bool) {
	if a.lookup != nil {
		return a.lookup(name)
	}
	value = a.env(name)
	return value, value != ""
}

// openURL opens the store of the side. A variable with the prefix that is set and
// empty does not stand for the one without.
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
	ctx, calls := countCalls(ctx)
	w := &watch{app: a, o: o, from: from, to: to, calls: calls, began: map[migrate.Step]int64{}}
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
	if unread := w.m.Report().Unread; unread != nil {
		a.note("some records of the target cannot be read, and are left alone: %v", unread)
	}
	err = w.m.Ready()
	blocked := err != nil
	if !blocked && !o.dryRun {
		_, err = w.m.Run(ctx)
	}
	w.bar.done()
	return errors.Join(err, a.printMigration(w.report(), blocked))
}

// A watch shows how far a migration has got, and counts the calls of its steps.
type watch struct {
	*app

	o        migrateOptions
	from, to *store
	m        *migrate.Migration // nil while it is being planned
	calls    *atomic.Int64
	began    map[migrate.Step]int64 // calls before the step
	bar      *bar
}

// progress is called by the migration.
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
