package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
)

func (a *app) rmCommand() *cobra.Command {
	var all, yes, dryRun bool
	c := &cobra.Command{
		Use:     "rm ID...",
		GroupID: groupRecords,
		Short:   "Remove records",
		Long: `Removes the records with the given IDs, or all there are, and says of which store
and how many. What is removed cannot be brought back by this program. --dry-run says
what would be removed.

It is removed from the store and, of SQLite, from the database file. It stays in
backups and snapshots, in the binary and undo logs of MySQL until they are purged,
and at Google Cloud until its delayed destruction. Where that matters, revoke the
tokens: "tokenkeep forget" does that, and removes the records.`,
		RunE: func(c *cobra.Command, ids []string) error {
			switch {
			case all == (len(ids) > 0):
				return usagef("rm takes IDs, or --all")
			case dryRun && yes:
				return usagef("--dry-run and --yes do not go together")
			case all && !yes && !dryRun:
				return usagef("rm --all removes every record of the store: say --yes too, or --dry-run to see how many")
			case dryRun:
				return a.reading().withStore(c.Context(), func(s *store) error { return a.wouldRemove(c.Context(), s, ids) })
			case all:
				return a.changing().withStore(c.Context(), func(s *store) error { return a.removeAll(c.Context(), s) })
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.remove(c.Context(), s, ids) })
		},
	}
	c.Flags().BoolVar(&all, "all", false, "remove all records")
	c.Flags().BoolVar(&yes, "yes", false, "yes, all of them")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	return c
}

// A removal is what became of the records that were to be removed. With --json it is
// printed as it is here.
type removal struct {
	Store   string   `json:"store"`
	DryRun  bool     `json:"dry_run"`
	Before  int      `json:"before"`            // records that were to be removed
	Removed []string `json:"removed,omitempty"` // their IDs, if IDs were given
	All     bool     `json:"removed_all,omitempty"`
	After   int      `json:"after"` // those of them that are there
}

// print writes the report to standard output. err is returned, unless writing fails.
func (a *app) printRemoval(r removal, err error) error {
	if a.json {
		return errors.Join(err, a.printJSON(r))
	}
	if r.DryRun {
		a.printf("%s of %s would be removed\n", records(r.Before), clean(r.Store))
		return err
	}
	text := fmt.Sprintf("removed %d of %s of %s", r.Before-r.After, records(r.Before), clean(r.Store))
	if r.Removed == nil {
		text += fmt.Sprintf(", %d are left", r.After)
	}
	a.printf("%s\n", text)
	if r.After < r.Before {
		a.printf("%s\n", copiesStay)
	}
	return err
}

// copiesStay says what a removal does not reach.
const copiesStay = "backups, snapshots and logs may still hold the tokens: see 'tokenkeep rm --help'"

// wouldRemove says how many records a removal would be of: those with the IDs, or
// all if there are none.
func (a *app) wouldRemove(ctx context.Context, s *store, ids []string) error {
	r := removal{Store: a.storeName(), DryRun: true}
	if len(ids) == 0 {
		tokens, unreadable, err := bulk.Readable(s.GetTokens(ctx))
		if err != nil {
			return err
		}
		r.Before = len(tokens)
		r.After = r.Before
		return a.printRemoval(r, leftAlone(unreadable))
	}
	var errs []error
	for _, id := range ids {
		if _, err := s.FindTokenByID(ctx, id); err != nil {
			errs = append(errs, withoutToken(err, id, maybeToken))
			if bulk.Lasting(err) {
				break
			}
			continue
		}
		r.Before++
	}
	r.After = r.Before
	return a.printRemoval(r, errors.Join(errs...))
}

// leftAlone returns the error of an operation on many records that has left some
// alone because they cannot be read; nil if there are none.
func leftAlone(unreadable error) error {
	if unreadable == nil {
		return nil
	}
	return fmt.Errorf("what cannot be read is left alone: %w", unreadable)
}

func (a *app) removeAll(ctx context.Context, s *store) error {
	before, _, err := bulk.Readable(s.GetTokens(ctx))
	if err != nil {
		return err
	}
	r := removal{Store: a.storeName(), Before: len(before)}
	a.announce("removing all: %s of %s", records(r.Before), clean(r.Store))
	err = s.DeleteTokens(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("some of the records may be removed; the same command removes the others: %w", err)
	}
	after, _, readErr := bulk.Readable(s.GetTokens(ctx))
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	r.After = len(after)
	r.All = err == nil && r.After == 0
	if err != nil && r.After < r.Before {
		err = fmt.Errorf("%w: %w", errPartial, err)
	}
	return a.printRemoval(r, err)
}

func (a *app) remove(ctx context.Context, s *store, ids []string) error {
	r := removal{Store: a.storeName(), Before: len(ids), Removed: []string{}}
	a.announce("removing %s of %s", records(r.Before), clean(r.Store))
	var errs []error
	for _, id := range ids {
		if err := removeOne(ctx, s, id); err != nil {
			errs = append(errs, withoutToken(err, id, maybeToken))
			if bulk.Lasting(err) {
				break
			}
			continue
		}
		r.Removed = append(r.Removed, id)
		if !a.json {
			a.printf("removed %s\n", clean(id))
		}
	}
	r.After = r.Before - len(r.Removed)
	err := errors.Join(errs...)
	if err != nil && len(r.Removed) > 0 {
		err = fmt.Errorf("%w: removed %d of %d: %w", errPartial, len(r.Removed), len(ids), err)
	}
	return a.printRemoval(r, err)
}

// removeOne removes a record. A store says nothing if there is none; people want
// to know.
func removeOne(ctx context.Context, s *store, id string) error {
	if _, err := s.FindTokenByID(ctx, id); err != nil {
		return err
	}
	return s.DeleteToken(ctx, id)
}
