package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/internal/bulk"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// envClientSecret is the environment variable with the client's secret for the server that the
// flags name. In a revocation, the secret in the record takes precedence over this variable.
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
				return usagef("--dry-run and --yes cannot be used together")
			case dryRun:
				return a.reading().withStore(c.Context(), func(s *store) error { return a.wouldForget(c.Context(), s, w) })
			case !yes:
				return usagef("forget revokes and removes every record of the user: add --yes, or --dry-run to see which")
			}
			return a.changing().withStore(c.Context(), func(s *store) error { return a.forget(c.Context(), s, w) })
		},
	}
	c.Flags().StringVar(&w.user, "user", "", "the user's name")
	c.Flags().StringVar(&w.client, "client", "", "only records with this client ID")
	c.Flags().StringVar(&w.issuer, "issuer", "", "only records of this authorization server")
	c.Flags().StringVar(&w.accounts, "accounts-url", "", "accounts server of records that do not name theirs")
	c.Flags().StringVar(&w.endpoint, "revocation-endpoint", "", "revocation endpoint of records that do not name their server")
	c.Flags().BoolVar(&w.unrevoked, "delete-unrevoked", false, "also remove records whose tokens could not be revoked")
	c.Flags().BoolVar(&yes, "yes", false, "confirm that all records are removed")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}

const forgetHelp = `Revokes the tokens of all records of a user at the authorization server, removes the
records, and reports the outcome for each of them. It requires --yes; --dry-run prints
what would be done. The user's name must be complete.

The tokens of a record whose api_domain is Zoho's are revoked at the accounts server of
that data center, if the record has no issuer. For other records, name the server, and
select one client and one issuer:

  --accounts-url URL          of Zoho, or of a server that works like Zoho's
  --revocation-endpoint URL   of any other server (RFC 7009). The client's secret is the
                              record's, or else ` + envClientSecret + `

The refresh token is revoked or, if there is none, the access token. Most servers then
reject both. A token that the server does not know counts as revoked, so name only the
server that issued the token. One-time codes cannot be revoked.

No program of this module refreshes a record while its tokens are being revoked. If a
refresh is in progress, forget waits for it. Tokens that are stored meanwhile are also
revoked. A record whose tokens could not be revoked is kept, unless --delete-unrevoked is
given.

If lists of the service lag, as those of AWS do, a record of the last minutes may be
missed: --client finds it, with --issuer if the record has an issuer. A record whose labels
were removed with another program is missed too: 'tokenkeep doctor' reports it. An
unreadable record of the user is kept and reported. The copies that 'tokenkeep rm --help'
describes are useless after the tokens are revoked.`

// A wish holds the flags of forget: the records to forget, and their authorization server.
type wish struct {
	user, client       string
	issuer             string
	accounts, endpoint string
	unrevoked          bool
}

func (w *wish) check() error {
	if w.user == "" {
		return usagef("forget needs --user")
	}
	if w.accounts != "" && w.endpoint != "" {
		return usagef("--accounts-url and --revocation-endpoint cannot be used together")
	}
	for name, text := range map[string]*string{"accounts-url": &w.accounts, "revocation-endpoint": &w.endpoint} {
		if *text == "" {
			continue
		}
		e, err := scheme.ParseEndpoint(*text)
		if err != nil {
			return usagef("--%s: %w", name, err)
		}
		*text = e.URL.String()
	}
	return nil
}

// zohoOf returns the Zoho environment that the API domain of t names. It returns false for any
// other API domain, and for a record with an issuer, because any server can be the issuer.
func zohoOf(t tokenstore.Token) (initializer.Environment, bool) {
	if t.Issuer != "" {
		return initializer.Environment{}, false
	}
	return initializer.EnvironmentOf(t.APIDomain)
}

// server returns the configuration for the authorization server of t, and a copy of t. Unless the
// API domain of t selects the server, the copy has no API domain. server returns false if neither
// t nor the flags name the server.
func (a *app) server(w wish, t tokenstore.Token) (initializer.Config, tokenstore.Token, bool) {
	c := initializer.Config{HTTPClient: a.http, Issuer: cmp.Or(t.Issuer, initializer.NoIssuer)}
	env, zoho := zohoOf(t)
	if !zoho {
		t.APIDomain = "" // RevokeToken would refuse an API domain that does not belong to the named server
	}
	switch {
	case zoho:
		c.Environment = env
	case w.accounts != "":
		c.Environment = initializer.Environment{AccountsURL: w.accounts, APIURL: w.accounts}
	case w.endpoint != "":
		c.RevokeURL, c.Resource = w.endpoint, t.Resource
		// The token endpoint is required, but gets no requests here.
		c.OAuth2 = &oauth2.Config{ClientID: t.ClientID, ClientSecret: a.env(envClientSecret), Endpoint: oauth2.Endpoint{TokenURL: w.endpoint}}
	default:
		return c, t, false
	}
	return c, t, true
}

// hostOf returns the host of a record's authorization server for the report, or "" if the server
// is unknown.
func (a *app) hostOf(w wish, t tokenstore.Token) string {
	c, _, _ := a.server(w, t)
	u, err := url.Parse(c.Environment.AccountsURL + c.RevokeURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// wanted returns the records that w selects. The result unreadable is the error about unreadable
// records that may belong to the user or, if the store cannot search, about all unreadable records.
// If w names a client and the records come from a list of the store, wanted also searches for the
// record of the user and client, because a lagging list can omit the record.
func (w wish) wanted(ctx context.Context, s *store) (tokens []tokenstore.Token, unreadable, err error) {
	found, listed, unreadable, err := s.selected(ctx, tokenstore.Token{UserName: w.user, ClientID: w.client, Issuer: w.issuer})
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	add := func(t tokenstore.Token) {
		if !seen[t.ID] && t.UserName == w.user && (w.client == "" || t.ClientID == w.client) && (w.issuer == "" || t.Issuer == w.issuer) {
			seen[t.ID] = true
			tokens = append(tokens, t)
		}
	}
	for _, t := range found {
		add(t)
	}
	if w.client == "" || !listed {
		return tokens, unreadable, nil
	}
	t, err := s.FindToken(ctx, tokenstore.Token{UserName: w.user, ClientID: w.client, Issuer: w.issuer})
	switch {
	case err == nil:
		add(t)
	case errors.Is(err, tokenstore.ErrNotFound), errors.Is(err, tokenstore.ErrAmbiguous), errors.Is(err, tokenstore.ErrCorrupt):
	default:
		return nil, nil, err
	}
	return tokens, unreadable, nil
}

// plan returns the records that w selects. The error matches tokenstore.ErrNotFound if there are
// no such records. The error is a usage error if the server that the flags name would be used for
// records of several clients or issuers. The error is also a usage error if a server is unknown
// and w.unrevoked is false.
func (a *app) plan(ctx context.Context, s *store, w wish) (tokens []tokenstore.Token, unreadable, err error) {
	tokens, unreadable, err = w.wanted(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	if len(tokens) == 0 {
		return nil, nil, errors.Join(fmt.Errorf("%w: no record is of this user and client", tokenstore.ErrNotFound), leftAlone(unreadable))
	}
	strange := map[string]bool{} // clients and issuers of records that do not name their server
	for _, t := range tokens {
		_, zoho := zohoOf(t)
		_, _, known := a.server(w, t)
		switch {
		case zoho || !revocable(t):
		case known:
			strange[t.ClientID+" "+t.Issuer] = true
		case !w.unrevoked:
			return nil, nil, usagef("the authorization server of the record %s is unknown: give --accounts-url or --revocation-endpoint", clean(t.ID))
		}
	}
	if len(strange) > 1 {
		return nil, nil, usagef("the authorization servers of records of %d clients or issuers are unknown and may differ: give --client and --issuer", len(strange))
	}
	return tokens, unreadable, nil
}

func revocable(t tokenstore.Token) bool { return t.RefreshToken != "" || t.AccessToken != "" }

// forgetting is the outcome for the selected records of a user. With --json, the command prints
// this struct.
type forgetting struct {
	Store   string      `json:"store"`
	User    string      `json:"user"`
	DryRun  bool        `json:"dry_run"`
	Before  int         `json:"before"` // number of records to forget
	Records []forgotten `json:"records"`
	After   int         `json:"after"` // number of selected records that exist at the end
}

// forgotten is the outcome for one record.
type forgotten struct {
	ID      string `json:"id"`
	Client  string `json:"client_id"`
	Server  string `json:"server,omitempty"`
	Revoked bool   `json:"revoked"`
	Deleted bool   `json:"deleted"`
	Why     string `json:"why,omitempty"` // why the tokens were not revoked, or the record was not deleted
}

// nothingHeld is the reason in the report if a record has no token to revoke.
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
		err := a.forgetOne(ctx, s.TokenStore, w, t, &f)
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
		errs = append(errs, fmt.Errorf("%w: %s were added meanwhile", tokenstore.ErrConflict, records(r.After)))
	}
	err = errors.Join(problems(errs), leftAlone(unreadable))
	if err != nil && gone > 0 {
		err = fmt.Errorf("%w: forgot %d of %d: %w", errPartial, gone, r.Before, err)
	}
	return a.printForgetting(r, err)
}

// printForgetting prints the report. It returns err, joined with any error from printing.
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
