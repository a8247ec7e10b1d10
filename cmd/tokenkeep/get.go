package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) getCommand() *cobra.Command {
	var (
		user, client, like string
		reveal             bool
	)
	c := &cobra.Command{
		Use:     "get [ID]",
		GroupID: groupRecords,
		Short:   "Show one record",
		Long: `Shows the record with an ID, of a user, or that a JSON object describes. Tokens to
search by come from standard input or a file, so that they are not in the list of
processes or the history of a shell:

  tokenkeep get u4fzq…
  tokenkeep get --user ann@example.com:6001 --client 1000.ABC
  tokenkeep get --like - <<< '{"access_token":"…"}'

"tokenkeep help records" tells what can be searched for.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s takes one ID, and %d are given", nameOf(c), len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			id := ""
			if len(args) > 0 {
				id = args[0]
			}
			t, err := a.wanted(c.Context(), id, user, client, like)
			if err != nil {
				return err
			}
			return a.reading().withStore(c.Context(), func(s *store) error { return a.get(c.Context(), s, t, reveal) })
		},
	}
	c.Flags().StringVar(&user, "user", "", "the user's name")
	c.Flags().StringVar(&client, "client", "", "the client's ID, with --user")
	c.Flags().StringVar(&like, "like", "", "a file with a JSON object that describes the record; - is standard input")
	revealFlag(c, &reveal)
	return c
}

// wanted returns the token that the arguments of get describe.
func (a *app) wanted(ctx context.Context, id, user, client, like string) (tokenstore.Token, error) {
	ways := 0
	for _, way := range []string{id, user, like} {
		if way != "" {
			ways++
		}
	}
	switch {
	case ways != 1:
		return tokenstore.Token{}, usagef("get takes one of: an ID, --user, --like")
	case client != "" && user == "":
		return tokenstore.Token{}, usagef("--client goes with --user")
	case like != "":
		return a.readRecord(ctx, like)
	}
	return tokenstore.Token{ID: id, UserName: user, ClientID: client}, nil
}

func (a *app) get(ctx context.Context, s *store, like tokenstore.Token, reveal bool) error {
	t, err := s.FindToken(ctx, like)
	if err != nil {
		return withoutToken(err, like.ID, maybeToken)
	}
	return a.printRecord(t, reveal)
}
