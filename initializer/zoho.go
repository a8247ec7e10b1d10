package initializer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// zohoLifetime is the assumed lifetime of an access token if the response states no lifetime.
const zohoLifetime = time.Hour

// A server sends requests to an authorization server.
type server interface {
	// exchange exchanges the one-time code of t for tokens, and refresh uses the refresh token of
	// t. Both methods return only the fields in the response. The error for a refusal is a
	// *tokenstore.RefreshError. If the response has a new refresh token but no usable access token,
	// the methods return the refresh token together with an error.
	exchange(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error)
	refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error)

	// revoke invalidates a refresh token or an access token.
	revoke(ctx context.Context, t tokenstore.Token, token tokenstore.Secret) error
}

// zoho implements server for Zoho's accounts servers.
type zoho struct {
	judge
	env   Environment
	known bool // both servers of env are Zoho's, so that the API domain determines the accounts server
	gate  gate
	http  *http.Client
}

func (z *zoho) exchange(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {t.ClientID},
		"client_secret": {string(t.ClientSecret)},
		"code":          {string(t.GrantToken)},
	}
	if t.RedirectURL != "" {
		form.Set("redirect_uri", t.RedirectURL)
	}
	return z.ask(ctx, t, form)
}

func (z *zoho) refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error) {
	return z.ask(ctx, t, url.Values{
		"grant_type":    {"refresh_token"},
		"client_id":     {t.ClientID},
		"client_secret": {string(t.ClientSecret)},
		"refresh_token": {string(t.RefreshToken)},
	})
}

func (z *zoho) ask(ctx context.Context, t tokenstore.Token, form url.Values) (tokenstore.Token, error) {
	secrets := secretsOf(t)
	asked := z.now() // before the request, so that ExpiresAt is not too late
	res, err := z.post(ctx, t, "/oauth/v2/token", form)
	if err != nil {
		return tokenstore.Token{}, unreachable(err, secrets...)
	}
	m, refused := z.rule(res, secrets)
	if refused != nil {
		return tokenstore.Token{RefreshToken: m.token("refresh_token")}, refused.RefreshError
	}
	// Old servers send expires_in in milliseconds, and expires_in_sec in addition.
	lifetime := cmp.Or(m.lifetime("expires_in_sec"), m.lifetime("expires_in"), zohoLifetime)
	minted := z.minted(ctx, res, m, t, "expires_in_sec", "api_domain")
	minted.ExpiresAt = asked.Add(lifetime)
	minted.APIDomain = z.apiDomain(m.text("api_domain"), t)
	return minted, nil
}

// apiDomain returns the new API domain for the record t. The parameter said is the domain in the
// response. If tokens may be sent to that domain, apiDomain returns it without final slashes.
// Otherwise, apiDomain returns "", so that t keeps its API domain. If t has no API domain,
// apiDomain returns the APIURL of the Environment instead.
func (z *zoho) apiDomain(said string, t tokenstore.Token) string {
	if _, err := z.gate.base(said); said != "" && err == nil {
		return strings.TrimRight(said, "/")
	}
	if t.APIDomain != "" {
		return ""
	}
	return z.env.APIURL
}

func (z *zoho) revoke(ctx context.Context, t tokenstore.Token, token tokenstore.Secret) error {
	secrets := secretsOf(t)
	// The token is in the body rather than the query, because servers log URLs.
	res, err := z.post(ctx, t, "/oauth/v2/token/revoke", url.Values{"token": {string(token)}})
	if err != nil {
		return unreachable(err, secrets...)
	}
	if _, ok := res.members(); res.good() && !ok {
		return z.verdict(codeInvalidResponse, meansServer, res).RefreshError
	}
	return z.revoked(res, secrets)
}

// revoked returns nil if r means that the token is invalid, and otherwise the refusal. A token
// that the server does not know counts as revoked. Any success status without an error in the body
// is a success (RFC 7009, 2.2).
func (j judge) revoked(r reply, secrets []string) error {
	m, ok := r.members()
	if r.good() && (!ok || !complains(m)) {
		return nil
	}
	_, refused := j.rule(r, secrets)
	if refused != nil && refused.meaning != meansConsent {
		return refused.RefreshError
	}
	return nil
}

// accounts returns the accounts server of the data center in which the tokens of t are valid.
func (z *zoho) accounts(t tokenstore.Token) string {
	if z.known {
		if url, ok := accountsFor(t.APIDomain); ok {
			return url
		}
	}
	return z.env.AccountsURL
}

func (z *zoho) post(ctx context.Context, t tokenstore.Token, path string, form url.Values) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, z.accounts(t)+path, strings.NewReader(form.Encode()))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return send(z.http, req, maxAnswer)
}

// secretsOf returns the secrets of t, which an error must not quote.
func secretsOf(t tokenstore.Token) []string {
	return []string{string(t.ClientSecret), string(t.RefreshToken), string(t.AccessToken), string(t.GrantToken)}
}

// Constants for the CRM calls that determine the owner of a token.
const (
	usersPath = "/crm/v8/users?type=CurrentUser" // needs the scope ZohoCRM.users.READ
	orgPath   = "/crm/v8/org"                    // needs the scope ZohoCRM.org.READ
	maxWho    = 1 << 20                          // maximum size of a response in bytes
)

// who returns the name of the user of t in the form that the SDKs use: "<email>:<zgid>".
func (z *zoho) who(ctx context.Context, t tokenstore.Token) (string, error) {
	var users struct {
		Users []struct {
			Email string `json:"email"`
		} `json:"users"`
	}
	if err := z.get(ctx, t, usersPath, &users); err != nil {
		return "", err
	}
	var org struct {
		Org []struct {
			ZGID json.Number `json:"zgid"`
		} `json:"org"`
	}
	if err := z.get(ctx, t, orgPath, &org); err != nil {
		return "", err
	}
	if len(users.Users) == 0 || len(org.Org) == 0 || users.Users[0].Email == "" || org.Org[0].ZGID == "" {
		return "", fmt.Errorf("%w: the CRM did not say whose token it is", ErrServer)
	}
	return users.Users[0].Email + ":" + org.Org[0].ZGID.String(), nil
}

func (z *zoho) get(ctx context.Context, t tokenstore.Token, path string, into any) error {
	base, err := z.gate.base(cmp.Or(t.APIDomain, z.env.APIURL))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+path, nil)
	if err != nil {
		return fmt.Errorf("%w: the API domain of the record is not a URL", ErrServer)
	}
	req.Header.Set("Authorization", zohoScheme+" "+string(t.AccessToken))
	res, err := send(z.http, req, maxWho)
	if err != nil {
		return unreachable(err, secretsOf(t)...)
	}
	if res.status != http.StatusOK || res.cut || json.Unmarshal(res.body, into) != nil {
		return fmt.Errorf("%w: the CRM answered with status %d", ErrServer, res.status)
	}
	return nil
}
