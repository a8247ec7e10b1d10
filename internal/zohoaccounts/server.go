package zohoaccounts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// maxRequest is the maximum size of a request body in bytes.
const maxRequest = 1 << 20

// Options configures a Server. With the zero value or a nil *Options, the server behaves
// like Zoho's, on the real clock.
type Options struct {
	// Now is the clock. Nil means time.Now. Advance moves the clock forward.
	Now func() time.Time

	// DataCenter is the data center of hosts that are not Zoho's, such as loopback addresses.
	// Empty means "us".
	DataCenter string

	// Strict makes the server rotate refresh tokens, and revoke all tokens of the consent when
	// a replaced refresh token is reused. See the package documentation.
	Strict bool

	// Milliseconds selects the responses of old accounts servers: expires_in in
	// milliseconds, with an additional expires_in_sec.
	Milliseconds bool

	// Limits. 0 means the documented limit.
	CodeLife      time.Duration
	AccessLife    time.Duration
	MintWindow    time.Duration // the period in which a refresh token issues up to Mints access tokens
	Mints         int
	Living        int // the maximum number of valid access tokens from one refresh token
	RefreshTokens int // the maximum number of valid refresh tokens of one user and client
}

func (o *Options) complete() Options {
	var c Options
	if o != nil {
		c = *o
	}
	or(&c.DataCenter, "us")
	or(&c.CodeLife, 3*time.Minute)
	or(&c.AccessLife, time.Hour)
	or(&c.MintWindow, 10*time.Minute)
	or(&c.Mints, 10)
	or(&c.Living, 15)
	or(&c.RefreshTokens, 20)
	return c
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// A Kind is the purpose of a request.
type Kind string

// The kinds of requests.
const (
	Exchange Kind = "exchange" // of a grant code
	Refresh  Kind = "refresh"
	Revoke   Kind = "revoke"
	API      Kind = "api" // a CRM call
	Other    Kind = "other"
)

// A Request is a request that the server received, with its outcome.
type Request struct {
	Kind   Kind
	Method string
	Host   string
	Path   string
	Query  url.Values
	Form   url.Values // parameters of a request to the accounts server
	Header http.Header
	Body   []byte

	// Code is the code of the refusal, such as "invalid_code" or "INVALID_TOKEN". Code is empty if
	// the request was granted, and "fault" if a Fault prevented the execution of the request.
	Code string
}

// A Fault is an injected failure of one request.
type Fault struct {
	// Delay is the time between the arrival of the request and its execution.
	Delay time.Duration

	// Wait delays the request until the channel is closed. If the client disconnects first,
	// the server does not execute the request.
	Wait <-chan struct{}

	// Status, if not 0, is the status of a response that replaces the real response. Header
	// and Body are the header and the body of that response.
	Status int
	Header http.Header
	Body   string

	// Drop closes the connection instead of sending a response.
	Drop bool

	// Applied makes the server execute the request despite the fault.
	Applied bool
}

// A Server is an accounts server. Its methods are safe for concurrent use.
type Server struct {
	fakeserver.Clock

	o Options

	mu       sync.Mutex
	clients  map[string]Client
	codes    map[string]*code
	families map[string]*family // by each refresh token that the family ever had
	access   map[string]*access
	consents map[owner][]*family // oldest first
	inject   func(Request) *Fault
	requests []Request
}

// New returns a server without clients. opts may be nil.
func New(opts *Options) *Server {
	s := &Server{
		o:        opts.complete(),
		clients:  map[string]Client{},
		codes:    map[string]*code{},
		families: map[string]*family{},
		access:   map[string]*access{},
		consents: map[owner][]*family{},
	}
	s.SetClock(s.o.Now)
	return s
}

// Listen serves on the loopback interface until stop is called. base is the base URL of both the
// accounts server and the API.
func (s *Server) Listen() (base string, stop func(), err error) {
	if base, stop, err = fakeserver.Serve(s); err != nil {
		err = fmt.Errorf("zohoaccounts: %w", err)
	}
	return base, stop, err
}

// Client returns an HTTP client whose requests the server answers without a socket, for any
// host.
func (s *Server) Client() *http.Client { return &http.Client{Transport: s} }

// Inject makes f choose the fault of each request before the server executes the request. f may
// be called concurrently. If f is nil or returns nil, the request has no fault.
func (s *Server) Inject(f func(Request) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inject = f
}

// Requests returns the requests so far, in the order in which the server handled them. A request
// that a Fault delays is missing until the delay ends.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count returns the number of requests of the given kinds in Requests, including refused requests.
func (s *Server) Count(kinds ...Kind) int {
	n := 0
	for _, r := range s.Requests() {
		if slices.Contains(kinds, r.Kind) {
			n++
		}
	}
	return n
}

// Refused returns the number of requests that were refused with the given code.
func (s *Server) Refused(code string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Code == code {
			n++
		}
	}
	return n
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res, err := s.serve(r)
	if err != nil {
		panic(http.ErrAbortHandler) // makes net/http close the connection
	}
	maps.Copy(w.Header(), res.header)
	w.WriteHeader(res.status)
	_, _ = w.Write(res.body)
}

// RoundTrip implements http.RoundTripper.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	res, err := s.serve(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", res.status, http.StatusText(res.status)),
		StatusCode:    res.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        res.header,
		Body:          io.NopCloser(bytes.NewReader(res.body)),
		ContentLength: int64(len(res.body)),
		Request:       r,
	}, nil
}

// A response is an HTTP response before it is sent.
type response struct {
	status int
	header http.Header
	body   []byte
	code   string // code of the refusal
}

// serve answers a request. It returns an error if the connection must be closed.
func (s *Server) serve(r *http.Request) (response, error) {
	req, err := parse(r)
	if err != nil {
		return response{}, err
	}
	f := s.fault(req)
	if err := f.hold(r.Context()); err != nil {
		return response{}, err
	}
	instead := f.Drop || f.Status != 0
	if instead && !f.Applied {
		req.Code = "fault"
		s.record(req)
	} else {
		res := s.answer(&req)
		if !instead {
			return res, nil
		}
	}
	if f.Drop {
		return response{}, io.ErrUnexpectedEOF
	}
	header := f.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	return response{status: f.Status, header: header, body: []byte(f.Body)}, nil
}

func parse(r *http.Request) (Request, error) {
	req := Request{
		Kind: Other, Method: r.Method, Host: r.Host, Path: r.URL.Path,
		Query: r.URL.Query(), Header: r.Header.Clone(),
	}
	if req.Host == "" {
		req.Host = r.URL.Host
	}
	if r.Body != nil {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
		if err != nil {
			return req, err
		}
		req.Body = body
	}
	switch {
	case strings.HasPrefix(req.Path, "/oauth/"):
		req.Form, _ = url.ParseQuery(string(req.Body))
		for key, values := range req.Query {
			req.Form[key] = append(req.Form[key], values...) // parameters may be in the query or in the body
		}
		req.Kind = kindOf(req)
	case strings.HasPrefix(req.Path, "/crm/"):
		req.Kind = API
	}
	return req, nil
}

func kindOf(r Request) Kind {
	switch {
	case r.Path == "/oauth/v2/token/revoke":
		return Revoke
	case r.Path == "/oauth/v2/token" && r.Form.Get("grant_type") == "authorization_code":
		return Exchange
	case r.Path == "/oauth/v2/token":
		return Refresh
	}
	return Other
}

func (s *Server) fault(r Request) Fault {
	s.mu.Lock()
	inject := s.inject
	s.mu.Unlock()
	if inject != nil {
		if f := inject(r); f != nil {
			return *f
		}
	}
	return Fault{}
}

func (f Fault) hold(ctx context.Context) error {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !fakeserver.Await(ctx, f.Wait) {
		return ctx.Err()
	}
	return nil
}

func (s *Server) record(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
}

func (s *Server) answer(r *Request) response {
	s.mu.Lock()
	defer s.mu.Unlock()
	var res response
	switch {
	case r.Kind == API:
		res = s.api(r)
	case r.Method != http.MethodPost && r.Kind != Other:
		res = s.refuse(http.StatusMethodNotAllowed, "method_not_allowed")
	case r.Kind == Exchange:
		res = s.exchange(r)
	case r.Kind == Refresh:
		res = s.refresh(r)
	case r.Kind == Revoke:
		res = s.revoke(r)
	default:
		res = s.refuse(http.StatusNotFound, "not_found")
	}
	r.Code = res.code
	s.requests = append(s.requests, *r)
	return res
}
