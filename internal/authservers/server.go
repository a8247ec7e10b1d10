package authservers

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// URLs of a server. All other URLs belong to the API.
const (
	Issuer    = "https://id.example.com"
	AuthURL   = "https://id.example.com/authorize"
	TokenURL  = "https://id.example.com/token"
	RevokeURL = "https://id.example.com/revoke"

	metadataURL = "https://id.example.com/.well-known/oauth-authorization-server"
)

// A Kind is the purpose of a request.
type Kind string

// The kinds of requests.
const (
	Exchange Kind = "authorization_code"
	Refresh  Kind = "refresh_token"
	Revoke   Kind = "revoke"
	Metadata Kind = "metadata" // RFC 8414
	API      Kind = "api"
)

// A Request is a request that the server received.
type Request struct {
	Kind Kind
	Form url.Values // body of a request to the token or revocation endpoint
}

// A Fault makes the server execute a request and lose the response.
type Fault struct{}

// A Server is an authorization server with one client. Its methods are safe for
// concurrent use.
type Server struct {
	fakeserver.Clock
	fakeserver.Log[Request, Fault]

	p          Policy
	id, secret string

	mu      sync.Mutex
	codes   map[string]*code
	members map[string]*member
	access  map[string]*access
}

type code struct {
	expires   time.Time
	family    *family // the family for which the code was exchanged, or nil
	redirect  string  // the redirect URL of the consent; empty for a code of Server.Code
	challenge string  // the PKCE challenge, or empty
}

// A family is the state that all tokens of one consent share.
type family struct{ revoked bool }

// A member is one refresh token of a family.
type member struct {
	family   *family
	last     time.Time // the time when the token was issued or last used
	replaced time.Time // the time when next[0] was issued
	next     []*tokens // the tokens that replaced the refresh token
}

type access struct {
	family  *family
	expires time.Time
}

// tokens holds the tokens of one token response.
type tokens struct {
	access, refresh string
	expires         time.Time
}

// New returns a server with one registered client. A nil now means the real clock.
func New(p Policy, clientID, clientSecret string, now func() time.Time) *Server {
	p.CodeLife = cmp.Or(p.CodeLife, 10*time.Minute)
	p.AccessLife = cmp.Or(p.AccessLife, time.Hour)
	s := &Server{
		p: p, id: clientID, secret: clientSecret,
		codes: map[string]*code{}, members: map[string]*member{}, access: map[string]*access{},
	}
	s.SetClock(now)
	return s
}

// Code issues a one-time code, as if the user had just consented.
func (s *Server) Code() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "code-" + rand.Text()
	s.codes[text] = &code{expires: s.Now().Add(s.p.CodeLife)}
	return text
}

// Authorize returns the address to which the authorization endpoint sends the browser if the
// user consents. request is the consent URL. Authorize returns an error if request is invalid.
func (s *Server) Authorize(request string) (redirect string, err error) {
	u, err := url.Parse(request)
	if err != nil {
		return "", err
	}
	q := u.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case err != nil || !back.IsAbs():
		return "", errors.New("authservers: the redirect URL is not absolute")
	case strings.SplitN(request, "?", 2)[0] != AuthURL || q.Get("response_type") != "code" || q.Get("client_id") != s.id:
		return "", errors.New("authservers: the request is not one for a code of the client")
	case q.Get("state") == "" || q.Get("code_challenge") != "" && q.Get("code_challenge_method") != "S256":
		return "", errors.New("authservers: the request has no state, or a challenge that is not S256")
	}
	text := s.Code()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.codes[text]
	c.redirect, c.challenge = q.Get("redirect_uri"), q.Get("code_challenge")
	back.RawQuery = url.Values{"code": {text}, "state": {q.Get("state")}, "iss": {Issuer}}.Encode()
	return back.String(), nil
}

// Alive reports whether an access token is valid now.
func (s *Server) Alive(accessToken string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.access[accessToken]
	return a != nil && !a.family.revoked && s.Now().Before(a.expires)
}

// Expire invalidates an access token immediately.
func (s *Server) Expire(accessToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.access, accessToken)
}

// ExpireAll invalidates every access token immediately.
func (s *Server) ExpireAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

// Revoke revokes the consent to which a refresh token belongs, as the user can do at the
// provider.
func (s *Server) Revoke(refreshToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoke(refreshToken)
}

// RoundTrip implements http.RoundTripper. For a request with a Fault, the error is
// io.ErrUnexpectedEOF.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	req := Request{Kind: API}
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		req.Form, _ = url.ParseQuery(string(body))
	}
	switch r.URL.String() {
	case TokenURL:
		req.Kind = Kind(req.Form.Get("grant_type"))
	case RevokeURL:
		req.Kind = Revoke
	case metadataURL:
		req.Kind = Metadata
	}
	fault := s.Receive(&req)
	status, answer := s.answer(r, req)
	if fault != nil {
		return nil, io.ErrUnexpectedEOF
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	res := &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}
	if req.Kind == API && status == http.StatusUnauthorized {
		res.Header.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	return res, nil
}

type object map[string]any

func (s *Server) answer(r *http.Request, req Request) (status int, answer object) {
	if req.Kind == API {
		_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !s.Alive(token) {
			return http.StatusUnauthorized, nil
		}
		return http.StatusOK, nil
	}
	if req.Kind == Metadata {
		return http.StatusOK, object{
			"issuer": Issuer, "authorization_endpoint": AuthURL, "token_endpoint": TokenURL, "revocation_endpoint": RevokeURL,
			"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true,
		}
	}
	id, secret, _ := r.BasicAuth()
	if !encodes(id, s.id) || !encodes(secret, s.secret) {
		return http.StatusUnauthorized, object{"error": "invalid_client"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Kind == Revoke {
		s.revoke(req.Form.Get("token"))
		return http.StatusOK, nil
	}
	grant := s.refresh
	if req.Kind == Exchange {
		grant = s.exchange
	}
	got := grant(req.Form)
	if got == nil {
		return http.StatusBadRequest, object{"error": "invalid_grant"}
	}
	answer = object{"access_token": got.access, "token_type": "Bearer"}
	if got.refresh != "" {
		answer["refresh_token"] = got.refresh
	}
	if !s.p.Unstated {
		answer["expires_in"] = int(got.expires.Sub(s.Now()).Seconds())
	}
	return http.StatusOK, answer
}

// encodes reports whether text, a user or password from Basic authentication, is the form encoding
// of credential (RFC 6749, section 2.3.1).
func encodes(text, credential string) bool {
	plain, err := url.QueryUnescape(text)
	return err == nil && plain == credential
}

func (s *Server) exchange(form url.Values) *tokens {
	c := s.codes[form.Get("code")]
	switch {
	case c == nil || !s.Now().Before(c.expires) || !c.proved(form):
		return nil
	case c.family != nil:
		c.family.revoked = c.family.revoked || s.p.RevokesCode
		return nil
	}
	c.family = &family{}
	return s.issue(c.family, true)
}

// proved reports whether form, a request with the code c, has the redirect URL and the PKCE
// verifier that belong to c.
func (c *code) proved(form url.Values) bool {
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	return (c.redirect == "" || form.Get("redirect_uri") == c.redirect) &&
		(c.challenge == "" || base64.RawURLEncoding.EncodeToString(sum[:]) == c.challenge)
}

func (s *Server) refresh(form url.Values) *tokens {
	m, now := s.members[form.Get("refresh_token")], s.Now()
	if m == nil || m.family.revoked || s.p.Idle > 0 && !now.Before(m.last.Add(s.p.Idle)) {
		return nil
	}
	again := len(m.next) > 0
	if again && (!now.Before(m.replaced.Add(s.p.Grace)) || s.succeeded(m)) {
		m.family.revoked = s.p.Revokes
		return nil
	}
	if again && s.p.Repeats {
		return m.next[0]
	}
	if s.p.Supersedes {
		maps.DeleteFunc(s.access, func(_ string, a *access) bool { return a.family == m.family })
	}
	got := s.issue(m.family, s.p.Rotates)
	m.last = now
	if s.p.Rotates {
		m.replace(got, now)
	}
	return got
}

func (m *member) replace(got *tokens, now time.Time) {
	if len(m.next) == 0 {
		m.replaced = now
	}
	m.next = append(m.next, got)
}

// succeeded reports whether a token that replaced m was used.
func (s *Server) succeeded(m *member) bool {
	for _, next := range m.next {
		if len(s.members[next.refresh].next) > 0 {
			return true
		}
	}
	return false
}

func (s *Server) issue(f *family, withRefresh bool) *tokens {
	now := s.Now()
	got := &tokens{access: "access-" + rand.Text(), expires: now.Add(s.p.AccessLife)}
	s.access[got.access] = &access{f, got.expires}
	if withRefresh {
		got.refresh = "refresh-" + rand.Text()
		s.members[got.refresh] = &member{family: f, last: now}
	}
	return got
}

// revoke revokes the whole consent if text is a refresh token, and only that token if text is an
// access token (RFC 7009, section 2.1).
func (s *Server) revoke(text string) {
	if m := s.members[text]; m != nil {
		m.family.revoked = true
	}
	delete(s.access, text)
}
