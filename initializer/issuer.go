package initializer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// identify completes Issuer and Resource in c and c.Token. Together with the user and the client,
// Issuer and Resource identify a record. If c and c.Token have different values, the error matches
// tokenstore.ErrIDMismatch. identify also returns an error if Resource is not an absolute URI, or
// has a fragment.
func (c *Config) identify() error {
	t := &c.Token
	if differ(t.Issuer, c.Issuer) || differ(t.Resource, c.Resource) {
		return fmt.Errorf("initializer: %w: Config.Token is of another Issuer or Resource than Config", tokenstore.ErrIDMismatch)
	}
	t.Issuer, t.Resource = cmp.Or(c.Issuer, t.Issuer), cmp.Or(c.Resource, t.Resource)
	switch {
	case t.Issuer == NoIssuer:
		t.Issuer = ""
	case t.Issuer == "" && c.OAuth2 != nil:
		t.Issuer, c.derived = IssuerOf(c.OAuth2.Endpoint.TokenURL), true
	}
	// SwitchUser replaces Token, so Config also needs the issuer and the resource.
	c.Issuer, c.Resource = cmp.Or(t.Issuer, NoIssuer), t.Resource
	if u, err := url.Parse(t.Resource); t.Resource != "" && (err != nil || !u.IsAbs() || strings.Contains(t.Resource, "#")) {
		return errors.New("initializer: Config.Resource is not an absolute URI without a fragment")
	}
	return nil
}

// differ reports whether token and config, two values of the same field, are both set and
// different.
func differ(token, config string) bool { return token != "" && config != "" && token != config }

// IssuerOf returns the default Issuer of records for the token endpoint tokenURL. It converts the
// scheme and host to lower case, and removes a default port and the fragment. An empty path becomes
// "/". IssuerOf returns tokenURL unchanged if it is not a valid URL.
func IssuerOf(tokenURL string) string {
	u, err := url.Parse(tokenURL)
	if err != nil {
		return tokenURL
	}
	// url.Parse converts the scheme to lower case.
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // IPv6
	}
	if port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80") {
		host += ":" + port
	}
	u.Host, u.Fragment, u.RawFragment = host, "", ""
	u.Path = cmp.Or(u.Path, "/")
	return u.String()
}

// of returns t with the Issuer and Resource of the configuration.
func (c *Client) of(t tokenstore.Token) tokenstore.Token {
	t.Issuer, t.Resource = c.conf.Token.Issuer, c.conf.Token.Resource
	return t
}

// belongs returns an error that matches tokenstore.ErrIDMismatch if t is a record of another user,
// from another issuer, or for another resource. The tokens of such a record must not be used.
func (c *Client) belongs(t tokenstore.Token) error {
	like := c.conf.Token
	switch {
	case differ(t.UserName, like.UserName):
		return fmt.Errorf("%w: the record %q is another user's", tokenstore.ErrIDMismatch, t.ID)
	case t.Issuer == "" && like.Issuer != "":
		return fmt.Errorf("%w: the record %q has no issuer; %w", tokenstore.ErrIDMismatch, t.ID, errNoIssuer)
	case t.Issuer != like.Issuer:
		return fmt.Errorf("%w: the record %q is of the issuer %q", tokenstore.ErrIDMismatch, t.ID, t.Issuer)
	case t.Resource != like.Resource:
		return fmt.Errorf("%w: the record %q is for the resource %q", tokenstore.ErrIDMismatch, t.ID, t.Resource)
	}
	return nil
}

// errNoIssuer explains how to use a record without an issuer.
var errNoIssuer = errors.New("to use it for this authorization server, set Config.Issuer to NoIssuer")

// unissued returns the record that New would find if Config.Issuer were NoIssuer. The error matches
// tokenstore.ErrNotFound if there is no record without an issuer, or if c itself has no issuer.
func (c *Client) unissued(ctx context.Context) (tokenstore.Token, error) {
	like := c.conf.Token
	old := tokenstore.Token{UserName: like.UserName, ClientID: like.ClientID}
	switch {
	case like.Issuer == "":
		return tokenstore.Token{}, tokenstore.ErrNotFound
	case old.UserName == "":
		old.GrantToken, old.RefreshToken = like.GrantToken, like.RefreshToken
	}
	if old.UserName == "" && (old.ClientID == "" || old.GrantToken == "" && old.RefreshToken == "") {
		return tokenstore.Token{}, tokenstore.ErrNotFound
	}
	t, err := c.conf.Store.FindToken(ctx, old)
	if err == nil && (t.Issuer != "" || t.Resource != "") {
		err = tokenstore.ErrNotFound
	}
	return t, err
}

// adoptable reports whether New may use a record that open refused with err because the record has
// no issuer. New must not use the record if the configuration has an issuer, a one-time code, or a
// refresh token other than the record's. Such a code or token might belong to another server. A
// record with an API domain of Zoho is not adoptable.
func (c *Client) adoptable(ctx context.Context, err error) bool {
	like := c.conf.Token
	if !c.conf.derived || !errors.Is(err, errNoIssuer) || like.GrantToken != "" {
		return false
	}
	find := c.unissued
	if like.ID != "" {
		find = func(ctx context.Context) (tokenstore.Token, error) { return c.conf.Store.FindTokenByID(ctx, like.ID) }
	}
	t, err := find(ctx)
	_, zohos := EnvironmentOf(t.APIDomain)
	return err == nil && !zohos && t.Issuer == "" && (like.RefreshToken == "" || like.RefreshToken == t.RefreshToken)
}

// explain adds errNoIssuer to err if err matches tokenstore.ErrNotFound and a record without an
// issuer exists. Otherwise, explain returns err unchanged.
func (c *Client) explain(ctx context.Context, err error) error {
	if !errors.Is(err, tokenstore.ErrNotFound) {
		return err
	}
	t, failed := c.unissued(ctx)
	if failed != nil {
		return err
	}
	return fmt.Errorf("%w for the issuer %q; the record %q has none: %w", err, c.conf.Token.Issuer, t.ID, errNoIssuer)
}
