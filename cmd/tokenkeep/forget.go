package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// envClientSecret is the secret with which a client authenticates at a revocation
// endpoint, where the records do not have it.
const envClientSecret = "TOKENKEEP_CLIENT_SECRET"

func (a *app) forgetCommand() *cobra.Command {
	var w wish
	var yes, dryRun bool
	c := &cobra.Command{
		Use:     "forget --user USER",
		GroupID: groupRecords,
		Short:   "Revoke and remove the records of a user",
		Long:    forgetHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := w.check(); err != nil {
				return err
			}
			switch {
			case dryRun && yes:
				return usagef("--dry-run and --yes do not go together")
			case dryRun:
				return a.reading().withStore(c.Context(), func(s *store) error { return a.wouldForget(c.Context(), s, w) })
			case !yes:
				return usagef("forget revokes and removes every record of the user: say --yes too, or --dry-run to see which")
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.forget(c.Context(), s, w) })
		},
	}
	c.Flags().StringVar(&w.user, "user", "", "the user's name")
	c.Flags().StringVar(&w.client, "client", "", "the client's ID: the records of no other client")
	c.Flags().StringVar(&w.accounts, "accounts-url", "", "accounts server of records that do not tell it")
	c.Flags().StringVar(&w.endpoint, "revocation-endpoint", "", "revocation endpoint of records that do not tell the server")
	c.Flags().BoolVar(&w.unrevoked, "delete-unrevoked", false, "remove records too whose tokens could not be revoked")
	c.Flags().BoolVar(&yes, "yes", false, "yes, all of them")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}

// forgetHelp is the help on forget.
const forgetHelp = `Revokes the tokens of all records of a user at the authorization server, then removes
the records, and says of each what became of it. It needs --yes; --dry-run says what
would be done. The user's name has to be the whole one.

A record whose api_domain is Zoho's is revoked at the accounts server of that data
centre. For the others, of one client at a time, name the server:

  --accounts-url URL          of Zoho, or one that works like it
  --revocation-endpoint URL   of any other server (RFC 7009). The client's secret is the
                              record's, or else ` + envClientSecret + `

The refresh token is revoked; the access token is where there is no other. Most servers
end both. A token that the server does not know counts as revoked, so do not name another
server than the one that issued it. One-time codes cannot be revoked.

No program of this module refreshes a record while it is revoked. A refresh that was under
way is waited for, and the tokens that it brought are revoked too; so are those of a save
that comes in between. A record whose tokens could not be revoked is kept, unless
--delete-unrevoked is given.

The whole store is read. Where that lags behind, as on AWS, a record of the last minutes
may be missed: --client finds it. Of the copies that 'tokenkeep rm --help' tells of, none
is of use once the tokens are revoked.`

// A wish says what is to be forgotten.
type wish struct {
	user, client       string
	accounts, endpoint string
	unrevoked          bool
}

func (w *wish) check() error {
	if w.user == "" {
		return usagef("forget needs --user")
	}
	if w.accounts != "" && w.endpoint != "" {
		return usagef("--accounts-url and --revocation-endpoint do not go together")
	}
	for name, text := range map[string]*string{"accounts-url": &w.accounts, "revocation-endpoint": &w.endpoint} {
		if *text == "" {
			continue
		}
		e, err := parseEndpoint(*text)
		if err != nil {
			return usagef("--%s: %w", name, err)
		}
		*text = e.url.String()
	}
	return nil
}

// server returns the authorization server of a record, and the record as that is to see
// it; false if it is not known.
func (a *app) server(w wish, t tokenstore.Token) (initializer.Config, tokenstore.Token, bool) {
	c := initializer.Config{HTTPClient: a.http}
	env, zoho := initializer.EnvironmentOf(t.APIDomain)
	if !zoho {
		t.APIDomain = "" // of another server: it says nothing here
	}
	switch {
	case zoho:
		c.Environment = env
	case w.accounts != "":
		c.Environment = initializer.Environment{AccountsURL: w.accounts, APIURL: w.accounts}
	case w.endpoint != "":
		c.RevokeURL = w.endpoint
		// Nothing is asked at the token endpoint, which a Config has to have.
		c.OAuth2 = &oauth2.Config{ClientID: t.ClientID, ClientSecret: a.env(envClientSecret), Endpoint: oauth2.Endpoint{TokenURL: w.endpoint}}
	default:
		return c, t, false
	}
	return c, t, true
}

// hostOf returns the server of a record as the report names it.
func (a *app) hostOf(w wish, t tokenstore.Token) string {
	c, _, _ := a.server(w, t)
	u, err := url.Parse(c.Environment.AccountsURL + c.RevokeURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// wanted returns the records that are to be forgotten, ordered by ID, and the error
// about those that cannot be read.
func (w wish) wanted(ctx context.Context, s *store) (tokens []tokenstore.Token, unreadable, err error) {
	all, unreadable, err := bulk.Readable(s.GetTokens(ctx))
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	add := func(t tokenstore.Token) {
		if !seen[t.ID] && t.UserName == w.user && (w.client == "" || t.ClientID == w.client) {
			seen[t.ID] = true
			tokens = append(tokens, t)
		}
	}
	for _, t := range all {
		add(t)
	}
	if w.client == "" {
		return tokens, unreadable, nil
	}
	t, err := s.FindToken(ctx, tokenstore.Token{UserName: w.user, ClientID: w.client})
	switch {
	case err == nil:
		add(t)
	case errors.Is(err, tokenstore.ErrNotFound), errors.Is(err, tokenstore.ErrAmbiguous), errors.Is(err, tokenstore.ErrCorrupt):
	default:
		return nil, nil, err
	}
	return tokens, unreadable, nil
}

// plan returns the records that are to be forgotten. Before anything is done it is
// certain that the server of each is known, and that none is sent another's token.
func (a *app) plan(ctx context.Context, s *store, w wish) (tokens []tokenstore.Token, unreadable, err error) {
	tokens, unreadable, err = w.wanted(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	if len(tokens) == 0 {
		return nil, nil, errors.Join(fmt.Errorf("%w: no record is of this user and client", tokenstore.ErrNotFound), leftAlone(unreadable))
	}
	strange := map[string]bool{} // clients of records that do not tell the server
	for _, t := range tokens {
		_, zoho := initializer.EnvironmentOf(t.APIDomain)
		_, _, known := a.server(w, t)
		switch {
		case zoho || !revocable(t):
		case known:
			strange[t.ClientID] = true
		case !w.unrevoked:
			return nil, nil, usagef("the record %s does not tell its authorization server: give --accounts-url or --revocation-endpoint", clean(t.ID))
		}
	}
	if len(strange) > 1 {
		return nil, nil, usagef("%d clients have records that do not tell their authorization server, which may be different ones: give --client", len(strange))
	}
	return tokens, unreadable, nil
}

// revocable reports whether a record holds a token that can be revoked.
func revocable(t tokenstore.Token) bool { return t.RefreshToken != "" || t.AccessToken != "" }

// A forgetting is what became of the records of a user. With --json it is printed as it
// is here.
type forgetting struct {
	Store   string      `json:"store"`
	User    string      `json:"user"`
	DryRun  bool        `json:"dry_run"`
	Before  int         `json:"before"` // records that were to be forgotten
	Records []forgotten `json:"records"`
	After   int         `json:"after"` // those of the user that are there
}

// A forgotten record is what became of one.
type forgotten struct {
	ID      string `json:"id"`
	Client  string `json:"client_id"`
	Server  string `json:"server,omitempty"`
	Revoked bool   `json:"revoked"`
	Deleted bool   `json:"deleted"`
	Why     string `json:"why,omitempty"` // if it is not both
}

// nothingHeld says why a record was not revoked, and need not be.
const nothingHeld = "it holds nothing that can be revoked"

func (a *app) wouldForget(ctx context.Context, s *store, w wish) error {
	tokens, unreadable, err := a.plan(ctx, s, w)
	if err != nil {
		return err
	}
	r := forgetting{Store: a.storeName(), User: w.user, DryRun: true, Before: len(tokens), After: len(tokens)}
	for _, t := range tokens {
		f := forgotten{ID: t.ID, Client: t.ClientID, Server: a.hostOf(w, t)}
		if !revocable(t) {
			f.Why = nothingHeld
		}
		r.Records = append(r.Records, f)
	}
	return a.printForgetting(r, leftAlone(unreadable))
}

func (a *app) forget(ctx context.Context, s *store, w wish) error {
	from, ok := s.TokenStore.(forgettable)
	if !ok {
		return errors.New("the store cannot remove a record on a condition")
	}
	tokens, unreadable, err := a.plan(ctx, s, w)
	if err != nil {
		return err
	}
	r := forgetting{Store: a.storeName(), User: w.user, Before: len(tokens)}
	a.announce("forgetting %s of %s", records(r.Before), clean(r.Store))
	var errs []error
	gone := 0
	for _, t := range tokens {
		f := forgotten{ID: t.ID, Client: t.ClientID, Server: a.hostOf(w, t)}
		err := a.forgetOne(ctx, from, w, t, &f)
		if err != nil {
			f.Why = textOf(err)
			errs = append(errs, fmt.Errorf("%s: %w", clean(t.ID), err))
		}
		if f.Deleted {
			gone++
		}
		r.Records = append(r.Records, f)
		if ctx.Err() != nil || err != nil && !errors.Is(err, errNotRevoked) && bulk.Lasting(err) {
			break
		}
	}
	r.After = r.Before - gone
	if after, _, err := w.wanted(ctx, s); err != nil {
		errs = append(errs, err)
	} else if r.After = len(after); len(errs) == 0 && r.After > 0 {
		errs = append(errs, fmt.Errorf("%w: %s came meanwhile", tokenstore.ErrConflict, records(r.After)))
	}
	err = errors.Join(problems(errs), leftAlone(unreadable))
	if err != nil && gone > 0 {
		err = fmt.Errorf("%w: forgot %d of %d: %w", errPartial, gone, r.Before, err)
	}
	return a.printForgetting(r, err)
}

// printForgetting writes the report to standard output. err is returned, unless writing
// fails.
func (a *app) printForgetting(r forgetting, err error) error {
	if a.json {
		return errors.Join(err, a.printJSON(r))
	}
	rows := table{}
	for _, f := range r.Records {
		rows.row(clean(f.ID), orDash(f.Client), f.text(r.DryRun))
	}
	a.printf("%s", rows.String())
	if r.DryRun {
		a.printf("%s of %s would be forgotten\n", records(r.Before), clean(r.Store))
		return err
	}
	a.printf("%s of the user in %s before, %d after\n", records(r.Before), clean(r.Store), r.After)
	return err
}

// text returns what became of a record, for people.
func (f forgotten) text(dryRun bool) string {
	at := ""
	if f.Server != "" {
		at = " at " + clean(f.Server)
	}
	switch {
	case dryRun && f.Why == "" && f.Server == "":
		return "would be deleted without being revoked"
	case dryRun && f.Why == "":
		return "would be revoked" + at + ", and deleted"
	case f.Revoked && f.Deleted:
		return "revoked" + at + ", deleted"
	case f.Revoked:
		return "revoked" + at + ", not deleted: " + clean(f.Why)
	case f.Deleted:
		return "deleted, not revoked: " + clean(f.Why)
	}
	return "kept: " + clean(f.Why)
}
