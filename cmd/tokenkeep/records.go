package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// revealFlag adds --reveal to a command.
func revealFlag(c *cobra.Command, reveal *bool) {
	c.Flags().BoolVar(reveal, "reveal", false, "show secrets")
}

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

// readRecord reads a record from a file; "-" is standard input.
func (a *app) readRecord(ctx context.Context, name string) (tokenstore.Token, error) {
	data, err := a.readFile(ctx, name, maxRecord)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return parseRecord(data)
}

// readFile reads a file, or standard input if the name is "-".
func (a *app) readFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if name == "-" {
		return readAll(ctx, a.in, limit)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, withoutToken(err, name, maybeTokenFile)
	}
	defer func() { _ = f.Close() }()
	data, err := readAll(ctx, f, limit)
	return data, withoutToken(err, name, maybeTokenFile)
}

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
