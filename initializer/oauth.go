package initializer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// standard is an authorization server as RFC 6749 has it. Package
// golang.org/x/oauth2 makes the requests. The answers are read here, because it
// drops one that has tokens and beside them a member that it cannot decode.
type standard struct {
	judge
	conf      *oauth2.Config
	options   []oauth2.AuthCodeOption // of the exchange
	revokeURL string
	http      *http.Client
	logger    *slog.Logger
	style     *atomic.Int64 // how the client authenticates, once that is known
}

func newStandard(c Config, h *http.Client) *standard {
	return &standard{
		judge: judge{c.book(), c.Now}, conf: c.OAuth2, options: c.ExchangeOptions, revokeURL: c.RevokeURL,
		http: h, logger: c.Logger, style: c.style,
	}
}

// request has x/oauth2 make a request with a configuration.
type request func(context.Context, *oauth2.Config) error

// exchange trades a one-time code. Some servers take a code for used although they
// refuse the request. Those that are known to do so want the client's credentials
// in the body, and so the body is tried first; a server that takes them in the
// header only is one that knows RFC 6749, and identifies the client before it looks
// at the code (4.1.3). For the same reason a code is sent a second time only if
// the client was refused.
func (s *standard) exchange(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	do := func(ctx context.Context, c *oauth2.Config) error {
		_, err := c.Exchange(ctx, string(t.GrantToken), s.options...)
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

// refresh uses a refresh token. A request that was refused has used up nothing.
func (s *standard) refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	do := func(ctx context.Context, c *oauth2.Config) error {
		_, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: string(t.RefreshToken)}).Token()
		return err
	}
	return s.ask(ctx, t, do, s.styles(t.ClientSecret == ""), mayBeOfClient)
}

// mayBeOfClient reports whether a refusal may be of the way in which the client
// authenticates. Many servers that want another way say something else.
func mayBeOfClient(v *verdict) bool { return v.definite && v.meaning != meansConsent }

// styles returns the ways of authentication to try, in order: the one that is
// configured or has been found out; or else the header, which every server has to
// take (RFC 6749, 2.3.1), and the body. A client without a secret does not
// authenticate, and is named in the body (3.2.1).
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

// ask does a request, in the first of the styles. If it is not known how the server wants the client to
// authenticate, it is found out. x/oauth2 by itself repeats every request that
// fails: with rotating refresh tokens, where the first may have been granted and
// its answer lost, that is the reuse which revokes them all.
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
		// The client was accepted this time.
		s.style.Store(int64(styles[1]))
	case first.meaning == meansUnknown && second.meaning == meansClient:
		return minted, first.RefreshError // the server takes the first way
	}
	return minted, second.RefreshError
}

// orNil returns err or, if that is nil, the refusal, if there is one.
func (v *verdict) orNil(err error) error {
	if err != nil || v == nil {
		return err
	}
	return v.RefreshError
}

func (s *standard) askWith(ctx context.Context, t tokenstore.Token, style oauth2.AuthStyle, do request) (tokenstore.Token, *verdict, error) {
	secrets := secretsOf(t)
	asked := s.now() // the token is not younger than this
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
	minted := tokenstore.Token{AccessToken: m.token("access_token"), RefreshToken: m.token("refresh_token")}
	lifetime := m.lifetime("expires_in")
	if m["expires_in"] == nil {
		lifetime = m.lifetime("expires") // Deezer
	}
	if lifetime > 0 {
		minted.ExpiresAt = asked.Add(lifetime)
	}
	return minted, nil, nil
}

// A tap keeps the answer to the one request that x/oauth2 makes, and from it.
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

// revoke implements RFC 7009. To revoke a token twice does no harm.
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
		return reply{}, errors.New("RevokeURL is no URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if style != oauth2.AuthStyleInParams {
		req.SetBasicAuth(url.QueryEscape(t.ClientID), url.QueryEscape(string(t.ClientSecret)))
	}
	return send(s.http, req, maxAnswer)
}
