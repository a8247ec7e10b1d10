package initializer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// maxPeek is how much of a response with status 401 is looked at.
const maxPeek = 64 << 10

// HTTPClient returns an HTTP client that sends the access token with each request:
// "Authorization: Zoho-oauthtoken …", or Bearer for a server of OAuth2. It is the
// configuration's client otherwise. A URL without a host is one of the API domain:
//
//	res, err := client.HTTPClient(ctx).Get("/crm/v8/Leads?fields=Last_Name")
//
// Where the API answers that the token is invalid (status 401 with the code
// INVALID_TOKEN, or error="invalid_token" of RFC 6750) the store is read again, the
// token refreshed if nobody else has done that, once, and the request repeated if
// it has no body or one that can be rewound (http.Request.GetBody). If that does
// not help, the caller gets the answer, and the next minute nothing of the kind is
// tried again.
//
// The token is sent to the host that the request is for, over https or on the
// loopback interface, and not to another one that it redirects to. A request for a
// host that may not have it fails with ErrUntrustedURL; see Config.Hosts. Requests have contexts of their own; after ctx is done all are refused.
func (c *Client) HTTPClient(ctx context.Context) *http.Client {
	h := *c.conf.HTTPClient
	h.Transport = &transport{ctx, c, h.Transport}
	return &h
}

type transport struct {
	ctx    context.Context // of the HTTP client, not of a request
	client *Client
	base   http.RoundTripper // nil: http.DefaultTransport
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	s, u, err := t.prepare(req)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	res, err := t.send(req, u, req.Body, s)
	if err != nil || s == nil || res.StatusCode != http.StatusUnauthorized || !invalidToken(res) {
		return res, err
	}
	next := t.client.replace(req.Context(), s)
	if next == nil {
		return res, nil // the caller may make something of it
	}
	body, ok := rewind(req)
	if !ok {
		return res, nil
	}
	_, _ = io.CopyN(io.Discard, res.Body, maxPeek)
	_ = res.Body.Close()
	return t.send(req, u, body, next)
}

// prepare returns the session for a request, nil if it is to go without a token,
// and its whole URL.
func (t *transport) prepare(req *http.Request) (*session, *url.URL, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, nil, err
	}
	u := req.URL
	if u.Host != "" && u.Scheme == "" {
		// Package http resolves "Location: //host/path" against the URL of the
		// request, which has no scheme if it is one of the API domain.
		whole := *u
		whole.Scheme = "https"
		if first := origin(req); first != nil {
			whole.Scheme = first.Scheme
		}
		u = &whole
	}
	if elsewhere(req, u) {
		return nil, u, nil
	}
	s, err := t.client.usable(req.Context())
	if err != nil {
		return nil, nil, t.client.fail("request", err)
	}
	if u.Host == "" && u.Scheme == "" {
		if s.api == nil {
			return nil, nil, t.client.fail("request", s.apiErr)
		}
		u = s.api.ResolveReference(u)
	}
	if err := t.client.gate.check(u); err != nil {
		return nil, nil, t.client.fail("request", err)
	}
	return s, u, nil
}

// origin returns the URL that redirected to a request, or nil.
func origin(req *http.Request) *url.URL {
	if req.Response == nil || req.Response.Request == nil {
		return nil
	}
	return req.Response.Request.URL
}

// elsewhere reports whether a request for u follows a redirect to another host, or
// from https to http.
func elsewhere(req *http.Request, u *url.URL) bool {
	for r := req; origin(r) != nil; r = r.Response.Request {
		from := origin(r)
		if u.Host != "" && (from.Host != u.Host || from.Scheme != u.Scheme) {
			return true
		}
	}
	return false
}

// send sends a copy of the request: a RoundTripper may not change what it is given.
func (t *transport) send(req *http.Request, u *url.URL, body io.ReadCloser, s *session) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL, out.Body = u, body
	if out.Host == "" {
		out.Host = u.Host
	}
	if s != nil {
		out.Header.Set("Authorization", t.client.scheme+" "+string(s.token.AccessToken))
	}
	base := t.base
	if base == nil {
		base = http.DefaultTransport
	}
	res, err := base.RoundTrip(out)
	if res != nil {
		asked := *req // without the token, for those who log it
		asked.URL = u
		res.Request = &asked
	}
	return res, err
}

// replace returns a session with another token than s, whose token the API has
// rejected; nil if that was tried a moment ago.
func (c *Client) replace(ctx context.Context, s *session) *session {
	if !s.rejected.IsZero() && c.conf.Now().Sub(s.rejected) < rejectPause {
		return nil
	}
	next, err := c.renew(ctx, s.token.AccessToken, true)
	if err != nil {
		c.conf.Logger.WarnContext(ctx, "initializer: a token that the API rejects could not be replaced, or not stored", "id", s.token.ID, "error", err)
	}
	if next == nil || next.token.AccessToken == s.token.AccessToken {
		return nil
	}
	return next
}

// invalidToken reports whether a response says that the token is not good. Its
// body can still be read afterwards.
func invalidToken(res *http.Response) bool {
	for _, field := range res.Header.Values("WWW-Authenticate") {
		for _, c := range parseChallenges(field) {
			if strings.EqualFold(c.params["error"], "invalid_token") {
				return true
			}
		}
	}
	start, err := io.ReadAll(io.LimitReader(res.Body, maxPeek))
	rest := res.Body
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), rest}
	var answer struct {
		Code string `json:"code"`
	}
	if err != nil || json.Unmarshal(start, &answer) != nil {
		return false
	}
	return answer.Code == "INVALID_TOKEN" || answer.Code == "INVALID_OAUTHTOKEN"
}

// rewind returns the body of a request from its beginning.
func rewind(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}
