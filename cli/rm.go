package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) rmCommand() *cobra.Command {
	var all, yes, dryRun bool
	var who identity
	c := &cobra.Command{
		Use:     "rm [ID...]",
		GroupID: groupRecords,
		Short:   "Remove records",
		Long: `Removes the records with the given IDs, the record of a user, or all records, and prints
the store and the number of records. This program cannot restore them. --dry-run prints
what would be removed.

A record is removed from the store and, with SQLite, from the database file. It remains
in backups and snapshots, in the binary and undo logs of MySQL until they are purged, and
at Google Cloud until its delayed destruction. If that matters, revoke the tokens:
"tokenkeep forget" does that, and removes the records.`,
		RunE: func(c *cobra.Command, ids []string) error {
			switch {
			case who.user == "" && who != identity{}:
				return usagef("--client, --issuer and --resource require --user")
			case howMany(all, len(ids) > 0, who.user != "") != 1:
				return usagef("rm takes one of: IDs, or --all, or --user")
			case dryRun && yes:
				return usagef("--dry-run and --yes cannot be used together")
			case all && !yes && !dryRun:
				return usagef("rm --all removes every record of the store: add --yes, or --dry-run to see how many")
			}
			on := a.changing()
			if dryRun {
				on = a.reading()
			}
			return on.withStore(c.Context(), func(s *store) error {
				if who.user == "" {
					return a.rm(c.Context(), s, ids, all, dryRun)
				}
				t, err := s.find(c.Context(), who.token())
				if err != nil {
					return err
				}
				return a.rm(c.Context(), s, []string{t.ID}, false, dryRun)
			})
		},
	}
	who.flags(c, "", ", with --user")
	c.Flags().BoolVar(&all, "all", false, "remove all records")
	c.Flags().BoolVar(&yes, "yes", false, "confirm that all records are removed")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	return c
}

func (a *app) rm(ctx context.Context, s *store, ids []string, all, dryRun bool) error {
	seen := map[string]bool{}
	ids = slices.DeleteFunc(ids, func(id string) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
	switch {
	case dryRun:
		return a.wouldRemove(ctx, s, ids)
	case all:
		return a.removeAll(ctx, s)
	}
	return a.remove(ctx, s, ids)
}

// A removal is the outcome of rm. With --json, the command prints this struct.
type removal struct {
	Store   string   `json:"store"`
	DryRun  bool     `json:"dry_run"`
	Before  int      `json:"before"`            // number of records to remove; an ID that has no record does not count
	Removed []string `json:"removed,omitempty"` // the IDs of removed records, if IDs were given
	All     bool     `json:"removed_all,omitempty"`
	After   int      `json:"after"` // how many of the records to remove still exist
}

// printRemoval prints the report. It returns err, joined with any error from printing.
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

// copiesStay is the remark about copies of tokens that rm does not remove.
const copiesStay = "backups, snapshots and logs may still hold the tokens: see 'tokenkeep rm --help'"

// wouldRemove prints how many of the records with the given IDs exist. Without IDs, it prints
// the number of all records.
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
	found, unknown, errs := present(ctx, s, ids)
	r.Before = len(found) + unknown
	r.After = r.Before
	return a.printRemoval(r, errors.Join(errs...))
}

// leftAlone returns the error for an operation that skipped unreadable records, or nil if
// unreadable is nil.
func leftAlone(unreadable error) error {
	if unreadable == nil {
		return nil
	}
	return fmt.Errorf("unreadable records were skipped: %w", unreadable)
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
	found, unknown, errs := present(ctx, s, ids)
	r := removal{Store: a.storeName(), Before: len(found) + unknown, Removed: []string{}}
	if len(found) > 0 {
		a.announce("removing %s of %s", records(len(found)), clean(r.Store))
	}
	for _, id := range found {
		if err := s.DeleteToken(ctx, id); err != nil {
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
	switch {
	case len(found) == 0 && !a.json:
		return err // there is nothing else to report
	case err != nil && len(r.Removed) > 0:
		err = fmt.Errorf("%w: removed %d of %d: %w", errPartial, len(r.Removed), len(ids), err)
	}
	return a.printRemoval(r, err)
}

// present returns one of the given IDs for each record that the IDs identify. For each ID without a
// record, present returns an error, because DeleteToken returns none. The result unknown is the
// number of IDs that may have a record: their look-ups failed, or were skipped after an error that
// concerns the whole store.
func present(ctx context.Context, s *store, ids []string) (found []string, unknown int, errs []error) {
	seen := map[string]bool{}
	for i, id := range ids {
		t, err := s.FindTokenByID(ctx, id)
		if err != nil {
			errs = append(errs, withoutToken(err, id, maybeToken))
			if !errors.Is(err, tokenstore.ErrNotFound) {
				unknown++
			}
			if of := (*tokenstore.UnreadableError)(nil); bulk.Lasting(err) && !errors.As(err, &of) {
				unknown += len(ids) - i - 1
				break
			}
			continue
		}
		if !seen[t.ID] {
			found = append(found, id)
		}
		seen[t.ID] = true
	}
	return found, unknown, errs
}
