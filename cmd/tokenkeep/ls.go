package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) lsCommand() *cobra.Command {
	var reveal bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		GroupID: groupRecords,
		Short:   "List the records",
		Long: `Lists all records, ordered by ID. Those that cannot be read are reported, and the
others are listed all the same.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.reading().withStore(c.Context(), func(s *store) error { return a.ls(c.Context(), s, reveal) })
		},
	}
	c.Flags().BoolVar(&reveal, "reveal", false, "show secrets; goes with --json")
	return c
}

func (a *app) ls(ctx context.Context, s *store, reveal bool) error {
	if reveal && !a.json {
		return usagef("ls shows secrets with --json only; 'tokenkeep get ID --reveal' shows those of one record")
	}
	tokens, err := s.GetTokens(ctx)
	if _, _, unread := bulk.Readable(tokens, err); unread != nil {
		return unread
	}
	slices.SortFunc(tokens, func(a, b tokenstore.Token) int { return sdkid.Compare(a.ID, b.ID) })
	if a.json {
		records := make([]recordJSON, 0, len(tokens))
		for _, t := range tokens {
			records = append(records, toJSON(t, reveal))
		}
		return errors.Join(err, a.printJSON(records))
	}
	if len(tokens) == 0 {
		if err == nil {
			a.note("there are no records")
		}
		return err
	}
	a.printf("%s", a.listing(tokens).String())
	return err
}

// listing returns the records as a table for people.
func (a *app) listing(tokens []tokenstore.Token) *table {
	t := &table{}
	t.row("ID", "USER", "CLIENT", "TOKENS", "EXPIRES")
	now := a.now()
	for _, r := range tokens {
		t.row(clean(r.ID), orDash(r.UserName), orDash(shorten(r.ClientID)), orDash(kinds(r)), relative(r.ExpiresAt, now))
	}
	return t
}

// kinds returns which tokens a record has.
func kinds(t tokenstore.Token) string {
	var have []string
	for _, k := range []struct {
		name   string
		secret tokenstore.Secret
	}{{"access", t.AccessToken}, {"refresh", t.RefreshToken}, {"grant", t.GrantToken}} {
		if k.secret != "" {
			have = append(have, k.name)
		}
	}
	return strings.Join(have, " ")
}
