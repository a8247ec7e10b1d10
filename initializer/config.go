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
// and one of Environment and OAuth2 are required.
type Config struct {
	// Environment is Zoho's data center and the kind of organization:
	// EU.Production().
	//
	// If a record has the API domain of a Zoho data center, its token is used and refreshed
	// there, as in the official SDKs. An Environment with URLs of other servers than Zoho's is
	// used unchanged.
	Environment Environment

	// OAuth2 is the client at any other authorization server, instead of
	// Environment. Its ID, secret and redirect URL are used if Token has none; the
	// secret is not stored.
	//
	// Set Endpoint.AuthStyle if it is known. Otherwise the Client detects it: it sends the
	// client's credentials in the header and, if the server refuses the request but not the
	// token, a second time in the body. For a one-time code it tries the body first. It sends
	// the code a second time only if the server refused the client. If the server has consumed
	// the code nevertheless, the user must consent again. The Client does not repeat a request
	// whose response is lost, or that fails in the server.
	OAuth2 *oauth2.Config

	// ExchangeOptions, such as the verifier of PKCE, are sent to the server of OAuth2 together
	// with a one-time code.
	ExchangeOptions []oauth2.AuthCodeOption

	// Issuer identifies the authorization server in records. Use the issuer in the server's
	// metadata (RFC 8414) if there are metadata. Issuer and Resource distinguish a user's tokens
	// at different servers. A record with another issuer is never used. A record without an
	// issuer is used only if Issuer is empty: see "Whose tokens they are" in the package
	// documentation. Stores compare issuers byte by byte.
	//
	// If Issuer is empty, it is Token.Issuer. If that is also empty, with OAuth2 it is the URL
	// of the token endpoint, in the form of IssuerOf. With an Environment of Zoho, records then
	// have no issuer. To omit the issuer from records with OAuth2 as well, and to use existing
	// records without one, set Issuer to NoIssuer.
	Issuer string

	// Resource is the API for which the tokens are: an absolute URI without a fragment (RFC
	// 8707). It is sent with one-time codes and refresh tokens to the server of OAuth2. A record
	// with another Resource is never used. If Resource is empty, Token.Resource is used.
	Resource string

	// TokenTypes maps a token_type other than bearer to the scheme of the Authorization
	// header, ignoring case: {"bot": "Bearer"} for Slack. It must not contain types
	// that require a proof of possession: dpop, mac, pop, n_a.
	TokenTypes map[string]string

	// RevokeURL is the URL at which the server of OAuth2 revokes tokens (RFC 7009). Without a
	// RevokeURL, Revoke fails.
	RevokeURL string

	// Hosts are hosts to which tokens may be sent: "crm.example.com", with a port
	// unless it is 443.
	//
	// In an Environment of Zoho, tokens may be sent to Zoho's domains and to Hosts. Otherwise,
	// if Hosts is not empty, they may be sent only to Hosts and to the servers of Environment;
	// if Hosts is empty, to the host in any URL of HTTPClient and to the API domain of a record.
	// Tokens are sent over https, or over http on the loopback interface, which is always
	// allowed.
	Hosts []string

	// Refusals maps error codes of the authorization server to their meaning, if
	// this package does not know them or knows another meaning. The value is
	// ErrReauthRequired, ErrClient, ErrThrottled, ErrServer or ErrRefused. Only the
	// letters and digits of a code count, ignoring case.
	Refusals map[string]error

	// Token describes the record, and contains the fields of a new one. See "Flows" in the
	// package documentation.
	Token tokenstore.Token

	// Store keeps the records. If it is also a tokenstore.Refresher, as all stores of this
	// module are, exactly one process refreshes an expired token. Otherwise one goroutine of
	// each Client refreshes it. The Client saves the result, but does not share a refusal.
	Store tokenstore.TokenStore

	// HTTPClient sends the requests to the authorization server and, with a token added, the
	// requests through Client.HTTPClient. Nil means a client with a timeout of 30 seconds.
	// Requests to the authorization server do not follow redirects, because they contain
	// secrets.
	HTTPClient *http.Client

	// Logger receives log records for operators. For example, a token was refreshed, or the
	// store is unavailable while the token in memory still works. Log records never contain a
	// secret or a user name. Nil disables logging.
	Logger *slog.Logger

	// If FindUser is set and a record has no user yet, the Client asks Zoho's CRM for the user's
	// e-mail address and the organization's number. It names the user "<email>:<zgid>", like the
	// official SDKs. The lookup takes two calls, and requires the scopes ZohoCRM.users.READ and
	// ZohoCRM.org.READ. Without FindUser, the user of a record is Token.UserName, which may be
	// empty.
	FindUser bool

	// EarlyExpiry is the time before its expiry at which a token is replaced. 0 means 10
	// seconds. A token with a lifetime of at most EarlyExpiry is replaced after half of its
	// lifetime.
	EarlyExpiry time.Duration

	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	// derived is set if no issuer was given, so that Issuer is derived from the token endpoint.
	derived bool

	// style is the oauth2.AuthStyle with which the client authenticates at the
	// server of OAuth2, once it is known. SwitchUser shares it.
	style *atomic.Int64
}

// NoIssuer, as Config.Issuer, means that records have no issuer. Two servers with the
// same client ID then share the records of a user, and one server receives the tokens
// of the other. Use NoIssuer for one server only.
const NoIssuer = "none"

const (
	defaultEarlyExpiry = 10 * time.Second
	requestTimeout     = 30 * time.Second
)

// complete returns a copy of c with defaults in place of zero values.
func (c Config) complete() (Config, error) {
	if c.Store == nil {
		return c, errors.New("initializer: Config.Store is nil")
	}
	return c.completeServer()
}

// completeServer is like complete for the fields that do not concern the store.
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

// server returns the authorization server.
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

// gate returns the gate for tokens of this configuration. If only one of the two servers in
// Environment is Zoho's, the tokens count as Zoho's.
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

// checkHosts checks Hosts, because a misspelled host would never match.
func (c Config) checkHosts() error {
	for _, h := range c.Hosts {
		if u, err := parseBase(h); err != nil || u.Path != "" {
			return fmt.Errorf("initializer: Config.Hosts: %q is not a host, such as %q", h, "crm.example.com")
		}
	}
	return nil
}

// Format implements fmt.Formatter. A Config prints as the name of its type. Without this method,
// package fmt would print the verifier of PKCE.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "initializer.Config") }

// MarshalText implements encoding.TextMarshaler, for loggers and package expvar. A
// Config marshals as the name of its type, because OAuth2 contains a plain secret.
func (c Config) MarshalText() ([]byte, error) { return []byte("initializer.Config"), nil }
