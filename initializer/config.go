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

// Config says whose tokens a Client uses, where they are kept and who issues
// them. Store and Token are needed, and one of Environment and OAuth2.
type Config struct {
	// Environment is Zoho's data centre and the kind of organisation:
	// EU.Production().
	//
	// A record that says which of Zoho's API domains its token is good for is
	// used there, and refreshed at the accounts server of that data centre, as
	// the official SDKs do; an Environment with URLs of one's own stays as it is.
	Environment Environment

	// OAuth2 is the client at any other authorization server, in place of
	// Environment. Its ID, secret and redirect URL are those of Token if Token
	// has none; the secret is not stored.
	//
	// Set Endpoint.AuthStyle if it is known. Otherwise a Client finds it out: it
	// sends the client's credentials in the header and, if that is refused, once
	// more in the body. With a one-time code the body comes first, and the code is
	// sent a second time only if the refusal is of the client: a server that takes
	// the code for used even then costs the user another consent. A request whose
	// answer is lost is not repeated, nor is one at which the server fails.
	OAuth2 *oauth2.Config

	// ExchangeOptions are sent along with a one-time code to the server of
	// OAuth2: the verifier of PKCE, for one.
	ExchangeOptions []oauth2.AuthCodeOption

	// RevokeURL is where the server of OAuth2 revokes tokens (RFC 7009). Without
	// it Revoke fails.
	RevokeURL string

	// Hosts may be sent tokens: "crm.example.com", with a port unless it is 443.
	//
	// In an Environment of Zoho's own, tokens go to Zoho's domains and to Hosts.
	// Otherwise they go wherever a URL of HTTPClient or the API domain of a record
	// says or, if there are Hosts, to these and the servers of Environment only.
	// They go over https, or over http on the loopback interface, which is open
	// always.
	Hosts []string

	// Refusals says what error codes of the authorization server mean that this
	// package does not know, or knows otherwise. The value is ErrReauthRequired,
	// ErrClient, ErrThrottled, ErrServer or ErrRefused. Only letters and digits of a
	// code count, in upper or lower case.
	Refusals map[string]error

	// Token says which record is meant, and is what a new one begins with. See
	// "Flows" in the package documentation.
	Token tokenstore.Token

	// Store keeps the records. If it is a tokenstore.Refresher too, and all the
	// stores of this module are, one of all processes refreshes a token;
	// otherwise one of the goroutines of a Client does, its result is saved, and a
	// refusal is known to this Client only.
	Store tokenstore.TokenStore

	// HTTPClient makes the requests to the authorization server and, with a
	// token, those of Client.HTTPClient. Nil means one with a time-out of 30
	// seconds. Requests to the authorization server follow no redirects: they
	// hold secrets.
	HTTPClient *http.Client

	// Logger gets a record of what an operator may want to know: that a token was
	// refreshed, that a store is down while a token still works. Never a secret
	// or a user name. Nil means none.
	Logger *slog.Logger

	// FindUser asks Zoho's CRM, when a record has no user yet, for the e-mail
	// address of the user and the number of the organisation, and names the
	// record "<email>:<zgid>" as the official SDKs do. That takes two calls and
	// the scopes ZohoCRM.users.READ and ZohoCRM.org.READ. Without it a record
	// gets its user from Token.UserName, or none.
	FindUser bool

	// EarlyExpiry is how long before its end a token is replaced. 0 means 10
	// seconds. A token that lives no longer than that is replaced after half its
	// life.
	EarlyExpiry time.Duration

	// Now is the clock. Nil means time.Now.
	Now func() time.Time

	// style is an oauth2.AuthStyle: how the client authenticates at the server of
	// OAuth2, once that is known. SwitchUser passes it on.
	style *atomic.Int64
}

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

// completeServer is complete for what needs no store.
func (c Config) completeServer() (Config, error) {
	if err := c.checkServer(); err != nil {
		return c, err
	}
	if err := errors.Join(checkRefusals(c.Refusals), c.checkHosts()); err != nil {
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
		if c.ExchangeOptions != nil || c.RevokeURL != "" {
			return errors.New("initializer: Config.ExchangeOptions and RevokeURL go with OAuth2")
		}
		return nil
	}
	switch {
	case c.Environment != Environment{}:
		return errors.New("initializer: Config has both an Environment and OAuth2")
	case c.FindUser:
		return errors.New("initializer: Config.FindUser asks Zoho's CRM, and there is none with OAuth2")
	case !usableEndpoint(c.OAuth2.Endpoint.TokenURL) || c.RevokeURL != "" && !usableEndpoint(c.RevokeURL):
		return errors.New("initializer: OAuth2.Endpoint.TokenURL and RevokeURL have to be URLs with https, or http on the loopback interface")
	}
	return nil
}

func (c Config) checkToken() error {
	t := c.Token
	if err := tokenstore.Validate(t); err != nil {
		return err
	}
	begins := t.GrantToken != "" || t.RefreshToken != ""
	secret := t.ClientSecret != "" || c.OAuth2 != nil // which may be a public client
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
	return &zoho{judge: judge{c.book(), c.Now}, env: c.Environment, known: c.Environment.known(), gate: c.gate(), http: &h}
}

func (c Config) book() book { return book{own: c.Refusals, zoho: c.OAuth2 == nil} }

// gate returns what decides where tokens may be sent. Where one of the servers of
// Environment is Zoho's and the other is not, tokens are Zoho's all the same.
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

// checkHosts checks Hosts: one that is misspelled would never match.
func (c Config) checkHosts() error {
	for _, h := range c.Hosts {
		if u, err := parseBase(h); err != nil || u.Path != "" {
			return fmt.Errorf("initializer: Config.Hosts: %q is no host, such as %q", h, "crm.example.com")
		}
	}
	return nil
}

// Format implements fmt.Formatter. A Config prints as its type: package fmt would
// print a verifier of PKCE among its options.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "initializer.Config") }

// MarshalText implements encoding.TextMarshaler, for loggers and package expvar. A
// Config marshals as its type: OAuth2 has a secret that does not hide itself.
func (c Config) MarshalText() ([]byte, error) { return []byte("initializer.Config"), nil }
