package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) saveCommand() *cobra.Command {
	var reveal bool
	c := &cobra.Command{
		Use:     "save",
		GroupID: groupRecords,
		Short:   "Save a record from standard input",
		Long: `Saves the record that standard input holds as a JSON object, and shows it as it is
stored. If there is a record of the same user and client, or with the same tokens,
what is given replaces what it has, and the rest stays.

  tokenkeep save < record.json
  tokenkeep get 7 --json --reveal | tokenkeep save --store vault:secret/oauth

"tokenkeep help records" tells how a record is written.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.readRecord(c.Context(), "-")
			if err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s *store) error { return a.save(c.Context(), s, t, reveal) })
		},
	}
	revealFlag(c, &reveal)
	return c
}

func (a *app) save(ctx context.Context, s *store, t tokenstore.Token, reveal bool) error {
	saved, err := s.SaveToken(ctx, t)
	if err != nil {
		return withoutToken(err, t.ID, maybeToken)
	}
	return a.printRecord(saved, reveal)
}
