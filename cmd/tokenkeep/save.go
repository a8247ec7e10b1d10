package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) saveCommand() *cobra.Command {
	var (
		reveal             bool
		user, client, drop string
	)
	c := &cobra.Command{
		Use:     "save",
		GroupID: groupRecords,
		Short:   "Save a record from standard input",
		Long:    saveHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := a.readFile(c.Context(), "-", maxRecord)
			if err != nil {
				return err
			}
			t, err := parseSaved(data, a.now(), strings.Split(drop, ","))
			if err != nil {
				return err
			}
			if user != "" && t.UserName != "" && t.UserName != user || client != "" && t.ClientID != "" && t.ClientID != client {
				return usagef("standard input names another user or client than --user and --client")
			}
			t.UserName, t.ClientID = cmp.Or(t.UserName, user), cmp.Or(t.ClientID, client)
			return a.withStore(c.Context(), func(s *store) error { return a.save(c.Context(), s, t, reveal) })
		},
	}
	c.Flags().StringVar(&user, "user", "", "the user's name, if the record does not say it")
	c.Flags().StringVar(&client, "client", "", "the client's ID, if the record does not say it")
	c.Flags().StringVar(&drop, "drop", "", "`members` of the token that are not kept, such as scope,id_token")
	revealFlag(c, &reveal)
	return c
}

// saveHelp is the help on save.
const saveHelp = `Saves the record that standard input holds as a JSON object, and shows it as it is
stored. If there is a record of the same user and client, or with the same tokens,
what is given replaces what it has, and the rest stays.

  tokenkeep save < record.json
  tokenkeep get 7 --json --reveal | tokenkeep save --store vault:secret/oauth

"tokenkeep help records" tells how a record is written.

The JSON of a token of golang.org/x/oauth2, and the answer of a token endpoint, can be
saved too. They do not say whose the token is:

  tokenkeep save --user ann@example.com --client 1000.ABC < token.json

Besides access_token and refresh_token they have token_type, which has to be Bearer (or
Zoho-oauthtoken), and expiry, or expires_in in seconds from now. A record has no room for
other members, such as scope and id_token: they are an error unless --drop names them.`

func (a *app) save(ctx context.Context, s *store, t tokenstore.Token, reveal bool) error {
	saved, err := s.SaveToken(ctx, t)
	if err != nil {
		return withoutToken(err, t.ID, maybeToken)
	}
	return a.printRecord(saved, reveal)
}
