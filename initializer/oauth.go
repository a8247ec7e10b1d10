package initializer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// A standard is an authorization server that implements RFC 6749. Package golang.org/x/oauth2 sends
// the token requests. This package reads the responses, because x/oauth2 discards the tokens in a
// response if another member cannot be decoded.
type standard struct {
	judge
	conf      *oauth2.Config
	options   []oauth2.AuthCodeOption // options for the exchange
	resource  string                  // the parameter of RFC 8707
	revokeURL string
	http      *http.Client
	style     *atomic.Int64 // see Config.style
}

func newStandard(c Config, h *http.Client) *standard {
	return &standard{
		judge: judge{c.book(), c.Now, c.Logger}, conf: c.OAuth2, options: c.ExchangeOptions, resource: c.Resource, revokeURL: c.RevokeURL,
		http: h, style: c.style,
	}
}

// A request is a function that makes x/oauth2 send one request.
type request func(context.Context, *oauth2.Config) error

const resourceParam = "resource" // RFC 8707, 2

// exchange exchanges a one-time code. Some servers consume a code even if they refuse the request.
// The known servers of this kind require the client's credentials in the body, so exchange tries
// the body first. A server that accepts only the header authenticates the client before it checks
// the code, as RFC 6749 requires (4.1.3). exchange therefore sends a code a second time only if the
// server refused the client.
func (s *standard) exchange(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	options := s.options
	if s.resource != "" {
		options = append(slices.Clone(options), oauth2.SetAuthURLParam(resourceParam, s.resource))
	}
	do := func(ctx context.Context, c *oauth2.Config) error {
		_, err := c.Exchange(ctx, string(t.GrantToken), options...)
		return err
	}
	repeated := false
	minted, err := s.ask(ctx, t, do, s.styles(true), func(v *verdict) bool {
		repeated = v.meaning == meansClient
		return repeated
	})
	if err != nil && repeated {
		s.logger.WarnContext(ctx, "initializer: a code was refused that was sent twice, to find out how the client authenticates; set OAuth2.Endpoint.AuthStyle", "error", err)
	}
	return minted, err
}

// refresh requests tokens with the refresh token of t. It may repeat a refused request, because a
// refusal does not consume the refresh token. refresh uses package clientcredentials, because the
// TokenSource of an oauth2.Config does not send the resource.
func (s *standard) refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {string(t.RefreshToken)}}
	if s.resource != "" {
		form.Set(resourceParam, s.resource)
	}
	do := func(ctx context.Context, c *oauth2.Config) error {
		own := clientcredentials.Config{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret,
			TokenURL: c.Endpoint.TokenURL, AuthStyle: c.Endpoint.AuthStyle, EndpointParams: form,
		}
		_, err := own.Token(ctx)
		return err
	}
	return s.ask(ctx, t, do, s.styles(t.ClientSecret == ""), mayBeOfClient)
}

// mayBeOfClient reports whether a refusal might be caused by the style in which the client
// authenticates. Many servers report an error other than invalid_client for the wrong style.
func mayBeOfClient(v *verdict) bool { return v.definite && v.meaning != meansConsent }

// styles returns the styles of client authentication to try, in order. If the style is unknown,
// styles returns the header, which every server must support (RFC 6749, 2.3.1), and then the body.
// If bodyFirst is true, the body comes first. A client without a secret identifies itself in the
// body (3.2.1).
func (s *standard) styles(bodyFirst bool) []oauth2.AuthStyle {
	known := oauth2.AuthStyle(s.style.Load())
	switch {
	case known != oauth2.AuthStyleAutoDetect:
		return []oauth2.AuthStyle{known}
	case bodyFirst:
		return []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader}
	}
	return []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
}

// ask sends a request with the first of the styles. If the server refuses the request, ask passes
// the refusal to the function again. If that function returns true, ask repeats the request with
// the second style. If the server accepts a style, ask stores that style in s.style. ask does not
// use the style detection of x/oauth2, because x/oauth2 repeats every failed request. If a response
// with a rotated refresh token is lost, repeating the request can make the server revoke all
// tokens.
func (s *standard) ask(ctx context.Context, t tokenstore.Token, do request, styles []oauth2.AuthStyle, again func(*verdict) bool) (tokenstore.Token, error) {
	minted, first, err := s.askWith(ctx, t, styles[0], do)
	switch {
	case len(styles) == 1 || err != nil || first != nil && !again(first):
		return minted, first.orNil(err)
	case first == nil:
		s.style.Store(int64(styles[0]))
		return minted, nil
	}
	minted, second, err := s.askWith(ctx, t, styles[1], do)
	switch {
	case err != nil:
		return minted, err
	case second == nil:
		s.style.Store(int64(styles[1]))
		return minted, nil
	case second.meaning == meansConsent:
		// The server accepted the client with the second style, and refused the token.
		s.style.Store(int64(styles[1]))
	case first.meaning == meansUnknown && second.meaning == meansClient:
		return minted, first.RefreshError // the server accepts the client with the first style
	}
	return minted, second.RefreshError
}

// orNil returns err or, if err is nil, the refusal v. A nil v means that there is no refusal.
func (v *verdict) orNil(err error) error {
	if err != nil || v == nil {
		return err
	}
	return v.RefreshError
}

func (s *standard) askWith(ctx context.Context, t tokenstore.Token, style oauth2.AuthStyle, do request) (tokenstore.Token, *verdict, error) {
	secrets := secretsOf(t)
	asked := s.now() // before the request, so that ExpiresAt is not too late
	endpoint := s.conf.Endpoint
	endpoint.AuthStyle = style
	conf := &oauth2.Config{
		ClientID: t.ClientID, ClientSecret: string(t.ClientSecret),
		Endpoint: endpoint, RedirectURL: t.RedirectURL, Scopes: s.conf.Scopes,
	}
	h := *s.http
	tap := &tap{base: h.Transport}
	h.Transport = tap
	err := do(context.WithValue(ctx, oauth2.HTTPClient, &h), conf)
	switch {
	case tap.reply == nil && ctx.Err() != nil:
		return tokenstore.Token{}, nil, unreachable(ctx.Err())
	case tap.reply == nil && err != nil:
		return tokenstore.Token{}, nil, unreachable(err, secrets...)
	case tap.reply == nil:
		return tokenstore.Token{}, nil, unreachable(errNoRequest)
	}
	m, refused := s.rule(*tap.reply, secrets)
	if refused != nil {
		return tokenstore.Token{RefreshToken: m.token("refresh_token")}, refused, nil
	}
	minted := s.minted(ctx, *tap.reply, m, t)
	lifetime := m.lifetime("expires_in")
	if m["expires_in"] == nil {
		lifetime = m.lifetime("expires") // Deezer uses this name
	}
	if lifetime > 0 {
		minted.ExpiresAt = asked.Add(lifetime)
	}
	return minted, nil, nil
}

// A tap captures the response to the request that x/oauth2 sends, and returns errTapped to
// x/oauth2 in place of the response.
type tap struct {
	base  http.RoundTripper
	reply *reply
}

var (
	errTapped    = errors.New("the answer is read elsewhere")
	errNoRequest = errors.New("there was no request")
)

// RoundTrip implements http.RoundTripper.
func (t *tap) RoundTrip(req *http.Request) (*http.Response, error) {
	base := t.base
	if base == nil {
		base = http.DefaultTransport
	}
	res, err := base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	got, err := read(res, maxAnswer)
	if err != nil {
		return nil, err
	}
	t.reply = &got
	return nil, errTapped
}

// revoke revokes token according to RFC 7009. It may send the request with both styles of
// authentication, because revoking a token twice is harmless.
func (s *standard) revoke(ctx context.Context, t tokenstore.Token, token tokenstore.Secret) error {
	if s.revokeURL == "" {
		return errors.New("no RevokeURL is configured")
	}
	secrets := secretsOf(t)
	var result error
	for _, style := range s.styles(t.ClientSecret == "") {
		res, err := s.postRevocation(ctx, t, token, style)
		if err != nil {
			return unreachable(err, secrets...)
		}
		if result = s.revoked(res, secrets); result == nil {
			return nil
		}
		if _, refused := s.rule(res, secrets); refused == nil || !mayBeOfClient(refused) {
			return result
		}
	}
	return result
}

func (s *standard) postRevocation(ctx context.Context, t tokenstore.Token, token tokenstore.Secret, style oauth2.AuthStyle) (reply, error) {
	form := url.Values{"token": {string(token)}}
	if style == oauth2.AuthStyleInParams {
		form.Set("client_id", t.ClientID)
		if t.ClientSecret != "" {
			form.Set("client_secret", string(t.ClientSecret))
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.revokeURL, strings.NewReader(form.Encode()))
	if err != nil {
		return reply{}, errors.New("RevokeURL is not a URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if style != oauth2.AuthStyleInParams {
		req.SetBasicAuth(url.QueryEscape(t.ClientID), url.QueryEscape(string(t.ClientSecret)))
	}
	return send(s.http, req, maxAnswer)
}
