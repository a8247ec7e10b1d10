package initializer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// maxPeek is the maximum number of bytes that are examined in a response with status 401.
const maxPeek = 64 << 10

// HTTPClient returns an HTTP client that sends the access token in the Authorization header of each
// request. The scheme is Zoho-oauthtoken, or Bearer if Config.OAuth2 is set, unless
// Config.TokenTypes has another scheme for the type of the token. Requests with a token of an
// unknown type fail with ErrTokenType. In all other respects, the client is a copy of
// Config.HTTPClient. A URL without a host is relative to the API domain:
//
//	res, err := client.HTTPClient(ctx).Get("/crm/v8/Leads?fields=Last_Name")
//
// A response with status 401 rejects the token if its body has the code INVALID_TOKEN or
// INVALID_OAUTHTOKEN, or its WWW-Authenticate field has error="invalid_token" (RFC 6750). After
// such a response, the client refreshes the token once, unless another process has already
// refreshed the token. The client repeats the request if the request has no body, or if its body
// can be rewound (http.Request.GetBody). Otherwise, the caller gets the response with status 401.
// If the API also rejects the new token, the caller gets the second response, and the client does
// not replace the token again for a minute. If the token cannot be replaced, the request fails with
// the reason, such as ErrReauthRequired.
//
// The client sends the token only over https or on the loopback interface, and never to another
// host after a redirect. A request to a host that must not receive the token fails with
// ErrUntrustedURL; see Config.Hosts. Each request uses its own context. After ctx is done, all
// requests fail with the error of ctx.
func (c *Client) HTTPClient(ctx context.Context) *http.Client {
	h := *c.conf.HTTPClient
	h.Transport = &transport{ctx, c, h.Transport}
	return &h
}

type transport struct {
	ctx    context.Context // context of the HTTP client, not of a request
	client *Client
	base   http.RoundTripper // nil means http.DefaultTransport
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
	next, err := t.client.replace(req.Context(), s)
	body, ok := rewind(req)
	if err == nil && (next == nil || !ok) {
		return res, nil // the caller gets the response with status 401
	}
	_, _ = io.CopyN(io.Discard, res.Body, maxPeek)
	_ = res.Body.Close()
	if err != nil {
		return nil, t.client.fail("replace a token that the API rejects", err)
	}
	return t.send(req, u, body, next)
}

// prepare returns the session and the absolute URL for a request. The session is nil if the request
// is sent without a token.
func (t *transport) prepare(req *http.Request) (*session, *url.URL, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, nil, err
	}
	u := req.URL
	if u.Host != "" && u.Scheme == "" {
		// Package http resolves "Location: //host/path" against the URL of the request. The
		// result has no scheme if the URL of the request is relative to the API domain.
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
	if err := cmp.Or(t.client.gate.check(u), s.schemeErr); err != nil {
		return nil, nil, t.client.fail("request", err)
	}
	return s, u, nil
}

// origin returns the URL that redirected to a request, or nil if the request does not follow a
// redirect.
func origin(req *http.Request) *url.URL {
	if req.Response == nil || req.Response.Request == nil {
		return nil
	}
	return req.Response.Request.URL
}

// elsewhere reports whether a request for u follows a redirect to another host or another scheme.
func elsewhere(req *http.Request, u *url.URL) bool {
	for r := req; origin(r) != nil; r = r.Response.Request {
		from := origin(r)
		if u.Host != "" && (from.Host != u.Host || from.Scheme != u.Scheme) {
			return true
		}
	}
	return false
}

// send sends a copy of the request, because a RoundTripper must not modify its argument.
func (t *transport) send(req *http.Request, u *url.URL, body io.ReadCloser, s *session) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL, out.Body = u, body
	if out.Host == "" {
		out.Host = u.Host
	}
	if s != nil {
		out.Header.Set("Authorization", s.scheme+" "+string(s.token.AccessToken))
	}
	base := t.base
	if base == nil {
		base = http.DefaultTransport
	}
	res, err := base.RoundTrip(out)
	if res != nil {
		asked := *req // without the token, because callers might log the request
		asked.URL = u
		res.Request = &asked
	}
	return res, err
}

// replace returns a session whose token replaces the token of s, which the API rejected. It returns
// nil without an error if there is no other token, or if the token of s replaced a rejected token
// less than rejectPause ago.
func (c *Client) replace(ctx context.Context, s *session) (*session, error) {
	if !s.rejected.IsZero() && c.conf.Now().Sub(s.rejected) < rejectPause {
		return nil, nil
	}
	next, err := c.renew(ctx, s.token.AccessToken, true)
	if next == nil {
		return nil, err
	}
	if err != nil {
		c.conf.Logger.ErrorContext(ctx, "initializer: a token is used that could not be stored", "id", s.token.ID, "error", err)
	}
	if next.token.AccessToken == s.token.AccessToken {
		return nil, nil
	}
	return next, next.schemeErr
}

// invalidToken reports whether a response says that the token is invalid. The caller can still
// read the body.
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

// rewind returns the body of a request from the start, or false if the body cannot be rewound.
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
