package authservers

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An Internet simulates several domains. Each DOMAIN has an authorization server at id.DOMAIN, and
// the API of that server at api.DOMAIN. The client has the same ID at all servers, and a different
// secret at each server. An Internet is an http.RoundTripper. It records everything that clients
// send to the servers, and all secrets that the servers issue. Its methods are safe for concurrent
// use. Code and RoundTrip panic for an unknown domain.
type Internet struct {
	clientID string
	servers  map[string]*Server

	mu     sync.Mutex
	sent   map[string]string
	issued map[string][]string
}

// NewInternet returns an Internet whose servers have the same policy and clock.
func NewInternet(p Policy, clientID string, now func() time.Time, domains ...string) *Internet {
	n := &Internet{clientID: clientID, servers: map[string]*Server{}, sent: map[string]string{}, issued: map[string][]string{}}
	for _, d := range domains {
		n.servers[d] = New(p, clientID, n.Secret(d), now)
		n.issued[d] = []string{n.Secret(d)}
	}
	return n
}

// Secret returns the client's secret at the server of a domain.
func (n *Internet) Secret(domain string) string { return "secret-at-" + domain }

// Code issues a one-time code at the server of a domain, as Server.Code does.
func (n *Internet) Code(domain string) string {
	code := n.servers[domain].Code()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.issued[domain] = append(n.issued[domain], code)
	return code
}

// Issued returns the secrets that the server of a domain has issued: the client's secret, the
// codes, and the tokens.
func (n *Internet) Issued(domain string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.issued[domain]...)
}

// Sent returns everything that clients have sent to the servers of a domain: the URLs, headers
// and bodies of requests, and decoded Basic credentials.
func (n *Internet) Sent(domain string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[domain]
}

// RoundTrip implements http.RoundTripper.
func (n *Internet) RoundTrip(r *http.Request) (*http.Response, error) {
	host := strings.ToLower(r.URL.Hostname())
	domain := strings.TrimPrefix(strings.TrimPrefix(host, "id."), "api.")
	out := r.Clone(r.Context())
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		out.Body = io.NopCloser(bytes.NewReader(body))
	}
	var whole strings.Builder
	_ = out.Header.Write(&whole)
	user, password, _ := r.BasicAuth()
	n.mu.Lock()
	n.sent[domain] += strings.Join([]string{r.URL.String(), whole.String(), user, password, string(body), ""}, "\n")
	n.mu.Unlock()
	out.URL.Host = strings.Replace(host, domain, "example.com", 1)
	res, err := n.servers[domain].RoundTrip(out)
	if err == nil {
		err = n.note(domain, res)
	}
	return res, err
}

// note records the tokens in res, and leaves the body of res readable.
func (n *Internet) note(domain string, res *http.Response) error {
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	var got struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal(body, &got) != nil {
		return nil // not a token response
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, token := range []string{got.Access, got.Refresh} {
		if token != "" {
			n.issued[domain] = append(n.issued[domain], token)
		}
	}
	return nil
}
