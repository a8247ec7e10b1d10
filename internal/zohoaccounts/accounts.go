package zohoaccounts

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// accessDenied is the error code of a throttled request.
const accessDenied = "Access Denied"

// A Client is an OAuth client.
type Client struct {
	ID, Secret string

	// DataCenter is the data center in which the client is registered, such as "us" or "eu".
	// Empty means the data center of Options.
	DataCenter string

	// RedirectURL, if not empty, is the redirect URL that a request to exchange a code must
	// contain.
	RedirectURL string
}

// A Consent is the consent of a user to a client.
type Consent struct {
	ClientID    string
	Email, ZGID string // the user's address and the organization's number

	// Scopes lists the CRM scopes of the consent; nil means all scopes.
	Scopes []string

	// Environment is "sandbox" or "developer"; empty means production.
	Environment string

	// Online means that no refresh token is issued.
	Online bool
}

// An owner is the key by which refresh tokens are counted.
type owner struct{ client, email, zgid string }

type code struct {
	consent Consent
	expires time.Time
	family  *family // the family for which the code was exchanged, or nil
}

// A family holds the tokens issued for one consent: the current refresh token, earlier refresh
// tokens, and the access tokens.
type family struct {
	consent Consent
	refresh string // the current refresh token; empty if the family has none
	revoked bool
	minted  []time.Time // when recent access tokens were issued
	living  []string    // valid access tokens, oldest first
}

type access struct {
	family  *family
	expires time.Time
}

// AddClient registers a client.
func (s *Server) AddClient(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	or(&c.DataCenter, s.o.DataCenter)
	s.clients[c.ID] = c
}

// Code issues a grant code, as if the user had just consented.
func (s *Server) Code(c Consent) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := newToken()
	s.codes[text] = &code{consent: c, expires: s.Now().Add(s.o.CodeLife)}
	return text
}

// Tokens issues a refresh token and its first access token, as if a code had just been
// exchanged.
func (s *Server) Tokens(c Consent) (refresh, accessToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.newFamily(c)
	return f.refresh, s.mint(f)
}

// RevokeTokens revokes the refresh tokens of a user for a client, and the access tokens of these
// refresh tokens. Users can do the same on Zoho's pages.
func (s *Server) RevokeTokens(clientID, email string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o, families := range s.consents {
		if o.client == clientID && o.email == email {
			for _, f := range families {
				s.kill(f)
			}
		}
	}
}

// Expire invalidates an access token immediately.
func (s *Server) Expire(accessToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.access, accessToken)
}

// Alive reports whether an access token is valid now.
func (s *Server) Alive(accessToken string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive(accessToken) != nil
}

func newToken() string { return "1000." + strings.ToLower(rand.Text()) }

func (s *Server) exchange(r *Request) response {
	client, refused := s.client(r)
	if refused != nil {
		return *refused
	}
	c := s.codes[r.Form.Get("code")]
	switch {
	case c == nil || c.consent.ClientID != client.ID:
		return s.invalidCode()
	case c.family != nil:
		if s.o.Strict {
			s.kill(c.family) // RFC 6749, 4.1.2
		}
		return s.invalidCode()
	case !s.Now().Before(c.expires):
		return s.invalidCode()
	case client.RedirectURL != "" && r.Form.Get("redirect_uri") != client.RedirectURL:
		return s.refuse(http.StatusBadRequest, "invalid_redirect_uri")
	}
	c.family = s.newFamily(c.consent)
	return s.grant(r, c.family, true)
}

func (s *Server) refresh(r *Request) response {
	client, refused := s.client(r)
	if refused != nil {
		return *refused
	}
	token := r.Form.Get("refresh_token")
	f := s.families[token]
	switch {
	case f == nil || f.revoked || f.consent.ClientID != client.ID:
		return s.invalidCode()
	case f.refresh != token:
		s.kill(f) // RFC 9700, 4.14.2
		return s.invalidCode()
	case s.throttled(f):
		return s.denied()
	}
	if s.o.Strict {
		f.refresh = newToken()
		s.families[f.refresh] = f
	}
	return s.grant(r, f, s.o.Strict)
}

// revoke answers a request to revoke a refresh token or an access token.
func (s *Server) revoke(r *Request) response {
	token := r.Form.Get("token")
	if f := s.families[token]; f != nil && !f.revoked {
		s.kill(f)
		return success(map[string]any{"status": "success"})
	}
	if _, ok := s.access[token]; ok {
		delete(s.access, token)
		return success(map[string]any{"status": "success"})
	}
	return s.refuse(http.StatusBadRequest, "invalid_token")
}

// client returns the client of a request, or the response that refuses the request.
func (s *Server) client(r *Request) (Client, *response) {
	id, secret := r.Form.Get("client_id"), r.Form.Get("client_secret")
	if user, password, ok := (&http.Request{Header: r.Header}).BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	c, ok := s.clients[id]
	if !ok || c.DataCenter != s.dataCenter(r.Host) {
		refused := s.refuse(http.StatusUnauthorized, "invalid_client")
		return c, &refused
	}
	if c.Secret != secret {
		code := "invalid_client_secret"
		if s.o.Strict {
			code = "invalid_client"
		}
		refused := s.refuse(http.StatusUnauthorized, code)
		return c, &refused
	}
	return c, nil
}

// newFamily returns a new family for the consent c, with a refresh token unless c.Online is
// set. If the user then has more than Options.RefreshTokens families for the client, newFamily
// revokes the oldest of these families.
func (s *Server) newFamily(c Consent) *family {
	f := &family{consent: c}
	if c.Online {
		return f
	}
	f.refresh = newToken()
	s.families[f.refresh] = f
	o := owner{c.ClientID, c.Email, c.ZGID}
	alive := slices.DeleteFunc(s.consents[o], func(f *family) bool { return f.revoked })
	alive = append(alive, f)
	if len(alive) > s.o.RefreshTokens {
		s.kill(alive[0])
		alive = alive[1:]
	}
	s.consents[o] = alive
	return f
}

func (s *Server) kill(f *family) {
	f.revoked = true
	for _, token := range f.living {
		delete(s.access, token)
	}
	f.living = nil
}

// throttled reports whether at least Options.Mints access tokens of f were issued within the
// last Options.MintWindow.
func (s *Server) throttled(f *family) bool {
	since := s.Now().Add(-s.o.MintWindow)
	f.minted = slices.DeleteFunc(f.minted, func(t time.Time) bool { return !t.After(since) })
	return len(f.minted) >= s.o.Mints
}

func (s *Server) mint(f *family) string {
	now := s.Now()
	f.minted = append(f.minted, now)
	token := newToken()
	s.access[token] = &access{f, now.Add(s.o.AccessLife)}
	f.living = slices.DeleteFunc(f.living, func(t string) bool { return s.alive(t) == nil })
	f.living = append(f.living, token)
	if len(f.living) > s.o.Living {
		delete(s.access, f.living[0])
		f.living = f.living[1:]
	}
	return token
}

func (s *Server) alive(token string) *access {
	a := s.access[token]
	if a == nil || !s.Now().Before(a.expires) {
		return nil
	}
	return a
}

// grant returns the response with a new access token. If withRefresh is set, the response
// includes the refresh token of f, if any.
func (s *Server) grant(r *Request, f *family, withRefresh bool) response {
	answer := map[string]any{
		"access_token": s.mint(f),
		"token_type":   "Bearer",
		"expires_in":   s.o.AccessLife.Milliseconds() / 1000,
	}
	if s.o.Milliseconds {
		answer["expires_in"] = s.o.AccessLife.Milliseconds()
		answer["expires_in_sec"] = s.o.AccessLife.Milliseconds() / 1000
	}
	if domain := apiDomain(r.Host, f.consent.Environment); !s.o.Strict {
		answer["api_domain"] = domain
	}
	if withRefresh && f.refresh != "" {
		answer["refresh_token"] = f.refresh
	}
	return success(answer)
}

func (s *Server) invalidCode() response {
	if s.o.Strict {
		return s.refuse(http.StatusBadRequest, "invalid_grant")
	}
	return s.refuse(http.StatusBadRequest, "invalid_code")
}

func (s *Server) denied() response {
	if s.o.Strict {
		res := s.refuse(http.StatusTooManyRequests, "slow_down")
		res.header.Set("Retry-After", "60")
		return res
	}
	res := success(map[string]any{
		"error":             accessDenied,
		"error_description": "You have made too many requests continuously. Please try again after some time.",
		"status":            "failure",
	})
	res.code = accessDenied
	return res
}

// refuse returns a refusal with the given code. Its HTTP status is 200, as in Zoho's
// responses, unless the server is strict or status is 404 or 405.
func (s *Server) refuse(status int, code string) response {
	res := success(map[string]any{"error": code})
	res.code = code
	if s.o.Strict || status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
		res.status = status
	}
	return res
}

func success(answer map[string]any) response {
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return response{
		status: http.StatusOK,
		header: http.Header{"Content-Type": {"application/json;charset=utf-8"}},
		body:   body,
	}
}
