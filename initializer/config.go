package initializer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Config configures the user, the store and the authorization server of a Client. Store, Token
// and exactly one of Environment and OAuth2 are required.
type Config struct {
	// Environment has the servers of a Zoho data center for one kind of organization, such as
	// EU.Production().
	//
	// If a record has the API domain of another Zoho data center, the Client uses and refreshes the
	// record's token in that data center. If a server of Environment is not Zoho's, the Client
	// refreshes every token at AccountsURL.
	Environment Environment

	// OAuth2 configures the client at an authorization server other than Zoho's, in place of
	// Environment. The Client uses the ClientID, ClientSecret and RedirectURL of OAuth2 where
	// Token has none. The ClientSecret of OAuth2 is not stored.
	//
	// Set Endpoint.AuthStyle if the server's style of client authentication is known. Otherwise the
	// Client first sends a refresh token with the client ID and secret in the Authorization header.
	// If the server refuses the request for a reason other than the token, the Client repeats the
	// request with the ID and secret in the body. For a one-time code, or without a client secret,
	// the Client tries the body first. The Client sends a code a second time only if the server
	// refused the client. If the server consumes the code when it refuses the client, the user must
	// consent again. The Client does not repeat a request if the response is lost or the server
	// fails.
	OAuth2 *oauth2.Config

	// ExchangeOptions, such as a PKCE verifier, are sent to the server of OAuth2 together with a
	// one-time code.
	ExchangeOptions []oauth2.AuthCodeOption

	// Issuer identifies the authorization server in records. Use the issuer in the server's
	// metadata (RFC 8414) if the server publishes metadata. Records of the same user with different
	// issuers or resources are separate. A record with another issuer is never used. A record
	// without an issuer is used only if Issuer is empty or NoIssuer: see "Owners of records" in the
	// package documentation. Stores compare issuers byte by byte.
	//
	// If Issuer is empty, Token.Issuer is used. If Token.Issuer is also empty, records for OAuth2
	// have the issuer that IssuerOf returns for the token endpoint, and records for Environment
	// have no issuer. To use and create records without an issuer for OAuth2, set Issuer to
	// NoIssuer.
	Issuer string

	// Resource identifies the API that the tokens are for: an absolute URI without a fragment (RFC
	// 8707). The Client sends Resource with one-time codes and refresh tokens to the server of
	// OAuth2. A record with another Resource is never used. If Resource is empty, Token.Resource is
	// used.
	Resource string

	// TokenTypes maps values of token_type, ignoring case, to schemes of the Authorization header,
	// such as {"bot": "Bearer"} for Slack. TokenTypes must not contain dpop, mac or pop, which
	// require a proof of possession, or n_a, the type of a token that is not an access token.
	TokenTypes map[string]string

	// RevokeURL is the URL at which the server of OAuth2 revokes tokens (RFC 7009). For OAuth2
	// without a RevokeURL, Client.Revoke and RevokeToken fail.
	RevokeURL string

	// Hosts lists hosts to which tokens may be sent, such as "crm.example.com" or
	// "crm.example.com:8443". The default port is 443.
	//
	// In an Environment with a server of Zoho, tokens may be sent to Zoho's domains, to the servers
	// of Environment and to Hosts. In any other Environment, and with OAuth2, an empty Hosts allows
	// every host. If Hosts is not empty, tokens may be sent only to Hosts and to the servers of
	// Environment. Tokens are sent over https, or over http on the loopback interface, which is
	// always allowed.
	Hosts []string

	// Refusals maps error codes of the authorization server to error classes. Refusals takes
	// precedence over the classes that this package assigns to codes. Each value is
	// ErrReauthRequired, ErrClient, ErrThrottled, ErrServer or ErrRefused. The Client compares
	// only the ASCII letters and digits of codes, ignoring case.
	Refusals map[string]error

	// Token describes the record, and contains the fields of a new record. See "Flows" in the
	// package documentation.
	Token tokenstore.Token

	// Store keeps the records. If Store is a tokenstore.Refresher, as all stores of this module
	// are, exactly one process refreshes an expired token. Otherwise, each Client that finds the
	// token expired refreshes it in one goroutine and saves the new token. Clients of such a
	// store do not share refusals.
	Store tokenstore.TokenStore

	// HTTPClient sends requests to the authorization server and, with FindUser, to Zoho's CRM.
	// Client.HTTPClient returns a copy of HTTPClient that adds the token to requests. Nil means a
	// client with a timeout of 30 seconds. Requests to the authorization server and the CRM do
	// not follow redirects, because these requests contain secrets.
	HTTPClient *http.Client

	// Logger receives log records for operators, for example when a token was refreshed or could
	// not be stored. Log records never contain a secret or a user name. Nil disables logging.
	Logger *slog.Logger

	// FindUser makes the Client look up, in Zoho's CRM, the user of a record that has no user
	// name. The name is "<email>:<zgid>", the user's e-mail address and the organization's
	// number, as in the official SDKs. If Token.UserName is set, the Client uses Token.UserName
	// instead of the look-up. The look-up takes two calls, and requires the scopes
	// ZohoCRM.users.READ and ZohoCRM.org.READ.
	FindUser bool

	// EarlyExpiry is the remaining lifetime at which a token is replaced; 0 means 10 seconds. A new
	// token with a lifetime of at most EarlyExpiry is replaced after half of its lifetime.
	EarlyExpiry time.Duration

	// Now returns the current time. Nil means time.Now.
	Now func() time.Time

	// derived is set if the program sets OAuth2, but neither Issuer nor Token.Issuer.
	derived bool

	// style is the oauth2.AuthStyle with which the client authenticates at the server of OAuth2, or
	// AuthStyleAutoDetect while the style is unknown. style is nil without OAuth2. A Client shares
	// style with the Clients that its SwitchUser method returns.
	style *atomic.Int64
}

// NoIssuer is the value of Config.Issuer for records without an issuer. With NoIssuer, two servers
// with the same client ID would share the records of a user, and each server would receive tokens
// of the other server. Use NoIssuer for one server only.
const NoIssuer = "none"

const (
	defaultEarlyExpiry = 10 * time.Second
	requestTimeout     = 30 * time.Second
)

// complete returns a copy of c with defaults in place of zero values. It returns an error if c is
// invalid or has no Store.
func (c Config) complete() (Config, error) {
	if c.Store == nil {
		return c, errors.New("initializer: Config.Store is nil")
	}
	return c.completeServer()
}

// completeServer is like complete, but does not require a Store.
func (c Config) completeServer() (Config, error) {
	if err := c.checkServer(); err != nil {
		return c, err
	}
	if err := errors.Join(checkRefusals(c.Refusals), checkTypes(c.TokenTypes), c.checkHosts()); err != nil {
		return c, err
	}
	var err error
	if c.OAuth2 == nil {
		if c.Environment, err = c.Environment.complete(); err != nil {
			return c, err
		}
	} else {
		c.Token.ClientID = cmp.Or(c.Token.ClientID, c.OAuth2.ClientID)
		c.Token.RedirectURL = cmp.Or(c.Token.RedirectURL, c.OAuth2.RedirectURL)
	}
	if err := c.identify(); err != nil {
		return c, err
	}
	if err := c.checkToken(); err != nil {
		return c, fmt.Errorf("initializer: Config.Token: %w", err)
	}
	c.EarlyExpiry = cmp.Or(c.EarlyExpiry, defaultEarlyExpiry)
	if c.EarlyExpiry < 0 {
		return c, fmt.Errorf("initializer: Config.EarlyExpiry is %v", c.EarlyExpiry)
	}
	if c.HTTPClient == nil {
		c.HTTPClient = &http.Client{Timeout: requestTimeout}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.style == nil && c.OAuth2 != nil {
		c.style = new(atomic.Int64)
		c.style.Store(int64(c.OAuth2.Endpoint.AuthStyle))
	}
	return c, nil
}

func (c Config) checkServer() error {
	if c.OAuth2 == nil {
		if c.ExchangeOptions != nil || c.RevokeURL != "" || cmp.Or(c.Resource, c.Token.Resource) != "" {
			return errors.New("initializer: Config.ExchangeOptions, Resource and RevokeURL require OAuth2")
		}
		return nil
	}
	switch {
	case c.Environment != Environment{}:
		return errors.New("initializer: Config has both an Environment and OAuth2")
	case c.FindUser:
		return errors.New("initializer: Config.FindUser asks Zoho's CRM, and there is none with OAuth2")
	case !usableEndpoint(c.OAuth2.Endpoint.TokenURL) || c.RevokeURL != "" && !usableEndpoint(c.RevokeURL):
		return errors.New("initializer: OAuth2.Endpoint.TokenURL and RevokeURL must be URLs with https, or http on the loopback interface")
	}
	return nil
}

func (c Config) checkToken() error {
	t := c.Token
	if err := tokenstore.Validate(t); err != nil {
		return err
	}
	begins := t.GrantToken != "" || t.RefreshToken != ""
	secret := t.ClientSecret != "" || c.OAuth2 != nil // a client of OAuth2 may be public
	switch {
	case t.ID == "" && t.UserName == "" && t.AccessToken == "" && !begins:
		return fmt.Errorf("%w: it needs an ID, a UserName, a GrantToken, a RefreshToken or an AccessToken", tokenstore.ErrInvalidToken)
	case begins && t.ID == "" && (t.ClientID == "" || !secret):
		return fmt.Errorf("%w: a GrantToken or RefreshToken needs the ClientID and ClientSecret", tokenstore.ErrInvalidToken)
	case t.APIDomain != "" && !usableURL(t.APIDomain):
		return fmt.Errorf("%w: APIDomain is not a base URL with https, or http on the loopback interface", tokenstore.ErrInvalidToken)
	case t.APIDomain != "":
		_, err := c.gate().base(t.APIDomain)
		return err
	}
	return nil
}

// server returns the authorization server of a complete configuration.
func (c Config) server() server {
	h := *c.HTTPClient
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	h.Jar = nil
	if c.OAuth2 != nil {
		return newStandard(c, &h)
	}
	return &zoho{judge: judge{c.book(), c.Now, c.Logger}, env: c.Environment, known: c.Environment.known(), gate: c.gate(), http: &h}
}

func (c Config) book() book { return book{own: c.Refusals, zoho: c.OAuth2 == nil} }

// gate returns the gate for the tokens of c. The tokens count as Zoho's if at least one of the
// two servers in Environment is Zoho's.
func (c Config) gate() gate {
	g := gate{zoho: c.Environment.partly()}
	hosts := c.Hosts
	if c.OAuth2 == nil && (g.zoho || len(hosts) > 0) {
		hosts = append(slices.Clone(hosts), c.Environment.AccountsURL, c.Environment.APIURL)
	}
	for _, text := range hosts {
		if u, err := parseBase(text); err == nil {
			g.hosts = append(g.hosts, u.Host)
		}
	}
	return g
}

// checkHosts returns an error if an element of Hosts is not a host, because such an element would
// never match.
func (c Config) checkHosts() error {
	for _, h := range c.Hosts {
		if u, err := parseBase(h); err != nil || u.Path != "" {
			return fmt.Errorf("initializer: Config.Hosts: %q is not a host, such as %q", h, "crm.example.com")
		}
	}
	return nil
}

// Format implements fmt.Formatter. A Config prints as the name of its type. Without this method,
// package fmt would print the PKCE verifier in ExchangeOptions.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "initializer.Config") }

// MarshalText implements encoding.TextMarshaler, for loggers and package expvar. A
// Config marshals as the name of its type, because OAuth2 contains a plain secret.
func (c Config) MarshalText() ([]byte, error) { return []byte("initializer.Config"), nil }
