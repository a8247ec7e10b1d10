package oauth2keep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/initializer"
	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// An As identifies a token by its user, authorization server and resource. User is required.
type As struct {
	// User is the name of the user. A program with one user can choose any name.
	User string

	// Issuer is the authorization server. Empty means the URL of the token endpoint, as
	// initializer.IssuerOf returns it. NoIssuer selects records that were written without an
	// issuer.
	Issuer string

	// Resource is the API that the token is for (RFC 8707), or empty.
	Resource string
}

// NoIssuer is the value of As.Issuer for records without an issuer. See initializer.NoIssuer.
const NoIssuer = initializer.NoIssuer

// A Keeper keeps the tokens of one user at one authorization server, for one resource, in a store.
// Its methods are safe for concurrent use. A method with a parameter conf returns an error matching
// tokenstore.ErrInvalidToken if As.User is empty, or if conf is nil or has no ClientID.
type Keeper struct {
	store tokenstore.TokenStore
	as    As
	conf  *initializer.Config // a pointer, because package fmt prints a nested pointer as an address
}

// New returns a Keeper for the token that the parameter as identifies. New does not call store.
func New(store tokenstore.TokenStore, as As) *Keeper {
	return &Keeper{store: store, as: as, conf: &initializer.Config{}}
}

// With returns a copy of k with the settings in c, such as RevokeURL, Hosts, TokenTypes and Logger.
// The copy ignores Store, OAuth2, Token, Issuer and Resource of c. A method of the copy uses
// c.HTTPClient if its context has no client under the key oauth2.HTTPClient.
func (k *Keeper) With(c initializer.Config) *Keeper {
	return &Keeper{store: k.store, as: k.as, conf: &c}
}

// config returns the configuration with which package initializer finds the record.
func (k *Keeper) config(ctx context.Context, conf *oauth2.Config) (initializer.Config, error) {
	if conf == nil || conf.ClientID == "" || k.as.User == "" {
		return initializer.Config{}, fmt.Errorf("oauth2keep: %w: As.User and the ClientID of the oauth2.Config are needed", tokenstore.ErrInvalidToken)
	}
	c := *k.conf
	c.Store, c.OAuth2, c.Issuer, c.Resource = k.store, conf, k.as.Issuer, k.as.Resource
	c.Token = tokenstore.Token{UserName: k.as.User, ClientID: conf.ClientID}
	if own, ok := ctx.Value(oauth2.HTTPClient).(*http.Client); ok {
		c.HTTPClient = own
	}
	return c, nil
}

// TokenSource is conf.TokenSource with persistence: the returned source starts with the kept token,
// and keeps every token that the source obtains. tok is a token from another source, or nil.
// TokenSource keeps tok if tok is newer than the kept token, by the rules of initializer.Offer.
// With a kept token, TokenSource reads the store once if tok is nil, and otherwise two or three
// times.
//
// If no token is kept, or the server permanently refuses the kept token, the error matches
// ErrReauthRequired. TokenSource refreshes an expired token before it returns. As in x/oauth2, the
// returned source uses ctx for all requests, and sends them with the HTTP client that ctx has under
// the key oauth2.HTTPClient.
//
// The tokens of the source have no refresh token, so that no other code refreshes the tokens. The
// Extra method of these tokens works as in x/oauth2; see initializer.Client.TokenSource.
func (k *Keeper) TokenSource(ctx context.Context, conf *oauth2.Config, tok *oauth2.Token) (oauth2.TokenSource, error) {
	client, err := k.open(ctx, conf, tok)
	if client == nil {
		return nil, asRetrieveError(err)
	}
	return source{client.TokenSource(ctx)}, nil
}

type source struct{ oauth2.TokenSource }

// Token implements oauth2.TokenSource.
func (s source) Token() (*oauth2.Token, error) {
	t, err := s.TokenSource.Token()
	return t, asRetrieveError(err)
}

// Client is like TokenSource, but returns an HTTP client that sends the token. Unlike a client of
// x/oauth2, the HTTP client refreshes a token that the API rejects. A request fails with
// ErrTokenType if the token cannot be sent because of its type, and with ErrUntrustedURL if the
// token must not be sent to the URL of the request. See initializer.Client.HTTPClient.
func (k *Keeper) Client(ctx context.Context, conf *oauth2.Config, tok *oauth2.Token) (*http.Client, error) {
	client, err := k.open(ctx, conf, tok)
	if client == nil {
		return nil, asRetrieveError(err)
	}
	return client.HTTPClient(ctx), nil
}

// Transport is like Client, but returns only the Transport of the HTTP client.
func (k *Keeper) Transport(ctx context.Context, conf *oauth2.Config, tok *oauth2.Token) (http.RoundTripper, error) {
	client, err := k.Client(ctx, conf, tok)
	if err != nil {
		return nil, err
	}
	return client.Transport, nil
}

// Exchange is conf.Exchange with persistence: Exchange exchanges a one-time code for a token that
// replaces the kept token. opts are options for the exchange, such as the result of
// oauth2.VerifierOption. The returned token has no refresh token. The program need not pass the
// token to TokenSource.
//
// Exchange stores the code before it sends the request, and stores the response before it returns.
// If the program is killed after the response is stored, the next Exchange of the same code
// returns the token without a request. If the server permanently refuses the code, the error
// matches ErrReauthRequired, even if a token is kept. If the error matches ErrNotPersisted, the
// returned token can be used, but is not stored. If there is any other error, the token is nil.
func (k *Keeper) Exchange(ctx context.Context, conf *oauth2.Config, code string, opts ...oauth2.AuthCodeOption) (*oauth2.Token, error) {
	c, err := k.config(ctx, conf)
	if err != nil {
		return nil, err
	}
	// The user is left out, so that Exchange does not return the kept token if the code is refused.
	c.Token.UserName, c.Token.GrantToken, c.ExchangeOptions = "", tokenstore.Secret(code), opts
	client, err := initializer.New(ctx, c)
	if client == nil {
		return nil, asRetrieveError(err)
	}
	t, err := client.Token(ctx)
	if err == nil && t.UserName != k.as.User {
		// The new tokens must replace the kept tokens, even if the kept tokens expire later.
		user := t
		user.UserName, user.ClientSecret, user.RedirectURL, user.APIDomain = k.as.User, "", "", ""
		_, err = k.store.SaveToken(ctx, user)
	}
	t.RefreshToken = ""
	if err != nil && (t.AccessToken == "" || !errors.Is(err, ErrNotPersisted)) {
		return nil, asRetrieveError(err)
	}
	return ToOAuth2(t), err
}

// Forget revokes the kept token if k has a RevokeURL (see With), and then deletes the token. If the
// server does not revoke the token, Forget keeps the token and returns an error. If no token is
// kept, Forget returns no error. See initializer.Forget.
func (k *Keeper) Forget(ctx context.Context, conf *oauth2.Config) (initializer.Forgotten, error) {
	c, err := k.config(ctx, conf)
	if err != nil {
		return initializer.Forgotten{}, err
	}
	return initializer.Forget(ctx, c)
}

// Format implements fmt.Formatter. A Keeper prints as the name of its type.
func (k *Keeper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "*oauth2keep.Keeper") }

// open returns a Client for the kept token. If the error matches ErrNotPersisted, the Client is not
// nil, and later tries again to store the token.
func (k *Keeper) open(ctx context.Context, conf *oauth2.Config, tok *oauth2.Token) (*initializer.Client, error) {
	c, err := k.config(ctx, conf)
	if err != nil {
		return nil, err
	}
	if tok != nil {
		given, err := FromOAuth2(tok)
		if err != nil {
			return nil, err
		}
		if _, err := initializer.Offer(ctx, c, given); err != nil {
			return nil, err
		}
		// The Client uses this refresh token if the server refuses the kept token.
		c.Token.RefreshToken = given.RefreshToken
	}
	return initializer.New(ctx, c)
}
