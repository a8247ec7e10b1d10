package initializer

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/internal/extra"
	"github.com/tokenkeep/tokenkeep/internal/flight"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A Client holds the tokens of one user. Its methods are safe for concurrent use.
//
// A Client starts no goroutine that outlives a method call, so a platform can freeze the program
// between calls.
type Client struct {
	conf      *Config // a pointer, because package fmt prints a nested pointer as an address
	server    server
	gate      gate
	refresher tokenstore.Refresher
	schemes   schemes
	flights   flight.Group[*session]
	refused   *memory // the last refusal of class ErrClient

	// current is nil after Close or a successful Revoke.
	current atomic.Pointer[session]
	closed  atomic.Bool
}

// New returns a Client for the record that c.Token describes. It reads the store, exchanges the
// one-time code or refreshes the token if necessary, and looks up the user if c.FindUser is set.
// New therefore reports errors that the first use of the Client would otherwise report.
//
// If the error matches tokenstore.ErrNotPersisted, the returned Client works, but its tokens are
// not stored. The next call of its Token method tries again to store the tokens. If there is any
// other error, New returns a nil Client.
func New(ctx context.Context, c Config) (*Client, error) {
	conf, err := c.complete()
	if err != nil {
		return nil, err
	}
	client := &Client{conf: &conf, server: conf.server(), gate: conf.gate(), schemes: conf.schemes(), refused: &memory{longest: longestClientWait}}
	if r, ok := conf.Store.(tokenstore.Refresher); ok {
		client.refresher = r
	} else {
		client.refresher = alone{conf.Store, conf.Now, &memory{longest: refusal.LongestWait}}
	}
	s, err := client.open(ctx)
	if s == nil && client.adoptable(ctx, err) {
		c.Issuer, c.derived = NoIssuer, true
		return New(ctx, c)
	}
	if s == nil {
		return nil, client.fail("open", err)
	}
	client.current.Store(s)
	return client, client.fail("open", err)
}

// Token returns the record with a valid access token. It uses the token in memory until
// Config.EarlyExpiry before the expiry of the token. After that time, Token reads the store, and
// sends a request to the authorization server unless another process has refreshed the token.
//
// If Token fails to store a new token, Token returns the new token together with an error matching
// tokenstore.ErrNotPersisted. The token can be used. Later calls try again to store the token, at
// most once a second. If a refresh fails while the current token is valid, Token logs the reason
// and returns the current token without an error.
//
// Token does not check the APIDomain of the record. Send the access token to the URL that
// Client.APIDomain returns.
func (c *Client) Token(ctx context.Context) (tokenstore.Token, error) {
	s, err := c.session(ctx)
	if s == nil {
		return tokenstore.Token{}, c.fail("token", err)
	}
	if err != nil {
		return s.token, c.fail("token", err)
	}
	return s.token, nil
}

// APIDomain returns the base URL of the API from the record or, if the record has none, from the
// Environment. It returns "" if neither has a base URL, or if the token must not be sent to that
// URL. After Close or a successful Revoke, APIDomain returns the APIURL of the Environment.
func (c *Client) APIDomain() string {
	s := c.current.Load()
	if s == nil {
		return c.conf.Environment.APIURL
	}
	if s.api == nil {
		return ""
	}
	return s.api.String()
}

// Persisted reports whether the token that the Client uses is stored. It returns false after an
// error that matches tokenstore.ErrNotPersisted, until a later call of Token has stored the token.
// After Close or a successful Revoke, it returns true.
func (c *Client) Persisted() bool {
	s := c.current.Load()
	return s == nil || s.unsaved == nil
}

// TokenSource returns a source of access tokens for packages that use golang.org/x/oauth2.
//
// The returned tokens have no refresh token, so that no other code refreshes them. The Type method
// of a token returns the scheme for the Authorization header. If the server states no other type,
// that scheme is "Zoho-oauthtoken" for an Environment and "Bearer" for OAuth2. The Extra method
// returns the members that the record keeps, with the types of x/oauth2: scope, id_token, and the
// members of tokenstore.Token.Extra. A member that is missing from a refresh response keeps its
// earlier value. The member api_domain is the API domain of the record, if the token may be sent
// to that domain. Extra does not return expires_in, because the record does not keep that member.
//
// If a token could not be stored, the source logs the reason and returns the token without an
// error, because callers of a TokenSource discard a token that is returned with an error.
//
// The source uses ctx for all its requests. An oauth2.ReuseTokenSource is not necessary, because
// the Client keeps the token in memory.
func (c *Client) TokenSource(ctx context.Context) oauth2.TokenSource {
	return &tokenSource{ctx, c}
}

type tokenSource struct {
	ctx    context.Context // the Token method of an oauth2.TokenSource has no context parameter
	client *Client
}

// Token implements oauth2.TokenSource.
func (s *tokenSource) Token() (*oauth2.Token, error) {
	now, err := s.client.usable(s.ctx)
	if err != nil {
		return nil, s.client.fail("token", err)
	}
	return now.oauth, nil
}

// SwitchUser returns a Client for the record that t describes. In all other respects, the Client
// has the configuration of c. If t has a one-time code or refresh token but no ID and no ClientID,
// SwitchUser uses the ClientID of Config.Token. In that case, it also uses the ClientSecret and
// RedirectURL of Config.Token where t has none. Unlike switch_user of the SDKs, SwitchUser does
// not change c. After Close, the error matches ErrClosed.
func (c *Client) SwitchUser(ctx context.Context, t tokenstore.Token) (*Client, error) {
	if c.closed.Load() {
		return nil, c.fail("switch user", ErrClosed)
	}
	conf := *c.conf
	if conf.derived {
		conf.Issuer = "" // the other user's record might have an issuer
	}
	if t.ID == "" && t.ClientID == "" && (t.GrantToken != "" || t.RefreshToken != "") {
		t.ClientID = conf.Token.ClientID
		t.ClientSecret = cmp.Or(t.ClientSecret, conf.Token.ClientSecret)
		t.RedirectURL = cmp.Or(t.RedirectURL, conf.Token.RedirectURL)
	}
	conf.Token = t
	return New(ctx, conf)
}

// Close discards the tokens in memory. Later calls that need a token fail with ErrClosed, including
// calls of the token sources and HTTP clients that c returned. Close does not close the store, and
// always returns nil.
func (c *Client) Close() error {
	c.closed.Store(true)
	c.current.Store(nil)
	return nil
}

// Format implements fmt.Formatter. A Client prints as the name of its type. Without this method,
// package fmt would print the secrets in the Client, because package fmt does not call the methods
// of values in unexported fields.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*initializer.Client") }

// A session is the state of a Client at a single point in time. A session does not change after it
// becomes the current session.
type session struct {
	token tokenstore.Token
	oauth *oauth2.Token

	// api is the base URL of the API. If no base URL is known, or the token must not be sent to
	// the base URL, api is nil and apiErr says why.
	api    *url.URL
	apiErr error

	// scheme is the scheme of the Authorization header. schemeErr, if not nil, says why the
	// token cannot be sent.
	scheme    string
	schemeErr error

	// due is the time of the next attempt to replace the token, or zero if the expiry of the token
	// is unknown.
	due time.Time

	// unsaved is not nil if the token could not be stored.
	unsaved *unsaved

	// rejected is the time at which the token replaced a token that the API rejected, or zero if
	// the token did not replace such a token.
	rejected time.Time
}

// unsaved describes a token that could not be stored.
type unsaved struct {
	used  tokenstore.Token // the record before the refresh that returned the token
	retry time.Time        // earliest time of the next attempt to store the token
}

func (c *Client) newSession(t tokenstore.Token) *session {
	s := &session{token: t}
	if !t.ExpiresAt.IsZero() {
		s.due = t.ExpiresAt.Add(-c.conf.EarlyExpiry)
	}
	domain := ""
	switch base := cmp.Or(t.APIDomain, c.conf.Environment.APIURL); base {
	case "":
		s.apiErr = errNoDomain
	default:
		if s.api, s.apiErr = c.gate.base(base); s.apiErr != nil {
			s.api = nil
		} else if t.APIDomain != "" {
			domain = s.api.String()
		}
	}
	s.scheme, s.schemeErr = c.schemes.of(t)
	shown := t
	shown.RefreshToken = ""
	members := extra.Members(shown)
	if c.conf.OAuth2 == nil || t.APIDomain != "" {
		members["api_domain"] = domain
	}
	s.oauth = extra.Token(shown).WithExtra(members)
	switch {
	case s.schemeErr != nil:
	case s.oauth.TokenType == "", s.scheme != bearerScheme, s.oauth.Type() != bearerScheme:
		s.oauth.TokenType = s.scheme
	}
	return s
}

// fresh reports whether s needs neither a refresh nor a save.
func (s *session) fresh(now time.Time) bool {
	return (s.due.IsZero() || now.Before(s.due)) && (s.unsaved == nil || now.Before(s.unsaved.retry))
}

// alive reports whether s has an access token that has not expired at now, or whose expiry is
// unknown.
func (s *session) alive(now time.Time) bool {
	return s.token.AccessToken != "" && (s.token.ExpiresAt.IsZero() || now.Before(s.token.ExpiresAt))
}

// session returns the current session, after renewing that session if it is not fresh. If session
// returns both a session and an error, the error matches tokenstore.ErrNotPersisted.
func (c *Client) session(ctx context.Context) (*session, error) {
	s := c.current.Load()
	if s == nil {
		return nil, c.over()
	}
	if s.fresh(c.conf.Now()) {
		return s, nil
	}
	return c.renew(ctx, s.token.AccessToken, false)
}

// usable is like session, but logs ErrNotPersisted instead of returning it.
func (c *Client) usable(ctx context.Context) (*session, error) {
	s, err := c.session(ctx)
	if s != nil && err != nil {
		c.conf.Logger.ErrorContext(ctx, "initializer: a token is used that could not be stored", "id", s.token.ID, "error", err)
		err = nil
	}
	return s, err
}

// over returns the error for a Client without a session: ErrClosed after Close, and
// ErrReauthRequired after a successful Revoke.
func (c *Client) over() error {
	if c.closed.Load() {
		return ErrClosed
	}
	return ErrReauthRequired // revoked
}
