package authservers

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// The URLs of a server. All others are the API.
const (
	TokenURL  = "https://id.example.com/token"
	RevokeURL = "https://id.example.com/revoke"
)

// Kind says what a request is for.
type Kind string

// The kinds of requests.
const (
	Exchange Kind = "authorization_code"
	Refresh  Kind = "refresh_token"
	Revoke   Kind = "revoke"
	API      Kind = "api"
)

// A Request is what a client asked for.
type Request struct {
	Kind Kind
	Form url.Values // of a request to the token or the revocation endpoint
}

// A Fault is what goes wrong with one request: it is carried out, and its answer is lost.
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

// A code is a one-time code.
type code struct {
	expires time.Time
	family  *family // what it was exchanged for
}

// A family is what comes of one consent.
type family struct{ revoked bool }

// A member is one refresh token of a family.
type member struct {
	family   *family
	last     time.Time // when it was issued, or used
	replaced time.Time // when the first of next was issued
	next     []*tokens // what replaced it
}

type access struct {
	family  *family
	expires time.Time
}

// tokens are what an answer brings.
type tokens struct {
	access, refresh string
	expires         time.Time
}

// New returns a server that knows one client.
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

// Code issues a one-time code, as if the user had consented just now.
func (s *Server) Code() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "code-" + rand.Text()
	s.codes[text] = &code{expires: s.Now().Add(s.p.CodeLife)}
	return text
}

// Alive reports whether an access token is good at present.
func (s *Server) Alive(accessToken string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.access[accessToken]
	return a != nil && !a.family.revoked && s.Now().Before(a.expires)
}

// Expire ends an access token before its time.
func (s *Server) Expire(accessToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.access, accessToken)
}

// RoundTrip implements http.RoundTripper.
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
	id, secret, _ := r.BasicAuth()
	if id != s.id || secret != s.secret {
		return http.StatusUnauthorized, object{"error": "invalid_client"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Kind == Revoke {
		s.revoke(req.Form.Get("token"))
		return http.StatusOK, nil
	}
	grant, credential := s.refresh, "refresh_token"
	if req.Kind == Exchange {
		grant, credential = s.exchange, "code"
	}
	got := grant(req.Form.Get(credential))
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

func (s *Server) exchange(text string) *tokens {
	c := s.codes[text]
	switch {
	case c == nil || !s.Now().Before(c.expires):
		return nil
	case c.family != nil:
		c.family.revoked = c.family.revoked || s.p.RevokesCode
		return nil
	}
	c.family = &family{}
	return s.issue(c.family, true)
}

func (s *Server) refresh(text string) *tokens {
	m, now := s.members[text], s.Now()
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

// replace makes got one of the tokens that replaced m.
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

// revoke revokes a consent by a refresh token, or an access token alone (RFC 7009, 2.1).
func (s *Server) revoke(text string) {
	if m := s.members[text]; m != nil {
		m.family.revoked = true
	}
	delete(s.access, text)
}
