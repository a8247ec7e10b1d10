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

	"github.com/tokenkeep/tokenkeep/internal/flight"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	zohoScheme   = "Zoho-oauthtoken"
	bearerScheme = "Bearer"
)

// A Client has the tokens of one user. Its methods are safe for concurrent use.
//
// It starts no goroutine that outlives the call that started it: a program that is
// frozen between calls finds the Client as it was.
type Client struct {
	conf      *Config // behind a pointer, where package fmt does not look for it in what holds a Client
	server    server
	gate      gate
	refresher tokenstore.Refresher
	scheme    string // of the Authorization header
	flights   flight.Group[*session]
	refused   *memory // of the client

	// current is nil when the Client is closed, or its tokens are revoked.
	current atomic.Pointer[session]
	closed  atomic.Bool
}

// New returns the Client of the user that c.Token describes. It reads the store,
// exchanges the one-time code or refreshes the token if need be, and finds out the
// user if c.FindUser says so; so that what is wrong is known at the start.
//
// If the error matches tokenstore.ErrNotPersisted the Client is not nil and works,
// with tokens that only it has. It tries to store them when it is used next.
func New(ctx context.Context, c Config) (*Client, error) {
	conf, err := c.complete()
	if err != nil {
		return nil, err
	}
	client := &Client{conf: &conf, server: conf.server(), gate: conf.gate(), scheme: zohoScheme, refused: &memory{longest: longestClientWait}}
	if conf.OAuth2 != nil {
		client.scheme = bearerScheme
	}
	if r, ok := conf.Store.(tokenstore.Refresher); ok {
		client.refresher = r
	} else {
		client.refresher = alone{conf.Store, conf.Now, &memory{longest: refusal.LongestWait}}
	}
	s, err := client.open(ctx)
	if s == nil {
		return nil, client.fail("open", err)
	}
	client.current.Store(s)
	return client, client.fail("open", err)
}

// Token returns the record with a good access token. While there is one in memory
// that is all; otherwise the store is asked, and the authorization server if no
// other process has been there meanwhile.
//
// If the token could not be stored it is returned together with an error matching
// tokenstore.ErrNotPersisted. It can be used; the next call tries to store it
// again. If it could not be replaced early but has not yet expired it is
// returned, and the reason is logged.
//
// The APIDomain of the record is as the store has it, checked or not. Send the
// token to the one that Client.APIDomain returns.
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

// APIDomain returns the base URL of the API: that of the record, else that of the
// Environment. It is "" if there is none, or none that a token may be sent to.
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

// TokenSource returns a source of access tokens for packages that know
// golang.org/x/oauth2. Its tokens have no refresh token, since whoever used it
// would not do so alone; they have the API domain of the record as the extra field "api_domain", if a
// token may be sent there.
// A token that could not be stored is returned without an error, and the reason is
// logged, because users of a TokenSource drop a token that comes with one.
//
// There is no need for oauth2.ReuseTokenSource. The source works as long as ctx is
// not done.
func (c *Client) TokenSource(ctx context.Context) oauth2.TokenSource {
	return &tokenSource{ctx, c}
}

type tokenSource struct {
	ctx    context.Context // oauth2.TokenSource has no other place for it
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

// SwitchUser returns the Client of another user, with the same configuration
// otherwise; a client that t leaves out is that of the configuration. Unlike the
// SDKs' switch_user it changes nothing for those who use c.
func (c *Client) SwitchUser(ctx context.Context, t tokenstore.Token) (*Client, error) {
	if c.closed.Load() {
		return nil, c.fail("switch user", ErrClosed)
	}
	conf := *c.conf
	if t.ID == "" && t.ClientID == "" && (t.GrantToken != "" || t.RefreshToken != "") {
		t.ClientID = conf.Token.ClientID
		t.ClientSecret = cmp.Or(t.ClientSecret, conf.Token.ClientSecret)
		t.RedirectURL = cmp.Or(t.RedirectURL, conf.Token.RedirectURL)
	}
	conf.Token = t
	return New(ctx, conf)
}

// Close makes the Client forget its tokens. Its methods, and those of what it has
// handed out, then fail with ErrClosed. The store and the HTTP client stay the
// caller's.
func (c *Client) Close() error {
	c.closed.Store(true)
	c.current.Store(nil)
	return nil
}

// Format implements fmt.Formatter. A Client prints as its type: package fmt would
// print the secrets within it, whatever their own methods say.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*initializer.Client") }

// A session is what a Client knows at one moment. It is never changed.
type session struct {
	token tokenstore.Token
	oauth *oauth2.Token

	// api is the base URL of the API; nil if there is none that the token may be
	// sent to. apiErr says why.
	api    *url.URL
	apiErr error

	// due is when the token is to be replaced; zero if it is not known to expire.
	due time.Time

	// unsaved is set if the store does not have the token.
	unsaved *unsaved

	// rejected is when the API last rejected a token, if that is why there is
	// this one.
	rejected time.Time
}

// An unsaved token is one that could not be stored.
type unsaved struct {
	used  tokenstore.Token // the record as the authorization server was asked with it
	retry time.Time
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
	o := &oauth2.Token{AccessToken: string(t.AccessToken), TokenType: c.scheme, Expiry: t.ExpiresAt}
	s.oauth = o.WithExtra(map[string]any{"api_domain": domain})
	return s
}

// fresh reports whether there is nothing to be done about s.
func (s *session) fresh(now time.Time) bool {
	return (s.due.IsZero() || now.Before(s.due)) && (s.unsaved == nil || now.Before(s.unsaved.retry))
}

// alive reports whether the token has not expired, as far as is known.
func (s *session) alive(now time.Time) bool {
	return s.token.AccessToken != "" && (s.token.ExpiresAt.IsZero() || now.Before(s.token.ExpiresAt))
}

// session returns the present session, with a good token. The error matches
// tokenstore.ErrNotPersisted if it is not nil and there is a session.
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

// usable is session for those who have no use for a token with an error.
func (c *Client) usable(ctx context.Context) (*session, error) {
	s, err := c.session(ctx)
	if s != nil && err != nil {
		c.conf.Logger.ErrorContext(ctx, "initializer: a token is used that could not be stored", "id", s.token.ID, "error", err)
		err = nil
	}
	return s, err
}

// over is the error of a Client without a session.
func (c *Client) over() error {
	if c.closed.Load() {
		return ErrClosed
	}
	return ErrReauthRequired // revoked
}
