package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/internal/sdkid"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

func (a *app) lsCommand() *cobra.Command {
	var l listed
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		GroupID: groupRecords,
		Short:   "List the records",
		Long: `Lists all records, ordered by ID. Unreadable records are reported, and the others are
listed. --user, --client, --issuer and --resource select records with these values.

With --user or --client, the store is searched and not listed, and only unreadable records
that may match are reported. If lists of the service lag, as those of AWS do, recent
records may be missing. The record with exactly the given user, client, issuer and
resource is always listed.

--limit prints one page. If there are more records, a note says which --after prints the
next page. Each page reads all selected records.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.reading().withStore(c.Context(), func(s *store) error { return a.ls(c.Context(), s, l) })
		},
	}
	l.who.flags(c, ", to list only matching records", ", to list only matching records")
	c.Flags().IntVar(&l.limit, "limit", 0, "maximum number of records; 0 means all")
	c.Flags().StringVar(&l.after, "after", "", "list the records whose `ID` comes after this one")
	c.Flags().BoolVar(&l.reveal, "reveal", false, "show secrets; requires --json")
	return c
}

// listed holds the flags of ls.
type listed struct {
	who    identity
	limit  int
	after  string
	reveal bool
}

// page returns the records that the flags select, and reports whether more records follow.
// tokens must be ordered by ID. page overwrites the elements of tokens.
func (l listed) page(tokens []tokenstore.Token) (page []tokenstore.Token, more bool) {
	want := l.who
	tokens = slices.DeleteFunc(tokens, func(t tokenstore.Token) bool {
		return want.user != "" && t.UserName != want.user || want.client != "" && t.ClientID != want.client ||
			want.issuer != "" && t.Issuer != want.issuer || want.resource != "" && t.Resource != want.resource ||
			l.after != "" && sdkid.Compare(t.ID, l.after) <= 0
	})
	if l.limit == 0 || len(tokens) <= l.limit {
		return tokens, false
	}
	return tokens[:l.limit], true
}

func (a *app) ls(ctx context.Context, s *store, l listed) error {
	if l.limit < 0 {
		return usagef("--limit is negative")
	}
	if l.reveal && !a.json {
		return usagef("ls shows secrets with --json only; 'tokenkeep get ID --reveal' shows those of one record")
	}
	tokens, all, err, failed := s.selected(ctx, l.who.token())
	if failed != nil {
		return failed
	}
	if all && len(tokens) == 0 {
		a.noteKeys(s, err)
	}
	slices.SortFunc(tokens, func(a, b tokenstore.Token) int { return sdkid.Compare(a.ID, b.ID) })
	tokens, more := l.page(tokens)
	if more {
		a.note("there are more records: the next page is --after %s", clean(tokens[len(tokens)-1].ID))
	}
	if a.json {
		records := make([]recordJSON, 0, len(tokens))
		for _, t := range tokens {
			records = append(records, toJSON(t, l.reveal))
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

func (a *app) listing(tokens []tokenstore.Token) *table {
	t := &table{}
	// Omit columns that would be empty: records of the SDKs have no issuer or resource.
	issued := slices.ContainsFunc(tokens, func(r tokenstore.Token) bool { return r.Issuer != "" || r.Resource != "" })
	row := func(id, user, client, issuer, resource, tokens, expires string) {
		cells := []string{id, user, client}
		if issued {
			cells = append(cells, issuer, resource)
		}
		t.row(append(cells, tokens, expires)...)
	}
	row("ID", "USER", "CLIENT", "ISSUER", "RESOURCE", "TOKENS", "EXPIRES")
	now := a.now()
	for _, r := range tokens {
		row(clean(r.ID), orDash(r.UserName), orDash(shorten(r.ClientID)), orDash(r.Issuer), orDash(r.Resource), orDash(kinds(r)), relative(r.ExpiresAt, now))
	}
	return t
}

// kinds returns the kinds of tokens in a record, separated by spaces.
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
