package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// What becomes of a record that the target has in another state.
const (
	conflictStop   = "stop"
	conflictSource = "source"
	conflictTarget = "target"
	conflictNewer  = "newer"
)

// A side's environment variables may have its prefix, so that the two stores can
// be on two servers, or have two sets of keys.
const (
	fromPrefix = "FROM_"
	toPrefix   = "TO_"
)

type migrateOptions struct {
	from, to        string
	onConflict      string
	dryRun          bool
	keepIDs         bool
	mergeDuplicates bool
	skipBad         bool
	deleteSource    bool
}

func (a *app) migrateCommand() *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use:     "migrate --from URL --to URL",
		GroupID: groupRecords,
		Short:   "Move the records of one store to another",
		Long: `Saves the records of one store to another, reads every one of them back, and
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

The exit code is 0 only if every record was verified.`,
		Args: noArgs,
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
	f.BoolVar(&o.keepIDs, "keep-ids", false, "keep the IDs that the target can hold")
	f.StringVar(&o.onConflict, "on-conflict", conflictStop, "who is right if both have a record: stop, source, target, newer")
	f.BoolVar(&o.mergeDuplicates, "merge-duplicates", false, "make one record of those that are the same")
	f.BoolVar(&o.skipBad, "skip-bad", false, "leave out records that stand in the way")
	f.BoolVar(&o.deleteSource, "delete-source", false, "remove what was verified from the source")
	return c
}

// check reports what is wrong with the flags.
func (o migrateOptions) check() error {
	switch {
	case o.from == "" || o.to == "":
		return usagef("migrate takes --from and --to")
	case !slices.Contains([]string{conflictStop, conflictSource, conflictTarget, conflictNewer}, o.onConflict):
		return usagef("--on-conflict is one of stop, source, target, newer")
	case o.dryRun && o.deleteSource:
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
func (s *side) openURL(ctx context.Context, url string) (store, error) {
	opened, err := s.app.openURL(ctx, url)
	if s.empty == "" {
		return opened, err
	}
	if err == nil {
		err = opened.Close()
	}
	return nil, errors.Join(usagef("%s is set and empty: unset it, or give it a value", s.empty), err)
}

// A migration is one run of migrate.
type migration struct {
	*app
	o        migrateOptions
	from, to store
	plan     *migrationPlan
	report   migrateReport
}

func (a *app) migrate(ctx context.Context, o migrateOptions) (err error) {
	source := a.side(fromPrefix)
	source.isThere, source.readOnly = true, !o.deleteSource
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
	m := &migration{app: a, o: o, from: from, to: to, report: newMigrateReport(o)}
	defer func() { err = errors.Join(err, m.to.Close()) }()
	if at := from.place(); at != "" && at == to.place() {
		return errSameStore
	}
	err = m.run(ctx)
	if m.plan == nil {
		return err
	}
	return errors.Join(err, m.print())
}

// run does one step after the other.
func (m *migration) run(ctx context.Context) error {
	if err := m.prepare(ctx); err != nil {
		return err
	}
	m.report.planned(m.plan)
	if n := m.plan.inTheWay(); n > 0 && !m.o.skipBad {
		return fmt.Errorf("%w: %d of %d records stand in the way: nothing was written", errConflicts, n, m.report.Records)
	}
	if m.o.dryRun {
		return nil
	}
	if err := m.beginWriting(ctx); err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	if m.o.deleteSource && len(m.plan.items) > 0 {
		if err := m.step(ctx, "tell apart", m.to, m.tellApart); err != nil {
			return fmt.Errorf("nothing was written: %w", err)
		}
	}
	err := m.step(ctx, "write", m.to, m.write)
	if err == nil {
		err = m.step(ctx, "verify", m.to, m.verify)
	}
	if err == nil && m.o.deleteSource {
		err = m.step(ctx, "delete source", m.from, m.deleteSource)
	}
	m.report.finished(m.plan)
	if err != nil {
		return m.report.brokenOff(err)
	}
	return m.report.err()
}

// tellApart fails if the two stores are one under two names: what is removed from
// the source would be removed from the target. Nothing but a probe is written.
func (m *migration) tellApart(ctx context.Context) (int, error) {
	same, err := m.to.sameAs(ctx, m.from)
	if err == nil && same {
		err = errSameStore
	}
	return 0, err
}

// beginWriting opens the target again if it was opened for a plan, which must not
// make it.
func (m *migration) beginWriting(ctx context.Context) error {
	p, ok := m.to.(planner)
	if !ok {
		return nil
	}
	to, err := p.forWriting(ctx)
	if err != nil {
		return err
	}
	planned := m.to
	m.to = to
	return planned.Close()
}

// prepare reads both stores and plans.
func (m *migration) prepare(ctx context.Context) error {
	var source, target []tokenstore.Token
	var unreadable error
	err := m.step(ctx, "read source", m.from, func(ctx context.Context) (_ int, err error) {
		source, unreadable, err = readable(m.from.GetTokens(ctx))
		return len(source), err
	})
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	err = m.step(ctx, "read target", m.to, func(ctx context.Context) (_ int, err error) {
		var damaged error
		target, damaged, err = readable(m.to.GetTokens(ctx))
		if damaged != nil {
			m.note("some records of the target cannot be read, and are left alone: %v", damaged)
		}
		return len(target), err
	})
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	return m.step(ctx, "plan", nil, func(ctx context.Context) (int, error) {
		plan, err := m.o.plan(ctx, source, unreadable, target, m.to)
		m.plan = plan
		return len(source), err
	})
}

// readable returns what GetTokens has returned, with the errors of single records
// apart from those of the whole store.
func readable(tokens []tokenstore.Token, err error) (_ []tokenstore.Token, unreadable, _ error) {
	if err != nil && tokens != nil {
		return tokens, err, nil
	}
	return tokens, nil, err
}

// step does one step and notes how long it took, and how many calls it made if
// the store counts them. s may be nil.
func (m *migration) step(ctx context.Context, name string, s store, do func(context.Context) (records int, err error)) error {
	ctx, n := countCalls(ctx)
	began := m.now()
	records, err := do(ctx)
	done := migrateStep{Name: name, Records: records, Seconds: m.now().Sub(began).Round(time.Millisecond).Seconds()}
	if s != nil && s.counted() {
		calls := n.Load()
		done.Calls = &calls
	}
	m.report.Steps = append(m.report.Steps, done)
	return err
}
