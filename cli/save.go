package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
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
		Use:     "save [-]",
		GroupID: groupRecords,
		Short:   "Save a record from standard input",
		Long:    saveHelp,
		Args: func(c *cobra.Command, args []string) error {
			if slices.Equal(args, []string{"-"}) {
				return nil
			}
			return noArgs(c, args)
		},
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := a.readInput(c.Context(), maxRecord, typedRecord)
			if err != nil {
				return err
			}
			if len(bytes.TrimSpace(data)) == 0 {
				return usagef("standard input is empty; save reads a record from it, as JSON")
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
record. An argument "-" means standard input too. If a record has the same user, client,
issuer and resource, or the same tokens, the given fields replace its fields, and the
others stay. A record without a user that has the same tokens and client gets the user.
At a terminal, save asks for the record, and does not show what the user types. The last
brace or Ctrl-D ends the record.

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
	given := t.ID
	if t.ID == "" && t.UserName != "" {
		id, err := a.unclaimed(ctx, s, t)
		if err != nil {
			return withoutToken(err, given, maybeToken)
		}
		t.ID = id
	}
	saved, err := s.SaveToken(ctx, t)
	if given != t.ID && (errors.Is(err, tokenstore.ErrInvalidToken) || errors.Is(err, tokenstore.ErrIDMismatch)) {
		// Another process deleted the record meanwhile, or gave the record to another user.
		t.ID = given
		saved, err = s.SaveToken(ctx, t)
	}
	if err != nil {
		return withoutToken(err, given, maybeToken)
	}
	return a.printRecord(saved, reveal)
}

// unclaimed returns the ID of a record without a user that has either the access token of t, or the
// client and refresh token of t. It returns "" if there is no such record. Saving t with this ID
// gives the record to the user of t, instead of creating a second record (TS-20 in package
// tokenstore). If the record has another client, issuer or resource, unclaimed prints a note and
// returns "". If several records match, unclaimed returns "".
func (a *app) unclaimed(ctx context.Context, s *store, t tokenstore.Token) (id string, err error) {
	byRefresh := tokenstore.Token{ClientID: t.ClientID, Issuer: t.Issuer, Resource: t.Resource, RefreshToken: t.RefreshToken}
	for _, like := range []tokenstore.Token{{AccessToken: t.AccessToken}, byRefresh} {
		if like.AccessToken == "" && (like.RefreshToken == "" || like.ClientID == "") {
			continue
		}
		found, err := s.FindToken(ctx, like)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound), errors.Is(err, tokenstore.ErrAmbiguous), errors.Is(err, tokenstore.ErrDenied):
			continue // a save needs no permission to search
		case err != nil:
			return "", err
		case found.UserName != "":
			return "", nil
		case !settable(found.ClientID, t.ClientID), !settable(found.Issuer, t.Issuer), !settable(found.Resource, t.Resource):
			a.note("the record %s without a user has the same token, and another client, issuer or resource: 'tokenkeep get %s' shows it", clean(found.ID), clean(found.ID))
			return "", nil
		}
		return found.ID, nil
	}
	return "", nil
}

// settable reports whether a save may set a client, issuer or resource to the given value. The
// parameter field is the current value.
func settable(field, value string) bool { return field == "" || field == value }
