package initializer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// standard is an authorization server as RFC 6749 has it, asked through
// golang.org/x/oauth2.
type standard struct {
	conf      *oauth2.Config
	options   []oauth2.AuthCodeOption // of the exchange
	revokeURL string
	http      *http.Client
	now       func() time.Time
	style     atomic.Int64 // how the client authenticates, once that is known
}

func newStandard(c Config, h *http.Client) *standard {
	s := &standard{conf: c.OAuth2, options: c.ExchangeOptions, revokeURL: c.RevokeURL, http: h, now: c.Now}
	s.style.Store(int64(c.OAuth2.Endpoint.AuthStyle))
	return s
}

func (s *standard) exchange(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	return s.ask(ctx, t, func(ctx context.Context, c *oauth2.Config) (*oauth2.Token, error) {
		return c.Exchange(ctx, string(t.GrantToken), s.options...)
	})
}

func (s *standard) refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	return s.ask(ctx, t, func(ctx context.Context, c *oauth2.Config) (*oauth2.Token, error) {
		return c.TokenSource(ctx, &oauth2.Token{RefreshToken: string(t.RefreshToken)}).Token()
	})
}

// ask does a request. If it is not known how the server wants the client to
// authenticate, the header is tried first, and the body if the client is refused.
// What x/oauth2 does by itself is to repeat every request that fails: with
// rotating refresh tokens, where the first may have been granted and its answer
// lost, that would be the reuse which revokes them all.
func (s *standard) ask(ctx context.Context, t tokenstore.Token, do func(context.Context, *oauth2.Config) (*oauth2.Token, error)) (tokenstore.Token, error) {
	style := oauth2.AuthStyle(s.style.Load())
	if style != oauth2.AuthStyleAutoDetect {
		return s.askWith(ctx, t, style, do)
	}
	style = oauth2.AuthStyleInHeader
	minted, err := s.askWith(ctx, t, style, do)
	var refused *tokenstore.RefreshError
	if errors.As(err, &refused) && ofClient(refused.Code) {
		style = oauth2.AuthStyleInParams
		minted, err = s.askWith(ctx, t, style, do)
	}
	if err == nil {
		s.style.Store(int64(style))
	}
	return minted, err
}

func (s *standard) askWith(ctx context.Context, t tokenstore.Token, style oauth2.AuthStyle, do func(context.Context, *oauth2.Config) (*oauth2.Token, error)) (tokenstore.Token, error) {
	asked := s.now()
	endpoint := s.conf.Endpoint
	endpoint.AuthStyle = style
	conf := &oauth2.Config{
		ClientID: t.ClientID, ClientSecret: string(t.ClientSecret),
		Endpoint: endpoint, RedirectURL: t.RedirectURL, Scopes: s.conf.Scopes,
	}
	got, err := do(context.WithValue(ctx, oauth2.HTTPClient, s.http), conf)
	if err != nil {
		return tokenstore.Token{}, s.refusal(ctx, err, asked, secretsOf(t))
	}
	minted := tokenstore.Token{
		AccessToken:  tokenstore.Secret(got.AccessToken),
		RefreshToken: tokenstore.Secret(got.RefreshToken),
	}
	switch {
	case got.ExpiresIn > 0:
		minted.ExpiresAt = asked.Add(min(time.Duration(got.ExpiresIn)*time.Second, maxLife))
	case !got.Expiry.IsZero():
		minted.ExpiresAt = asked.Add(min(max(time.Until(got.Expiry), time.Second), maxLife))
	}
	if tokenstore.Validate(minted) != nil {
		return tokenstore.Token{}, noAnswer(http.StatusOK, nil, asked)
	}
	return minted, nil
}

// refusal translates an error of x/oauth2. Of its errors nothing but the code is
// kept: they hold the response, the request, and what could not be parsed.
func (s *standard) refusal(ctx context.Context, err error, now time.Time, secrets []string) error {
	var (
		r *oauth2.RetrieveError
		u *url.Error
	)
	switch {
	case ctx.Err() != nil:
		return unreachable(ctx.Err())
	case errors.As(err, &r):
		status := r.Response.StatusCode
		switch {
		case r.ErrorCode == "" && status == http.StatusUnauthorized:
			return refusal("invalid_client", r.Response.Header, now) // what the status means here
		case r.ErrorCode == "" || status == http.StatusTooManyRequests:
			return noAnswer(status, r.Response.Header, now)
		case r.ErrorCode == "access_denied":
			return &tokenstore.RefreshError{Code: r.ErrorCode, Permanent: true}
		}
		return refusal(r.ErrorCode, r.Response.Header, now, secrets...)
	case errors.As(err, &u):
		return unreachable(err, secrets...)
	}
	return noAnswer(http.StatusOK, nil, now)
}

// revoke implements RFC 7009.
func (s *standard) revoke(ctx context.Context, t tokenstore.Token, token tokenstore.Secret) error {
	if s.revokeURL == "" {
		return errors.New("no RevokeURL is configured")
	}
	secrets := secretsOf(t)
	style := oauth2.AuthStyle(s.style.Load())
	form := url.Values{"token": {string(token)}}
	if style == oauth2.AuthStyleInParams {
		form.Set("client_id", t.ClientID)
		form.Set("client_secret", string(t.ClientSecret))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.revokeURL, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("RevokeURL is no URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if style != oauth2.AuthStyleInParams {
		req.SetBasicAuth(url.QueryEscape(t.ClientID), url.QueryEscape(string(t.ClientSecret)))
	}
	res, err := send(s.http, req, maxAnswer)
	if err != nil {
		return unreachable(err, secrets...)
	}
	if res.status == http.StatusOK {
		return nil
	}
	if a, ok := res.answer(); ok && a.Error != "" {
		return revoked(refusal(a.Error, res.header, s.now(), secrets...))
	}
	return noAnswer(res.status, res.header, s.now())
}
