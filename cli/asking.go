package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// asking holds the ID and the flags that select records, and the flags that name the authorization
// server of the records.
type asking struct {
	id, user, client string
	issuer, resource string
	server           authServer
}

// flags adds the flags to c, a command that also takes an ID.
func (f *asking) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.user, "user", "", "the user's name")
	f.server.flags(c)
	c.Flags().Lookup("client").Usage = "the client's ID"
	c.Flags().StringVar(&f.issuer, "issuer", "", "the issuer of the record, if it is not --token-url")
	c.Flags().StringVar(&f.resource, "resource", "", "the API for which the token is")
}

// mostOneID returns an error if there is more than one argument.
func mostOneID(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one ID, and %d are given", nameOf(c), len(args))
	}
	return nil
}

// settle copies the client ID to f.client, which selects records. Without --token-url, it clears
// f.server.client. The caller must have parsed the flags.
func (f *asking) settle() {
	f.client = f.server.client
	if f.server.tokenURL == "" {
		f.server.client = "" // without --token-url, --client only selects records
	}
}

// check calls settle. It returns a usage error unless exactly one of an ID and --user is given.
func (f *asking) check(command string) error {
	f.settle()
	if (f.id == "") == (f.user == "") {
		return usagef("%s takes one of: an ID, --user", command)
	}
	return nil
}

// find returns the record that the flags select. With --user and --token-url, but without
// --issuer, find first searches for a record with the issuer of that URL. If there is none, find
// searches with an empty issuer.
func (f *asking) find(ctx context.Context, s *store) (t tokenstore.Token, err error) {
	like := tokenstore.Token{ID: f.id, UserName: f.user, ClientID: f.client, Issuer: f.issuer, Resource: f.resource}
	if f.issuer == "" && f.user != "" && f.server.tokenURL != "" {
		like.Issuer = initializer.IssuerOf(f.server.tokenURL)
		t, err = s.FindToken(ctx, like)
		if !errors.Is(err, tokenstore.ErrNotFound) {
			return t, err
		}
		like.Issuer = ""
	}
	return s.find(ctx, like)
}

// of returns the configuration for the authorization server of t. The server is the one that the
// flags name, or else the token endpoint in t.Issuer, or else the Zoho server of t's API domain.
// The client's secret in the environment is used only for a server or an issuer that the flags
// name. The error is a usage error if the flags are invalid or the server is unknown. Without
// --issuer, the error is also a usage error if t has an issuer that differs from the server's
// issuer.
func (f *asking) of(a *app, t tokenstore.Token) (initializer.Config, error) {
	if server := f.serverOf(t); server.given() {
		c, err := server.config(a)
		c.Issuer = cmp.Or(t.Issuer, initializer.NoIssuer)
		if c.OAuth2 != nil {
			c.Resource = t.Resource
		}
		if !f.server.given() && f.issuer == "" && c.OAuth2 != nil {
			// The secret in the environment is for a server that the user named. A program that can
			// write the record could name another server.
			c.OAuth2.ClientSecret = string(t.ClientSecret)
		}
		if err == nil && t.Issuer != "" && f.issuer == "" && t.Issuer != initializer.IssuerOf(server.tokenURL) {
			err = usagef("the record is of the issuer %s: give --issuer too, if that is the server that you name", clean(t.Issuer))
		}
		return c, err
	}
	env, zoho := zohoOf(t)
	switch {
	case !zoho && t.Issuer != "":
		return initializer.Config{}, usagef("the token endpoint of the issuer %s is unknown: give --token-url, and --issuer too", clean(t.Issuer))
	case !zoho:
		return initializer.Config{}, usagef("the authorization server of the record is unknown: give --data-center, --accounts-url or --token-url")
	}
	return initializer.Config{Environment: env, HTTPClient: a.http}, nil
}

// serverOf returns the server that the flags name for t, with the client of t if the flags name no
// client. If the flags select one record but name no server, the server is at t.Issuer, provided
// that t has a client and the issuer is a token endpoint.
func (f *asking) serverOf(t tokenstore.Token) authServer {
	s := f.server
	// The flags must select one record. Otherwise, a run of keep would send requests to the
	// issuers of all records.
	if !s.given() && f.id+f.user != "" && t.ClientID != "" && isEndpoint(t.Issuer) {
		s.tokenURL = t.Issuer
	}
	if s.tokenURL != "" && s.client == "" {
		s.client = t.ClientID
	}
	return s
}

// isEndpoint reports whether an issuer looks like a token endpoint: a URL whose path ends in token
// or access_token, in the form that initializer.IssuerOf returns.
func isEndpoint(issuer string) bool {
	e, err := scheme.ParseEndpoint(issuer)
	if err != nil || initializer.IssuerOf(issuer) != issuer || e.URL.String() != issuer {
		return false
	}
	_, last := path.Split(e.URL.Path)
	return last == "token" || last == "access_token"
}

// renewed replaces the access token of t, and returns the record. If another process already
// replaced the token with a valid one, renewed sends no request to the authorization server. The
// parameter c is the configuration for that server.
func (a *app) renewed(ctx context.Context, s *store, c initializer.Config, t tokenstore.Token) (tokenstore.Token, error) {
	c.Store, c.Token, c.Now = s.TokenStore, tokenstore.Token{ID: t.ID}, a.now
	client, err := initializer.New(ctx, c)
	if client == nil {
		return tokenstore.Token{}, err
	}
	fresh, err := client.Token(ctx)
	if err == nil && fresh.AccessToken == t.AccessToken {
		return client.Rejected(ctx, t.AccessToken)
	}
	return fresh, err
}
