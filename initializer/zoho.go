package initializer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

const (
	maxAnswer = 64 << 10 // a token endpoint answers with less than one

	// Zoho's access tokens live an hour. Some answers do not say so.
	zohoLife = time.Hour

	// maxLife bounds what an answer may say.
	maxLife = 10 * 365 * 24 * time.Hour
)

// A server is an authorization server.
type server interface {
	// exchange trades the grant token of t for tokens, and refresh the refresh
	// token. They return only what is new. A refusal is a
	// *tokenstore.RefreshError.
	exchange(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error)
	refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Token, error)

	// revoke makes a refresh token, or an access token, useless.
	revoke(ctx context.Context, t tokenstore.Token, token tokenstore.Secret) error
}

// zoho is the accounts server of a data centre.
type zoho struct {
	env   Environment
	known bool // env is one of Zoho's own, so that an API domain tells the accounts server
	http  *http.Client
	now   func() time.Time
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
	asked := z.now() // the token is not younger than this
	res, err := z.post(ctx, t, "/oauth/v2/token", form)
	if err != nil {
		return tokenstore.Token{}, unreachable(err, secrets...)
	}
	a, ok := res.answer()
	switch {
	case ok && a.Error != "":
		code := a.Error
		if c := strings.ReplaceAll(strings.ToLower(code), "_", " "); c == "access denied" {
			refused := refusal(codeDenied, res.header, asked)
			refused.RetryAfter = max(refused.RetryAfter, throttleWait)
			return tokenstore.Token{}, refused
		}
		return tokenstore.Token{}, refusal(code, res.header, asked, secrets...)
	case !ok || a.AccessToken == "" || res.status != http.StatusOK:
		return tokenstore.Token{}, noAnswer(res.status, res.header, asked)
	}
	minted := tokenstore.Token{
		AccessToken:  tokenstore.Secret(a.AccessToken),
		RefreshToken: tokenstore.Secret(a.RefreshToken),
		ExpiresAt:    asked.Add(a.life()),
		APIDomain:    z.apiDomain(a, t),
	}
	return minted, nil
}

// apiDomain returns the API domain that the record is to have: where an answer
// says nothing, or nothing that a token can be sent to, the one that it has.
func (z *zoho) apiDomain(a answer, t tokenstore.Token) string {
	domain := strings.TrimSuffix(a.APIDomain, "/")
	switch {
	case usableURL(domain):
		return domain
	case t.APIDomain != "":
		return ""
	}
	return z.env.APIURL
}

func (z *zoho) revoke(ctx context.Context, t tokenstore.Token, token tokenstore.Secret) error {
	secrets := secretsOf(t)
	// In the body and not in the query: URLs end up in logs.
	res, err := z.post(ctx, t, "/oauth/v2/token/revoke", url.Values{"token": {string(token)}})
	if err != nil {
		return unreachable(err, secrets...)
	}
	a, ok := res.answer()
	switch {
	case ok && a.Error != "":
		return revoked(refusal(a.Error, res.header, z.now(), secrets...))
	case !ok || res.status != http.StatusOK:
		return noAnswer(res.status, res.header, z.now())
	}
	return nil
}

// revoked is the result of a revocation that was refused: what is not known is
// revoked.
func revoked(refused *tokenstore.RefreshError) error {
	if refused.Permanent {
		return nil
	}
	return refused
}

// accounts returns the accounts server for a record: that of the data centre in
// which its tokens are good.
func (z *zoho) accounts(t tokenstore.Token) string {
	if z.known {
		if e, ok := environmentOf(t.APIDomain); ok {
			return e.AccountsURL
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

// A reply is the whole of an HTTP response.
type reply struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the body was too long, or ended too early
}

// send does a request and reads the response.
func send(c *http.Client, req *http.Request, limit int64) (reply, error) {
	res, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if ctx := req.Context(); err != nil && ctx.Err() != nil {
		return reply{}, ctx.Err()
	}
	return reply{res.StatusCode, res.Header, body, err != nil || int64(len(body)) > limit}, nil
}

// An answer is what a token endpoint says.
type answer struct {
	AccessToken  string      `json:"access_token"`
	RefreshToken string      `json:"refresh_token"`
	APIDomain    string      `json:"api_domain"`
	ExpiresIn    json.Number `json:"expires_in"`
	ExpiresInSec json.Number `json:"expires_in_sec"`
	Error        string      `json:"error"`
}

// answer decodes the reply. What is wrong with one that is no answer is not told:
// decoders quote what they read.
func (r reply) answer() (a answer, ok bool) {
	if r.cut || json.Unmarshal(r.body, &a) != nil {
		return answer{}, false
	}
	return a, tokenstore.Validate(tokenstore.Token{
		AccessToken:  tokenstore.Secret(a.AccessToken),
		RefreshToken: tokenstore.Secret(a.RefreshToken),
	}) == nil
}

// life returns how long the access token lives. Old servers give it in
// milliseconds, and in seconds beside that.
func (a answer) life() time.Duration {
	unit := time.Second
	if a.ExpiresInSec != "" {
		unit = time.Millisecond
	}
	n, err := a.ExpiresIn.Float64()
	if err != nil || n <= 0 {
		return zohoLife
	}
	return time.Duration(min(n*float64(unit), float64(maxLife)))
}

// secretsOf returns what must not be repeated.
func secretsOf(t tokenstore.Token) []string {
	return []string{string(t.ClientSecret), string(t.RefreshToken), string(t.AccessToken), string(t.GrantToken)}
}

// The CRM calls that tell whose token it is.
const (
	usersPath = "/crm/v8/users?type=CurrentUser" // needs the scope ZohoCRM.users.READ
	orgPath   = "/crm/v8/org"                    // needs the scope ZohoCRM.org.READ
	maxWho    = 1 << 20
)

// who returns the user name that the SDKs give a record: "<email>:<zgid>".
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
	base := t.APIDomain
	if base == "" {
		base = z.env.APIURL
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return fmt.Errorf("%w: the API domain of the record is no URL", ErrServer)
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
