package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A login holds the flags of login.
type login struct {
	server         authServer
	client         string
	user, authURL  string
	findUser       bool
	scopes, params []string
	redirect       string
	paste, open    bool
	wait           time.Duration
}

func (a *app) loginCommand() *cobra.Command {
	var l login
	c := &cobra.Command{
		Use:     "login",
		GroupID: groupRecords,
		Short:   "Have a user log in, and save the tokens",
		Long:    loginHelp,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := l.check(a); err != nil {
				return err
			}
			return a.withStore(c.Context(), func(s *store) error { return a.login(c.Context(), s, &l) })
		},
	}
	f := c.Flags()
	f.StringVar(&l.user, "user", "", "name of the user in the record")
	l.server.flags(c)
	f.Lookup("client").Usage = "the client's ID; its secret is in " + envClientSecret
	f.StringVar(&l.authURL, "auth-url", "", "authorization endpoint of a server at --token-url")
	f.StringVar(&l.server.issuer, "issuer", "", "authorization server; without --token-url its metadata has the endpoints")
	f.StringVar(&l.server.resource, "resource", "", "the API for which the token is (RFC 8707)")
	f.StringArrayVar(&l.scopes, "scope", nil, "a scope of the token; may be repeated")
	f.StringArrayVar(&l.params, "param", nil, "additional parameter `NAME=VALUE` of the consent URL, such as prompt=consent; may be repeated")
	f.StringVar(&l.redirect, "redirect-url", "", "`URL` that is registered for the client (default: http://127.0.0.1/ with a free port)")
	f.BoolVar(&l.findUser, "find-user", false, "ask Zoho's CRM for the name of the user, in place of --user")
	f.BoolVar(&l.paste, "paste", false, "read the address to which the browser is redirected from standard input")
	f.BoolVar(&l.open, "open", false, "open the consent URL in a browser")
	f.DurationVar(&l.wait, "wait", 5*time.Minute, "maximum `time` to wait for the consent")
	return c
}

const loginHelp = `Prints a consent URL on standard error, waits until the user has allowed the access, and
saves the tokens from the server as the record of the user and client. An existing record
gets the new tokens. If anything fails, nothing is saved.

  tokenkeep login --user ann --client ABC --issuer https://login.example.com --open
  tokenkeep login --user ann --client ABC --auth-url https://login.example.com/authorize \
    --token-url https://login.example.com/token --scope offline_access
  tokenkeep login --find-user --client 1000.ABC --data-center eu --scope ZohoCRM.modules.ALL \
    --scope ZohoCRM.users.READ --scope ZohoCRM.org.READ --redirect-url http://localhost:8085/callback

The browser is redirected to the redirect URL. If that is http on this machine, login
listens there for the answer; port 0, or none, means a free one. Otherwise, and with
--paste, the user copies the address from the browser to standard input, even if the
browser cannot open the page. At a terminal, login does not show the address.

With --issuer alone, the endpoints are read from the metadata of the server (RFC 8414,
OpenID Connect). The client's secret, if it has one, is in ` + envClientSecret + `. Servers
other than Zoho's get a proof key (PKCE), unless their metadata excludes it.

Zoho requires the secret, --scope, and the registered --redirect-url. If the
user is in a data center other than --data-center, the record names that data center.`

// reserved lists the parameters that --param must not set.
var reserved = []string{
	"response_type", "client_id", "client_secret", "redirect_uri", "scope", "state",
	"code_challenge", "code_challenge_method", "resource",
}

// zoho reports whether the flags name a server of Zoho, or another server with the same API.
func (l *login) zoho() bool { return l.server.dataCenter+l.server.accounts != "" }

func (l *login) check(a *app) error {
	l.client, l.server.client = l.server.client, ""
	switch {
	case (l.user == "") == !l.findUser:
		return usagef("login takes one of: --user, --find-user")
	case l.client == "":
		return usagef("login needs --client")
	case l.wait <= 0:
		return usagef("--wait must be positive")
	case l.findUser && !l.zoho():
		return usagef("--find-user asks Zoho's CRM: it requires --data-center or --accounts-url")
	}
	for _, p := range l.params {
		if name, _, ok := strings.Cut(p, "="); !ok || name == "" || slices.Contains(reserved, name) {
			return usagef("--param takes NAME=VALUE, and not for %s", strings.Join(reserved, ", "))
		}
	}
	if err := l.checkRedirect(); err != nil {
		return err
	}
	if l.zoho() {
		return l.checkZoho(a)
	}
	return l.checkOther()
}

// checkRedirect checks the redirect URL, and sets the default. An https URL implies --paste.
func (l *login) checkRedirect() error {
	u, err := url.Parse(cmp.Or(l.redirect, "http://127.0.0.1/"))
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https":
		return usagef("--redirect-url must have the form http://127.0.0.1:PORT/PATH or https://HOST/PATH")
	case u.Scheme == "http" && !scheme.Loopback(u.Hostname()):
		return usagef("a redirect URL without TLS must be on this machine: the code would be sent unencrypted")
	case u.Scheme == "https":
		l.paste = true
	}
	l.redirect = u.String()
	return nil
}

func (l *login) checkZoho(a *app) error {
	u, _ := url.Parse(l.redirect)
	switch {
	case l.authURL+l.server.issuer+l.server.resource != "":
		return usagef("--auth-url, --issuer and --resource cannot be used with a Zoho server")
	case a.env(envClientSecret) == "":
		return usagef("Zoho requires the client's secret: set %s", envClientSecret)
	case len(l.scopes) == 0:
		return usagef("Zoho requires a scope: give --scope")
	case u.Scheme == "http" && (u.Port() == "" || u.Port() == "0"):
		return usagef("Zoho requires the registered redirect URL: give --redirect-url with its port")
	}
	_, err := l.server.config(a)
	return err
}

func (l *login) checkOther() error {
	switch {
	case l.server.environment+l.server.api != "":
		return usagef("--environment requires --data-center, and --api-url requires --accounts-url")
	case (l.authURL == "") != (l.server.tokenURL == ""):
		return usagef("--auth-url and --token-url must be used together")
	case l.authURL == "" && l.server.issuer == "":
		return usagef("name the server: give --issuer, --auth-url and --token-url, or --data-center of Zoho")
	}
	for name, text := range map[string]string{"auth-url": l.authURL, "token-url": l.server.tokenURL, "issuer": l.server.issuer} {
		if text == "" || name == "issuer" && l.authURL != "" {
			continue // an issuer to which login sends no request may have any form
		}
		if _, err := scheme.ParseEndpoint(text); err != nil {
			return usagef("--%s: %w", name, err)
		}
		if name == "issuer" && !strings.Contains(text, "://") {
			return usagef("--issuer is not a URL: it is written as the server writes it, such as https://login.example.com")
		}
	}
	return nil
}

// A consent is a login in progress.
type consent struct {
	*login
	a        *app
	config   initializer.Config // configuration for exchanging the code
	request  oauth2.Config      // configuration for the consent URL
	options  []oauth2.AuthCodeOption
	state    string
	verifier string // verifier of PKCE; empty without PKCE
	iss      issuerCheck
}

// begun returns a new consent, without asking the user. It discovers the endpoints of the server if
// the flags do not name them.
func (a *app) begun(ctx context.Context, l *login) (*consent, error) {
	c := &consent{login: l, a: a, state: rand.Text()}
	endpoints := metadata{Authorization: l.authURL, Token: l.server.tokenURL}
	if !l.zoho() {
		if l.authURL == "" {
			var err error
			if endpoints, err = a.discover(ctx, l.server.issuer); err != nil {
				return nil, err
			}
		}
		l.server.tokenURL, l.server.client = endpoints.Token, l.client
		c.iss = issuerCheck{l.server.issuer, endpoints.SendsIssuer}
	}
	var err error
	if c.config, err = l.server.config(a); err != nil {
		return nil, err
	}
	c.request = oauth2.Config{ClientID: l.client, Scopes: l.scopes, Endpoint: oauth2.Endpoint{AuthURL: endpoints.Authorization}}
	if l.zoho() {
		c.request.Endpoint.AuthURL = strings.TrimSuffix(c.config.Environment.AccountsURL, "/") + "/oauth/v2/auth"
		c.request.Scopes = []string{strings.Join(l.scopes, ",")}
		// Without these two parameters, Zoho returns no refresh token, or returns one only after
		// the first consent.
		c.options = append(c.options, oauth2.AccessTypeOffline, oauth2.SetAuthURLParam("prompt", "consent"))
	} else if endpoints.knowsPKCE() {
		c.verifier = oauth2.GenerateVerifier()
		c.options = append(c.options, oauth2.S256ChallengeOption(c.verifier))
		c.config.ExchangeOptions = append(c.config.ExchangeOptions, oauth2.VerifierOption(c.verifier))
	}
	if l.server.resource != "" {
		c.options = append(c.options, oauth2.SetAuthURLParam("resource", l.server.resource))
	}
	for _, p := range l.params {
		name, value, _ := strings.Cut(p, "=")
		c.options = append(c.options, oauth2.SetAuthURLParam(name, value))
	}
	return c, nil
}

func (a *app) login(ctx context.Context, s *store, l *login) error {
	c, err := a.begun(ctx, l)
	if err != nil {
		return err
	}
	// If the store cannot be used, login fails before the user is asked. If the name of the user is
	// unknown, the look-up uses a name that no user has.
	if _, err := s.FindToken(ctx, c.identity(tokenstore.Token{UserName: cmp.Or(l.user, "-")})); err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		return err
	}
	code, err := c.ask(ctx)
	if err != nil {
		return err
	}
	t, err := c.exchange(ctx, code)
	if err != nil {
		return err
	}
	saved, err := s.SaveToken(ctx, t)
	if err != nil {
		return fmt.Errorf("the tokens could not be stored, and are lost: log in again: %w", err)
	}
	if saved.RefreshToken == "" {
		a.note("the server gave no refresh token: when the access token expires, the user has to log in again. Many servers want --scope offline_access or --param access_type=offline")
	}
	return a.printRecord(saved, false)
}

// identity returns t with the client, issuer and resource from the flags of login.
func (c *consent) identity(t tokenstore.Token) tokenstore.Token {
	t.ClientID = c.client
	if !c.zoho() {
		t.Issuer, t.Resource = cmp.Or(c.server.issuer, initializer.IssuerOf(c.server.tokenURL)), c.server.resource
	}
	return t
}

// ask asks the user for consent, and returns the code in the answer. The error matches
// errNoConsent if no answer arrives within --wait.
func (c *consent) ask(ctx context.Context) (tokenstore.Secret, error) {
	r, err := c.receiver(ctx)
	if err != nil {
		return "", err
	}
	defer r.close()
	c.request.RedirectURL = r.url
	c.a.showConsent(c.request.AuthCodeURL(c.state, c.options...), c.paste)
	if c.open {
		if err := openBrowser(ctx, c.request.AuthCodeURL(c.state, c.options...)); err != nil {
			c.a.note("no browser could be opened: %v", err)
		}
	}
	waiting, cancel := context.WithTimeoutCause(ctx, c.wait, errNoConsent)
	defer cancel()
	answer, err := r.receive(waiting)
	if waiting.Err() != nil {
		return "", context.Cause(waiting)
	}
	if err != nil {
		return "", err
	}
	return c.code(answer)
}

// exchange exchanges a code for tokens, and returns the record to save. The code is stored only in
// memory, because after an interruption the user logs in again.
func (c *consent) exchange(ctx context.Context, code tokenstore.Secret) (tokenstore.Token, error) {
	config := c.config
	config.Store, config.Now, config.FindUser = memstore.New(nil), c.a.now, c.findUser
	config.Token = tokenstore.Token{UserName: c.user, ClientID: c.client, GrantToken: code, RedirectURL: c.request.RedirectURL}
	if c.zoho() {
		config.Token.ClientSecret = tokenstore.Secret(c.a.env(envClientSecret))
	} else {
		config.OAuth2.RedirectURL = c.request.RedirectURL
	}
	client, err := initializer.New(ctx, config)
	if err != nil {
		return tokenstore.Token{}, err
	}
	t, err := client.Token(ctx)
	switch {
	case err != nil:
		return tokenstore.Token{}, err
	case t.UserName == "":
		return tokenstore.Token{}, fmt.Errorf("%w: Zoho does not say whose the token is: give --user, or the scopes ZohoCRM.users.READ and ZohoCRM.org.READ", errInput)
	}
	t.ID, t.GrantToken = "", ""
	if !c.zoho() {
		t.Scope = cmp.Or(t.Scope, strings.Join(c.scopes, " ")) // a server may omit an unchanged scope: RFC 6749, 5.1
	}
	return t, nil
}
