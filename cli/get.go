package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) getCommand() *cobra.Command {
	var (
		who    identity
		like   string
		reveal bool
	)
	c := &cobra.Command{
		Use:     "get [ID]",
		GroupID: groupRecords,
		Short:   "Show one record",
		Long: `Shows the record with an ID, the record of a user, or the record that a JSON object
describes. With --user, name also the client, and the issuer and resource if the record
has them.

  tokenkeep get u4fzq…
  tokenkeep get --user ann@example.com:6001 --client 1000.ABC
  tokenkeep get --user ann --client ABC --issuer https://login.example.com
  tokenkeep get --like search.json

Give the tokens of a search in a file or on standard input: arguments appear in the
process list and in the shell history. At a terminal, "tokenkeep get --like -" does not
show what the user types.

"tokenkeep help records" describes searches. "tokenkeep status ID" shows the
state of its refreshes.`,
		Args: mostOneID,
		RunE: func(c *cobra.Command, args []string) error {
			id := strings.Join(args, "")
			t, err := a.wanted(c.Context(), id, who, like)
			if err != nil {
				return err
			}
			return a.reading().withStore(c.Context(), func(s *store) error {
				find := s.find
				if like != "" {
					find = s.FindToken // the issuer comes from the file, not from a flag
				}
				t, err := find(c.Context(), t)
				if err != nil {
					return withoutToken(err, id, maybeToken)
				}
				return a.printRecord(t, reveal)
			})
		},
	}
	who.flags(c, "", ", with --user")
	c.Flags().StringVar(&like, "like", "", "a file with a JSON object that describes the record; - is standard input")
	revealFlag(c, &reveal)
	return c
}

// wanted returns a token with the fields by which get searches. The parameter like is the name of a
// file with the fields, or empty. If the flags contradict each other, the error is a usage error.
func (a *app) wanted(ctx context.Context, id string, who identity, like string) (tokenstore.Token, error) {
	switch {
	case howMany(id != "", who.user != "", like != "") != 1:
		return tokenstore.Token{}, usagef("get takes one of: an ID, --user, --like")
	case who.user == "" && who != identity{}:
		return tokenstore.Token{}, usagef("--client, --issuer and --resource require --user")
	case like != "":
		return a.readRecord(ctx, like)
	}
	t := who.token()
	t.ID = id
	return t, nil
}
