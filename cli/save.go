package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) saveCommand() *cobra.Command {
	var (
		reveal bool
		who    identity
		drop   string
	)
	c := &cobra.Command{
		Use:     "save",
		GroupID: groupRecords,
		Short:   "Save a record from standard input",
		Long:    saveHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a.noteTyping()
			data, err := a.readFile(c.Context(), "-", maxRecord)
			if err != nil {
				return err
			}
			t, err := parseSaved(data, a.now(), strings.Split(drop, ","))
			if err == nil {
				t, err = who.complete(t)
			}
			if err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s *store) error { return a.save(c.Context(), s, t, reveal) })
		},
	}
	who.flags(c, ", if the record does not say it", ", if the record does not say it")
	c.Flags().StringVar(&drop, "drop", "", "leave out these `members`, such as scope,id_token")
	revealFlag(c, &reveal)
	return c
}

const saveHelp = `Reads a record from standard input as a JSON object, saves it, and prints the stored
record. If a record has the same user, client, issuer and resource, or the same tokens,
the given fields replace its fields, and the others stay.

  tokenkeep save < record.json
  tokenkeep get 7 --json --reveal | tokenkeep save --store vault:secret/oauth

"tokenkeep help records" describes the JSON of a record.

The JSON of a golang.org/x/oauth2 token, or the response of a token endpoint, can be
saved too. They do not contain the user and the server, which flags then name:

  tokenkeep save --user ann --client ABC --issuer https://login.example.com < token.json

Besides the tokens they have token_type, scope, id_token, and expiry, or expires_in in
seconds from now. All other members are stored in the member extra of the record, unless
--drop names them. JSON counts as a token if it has token_type, scope, id_token, expiry or
expires_in, but no member that only records have, such as user_name.`

func (a *app) save(ctx context.Context, s *store, t tokenstore.Token, reveal bool) error {
	saved, err := s.SaveToken(ctx, t)
	if err != nil {
		return withoutToken(err, t.ID, maybeToken)
	}
	return a.printRecord(saved, reveal)
}
