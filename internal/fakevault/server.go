package fakevault

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// RootToken is a token with all permissions that does not expire.
const RootToken = "root"

// maxRequest is the maximum size of a request body in bytes (docs:
// configuration/listener/tcp, max_request_size).
const maxRequest = 32 << 20

// Options configures a Server. With the zero value or a nil *Options, the Server is one active node
// on the real clock, with the mount "secret".
type Options struct {
	// Now is the clock of versions, deletions and tokens. Nil means time.Now. Advance moves the
	// clock forward.
	Now func() time.Time

	// Lag is the age of the state that reads and lists of KV version 2 show. A server with a Lag is
	// like a performance standby of Vault Enterprise, or a standby of OpenBao 2.5 or later. Writes
	// go to the active node.
	Lag time.Duration

	// Rate is an operator's rate limit quota on the server (docs: concepts/resource-quotas).
	// Vault counts each client address separately. The fake counts all clients together.
	Rate fakeserver.Rate

	// Forward selects the behavior for the header X-Vault-Forward. If OpenBao is set, the
	// server ignores the header.
	Forward Forward

	// OpenBao makes the server send the error texts of OpenBao, which do not distinguish an
	// invalid token from a missing permission.
	OpenBao bool

	// NoSocket makes New return a Server without a socket. The Server has no URL, and its clients
	// call ServeHTTP.
	NoSocket bool
}

// A Forward is the behavior of a server for a request with the header X-Vault-Forward. The header
// asks the server to forward the request to the active node.
type Forward int

const (
	// ForwardRefused rejects requests that have the header X-Vault-Forward. In Vault, such a
	// request fails unless allow_forwarding_via_header is set; in the Community Edition, it always
	// fails (core: http/handler.go, forwardBasedOnHeaders, and vault/core_util.go).
	ForwardRefused Forward = iota

	// ForwardDone forwards a request whose header is "active-node", as Vault Enterprise does with
	// allow_forwarding_via_header (docs: configuration/replication).
	ForwardDone

	// ForwardIgnored ignores the header, as OpenBao does.
	ForwardIgnored
)

// A Server simulates a Vault server. Its methods are safe for concurrent use.
type Server struct {
	// URL is the base URL, such as "http://127.0.0.1:8200".
	URL string

	fakeserver.Clock
	fakeserver.Log[Request, Fault]

	opts  Options
	stop  func()
	taken fakeserver.Quotas

	mu       sync.Mutex
	sealed   bool
	mounts   map[string]*mount            // by namespace and name: "team/secret/"
	policies map[string]map[string][]rule // by namespace, then name
	tokens   map[string]*token
	roles    map[string]*role // by namespace and role ID
}

// A Request is a request that the server received.
type Request struct {
	Method    string // the HTTP method: "PUT"
	Path      string // without "/v1/": "secret/data/app/x"
	Query     url.Values
	Namespace string // "" or "team/"
	Operation string // "read", "list", "write", "patch" or "delete"
	Class     string // "data", "metadata", "destroy", "delete", "undelete" or "config" of a mount; "auth"; "sys"
	Header    http.Header
	Body      []byte
}

// A Fault is an injected failure of one request.
type Fault struct {
	// Wait delays the request until the channel is closed. If the client disconnects first, the
	// server does not execute the request.
	Wait <-chan struct{}

	// Status, if not 0, is the status of a response that replaces the real response. The
	// replacement contains Body unchanged or, if Body is empty, Errors in Vault's form.
	Status int
	Errors []string
	Body   string

	// Drop closes the connection instead of sending a response.
	Drop bool

	// Applied makes the server execute the request despite the fault.
	Applied bool

	// Hold delays the response, whether or not the request was executed, until the channel is
	// closed or the client disconnects.
	Hold <-chan struct{}
}

// New starts a server. Close stops the server. New panics if the server cannot listen.
func New(opts *Options) *Server {
	s := &Server{
		mounts:   map[string]*mount{},
		policies: map[string]map[string][]rule{},
		tokens:   map[string]*token{},
		roles:    map[string]*role{},
	}
	if opts != nil {
		s.opts = *opts
	}
	s.SetClock(s.opts.Now)
	s.tokens[RootToken] = &token{id: RootToken, policies: []string{"root"}}
	s.Mount("", "secret", Config{})

	if s.opts.NoSocket {
		s.stop = func() {}
		return s
	}
	var err error
	if s.URL, s.stop, err = fakeserver.Serve(s); err != nil {
		panic(fmt.Sprintf("fakevault: %v", err))
	}
	return s
}

// Close stops the server and closes its connections.
func (s *Server) Close() { s.stop() }

// Mount adds an empty KV secrets engine to a namespace, or replaces the engine with the same name.
// "" is the root namespace.
func (s *Server) Mount(namespace, name string, c Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounts[folder(namespace)+folder(name)] = newMount(c, s.opts.Lag > 0)
}

// Seal seals the server if sealed is true, and unseals it otherwise.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// Count returns the number of requests since the last Reset, by operation and
// class, such as "read data" or "list metadata".
func (s *Server) Count() map[string]int {
	return s.CountBy(func(r Request) string { return r.Operation + " " + r.Class })
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, bad := s.parse(w, r)
	if bad != nil {
		bad.write(w)
		return
	}
	throttled := q.Path != "sys/health" && !s.taken.Take(s.Now(), "", s.opts.Rate) // core: vault/quotas/quotas.go, defaultExemptPaths
	fault := s.Receive(q)
	switch {
	case fault == nil && throttled:
		// core: http/util.go, rateLimitQuotaWrapping
		failure(http.StatusTooManyRequests, fmt.Sprintf("request path %q: rate limit quota exceeded", q.Path)).write(w)
		return
	case fault == nil:
		s.handle(q).write(w)
		return
	}
	if !fakeserver.Await(r.Context(), fault.Wait) {
		return
	}
	var a *answer
	if fault.Applied || fault.Status == 0 && !fault.Drop {
		a = s.handle(q)
	}
	if !fakeserver.Await(r.Context(), fault.Hold) {
		return
	}
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case fault.Status != 0 && fault.Body != "":
		w.WriteHeader(fault.Status)
		_, _ = io.WriteString(w, fault.Body)
		return
	case fault.Status != 0:
		a = failure(fault.Status, fault.Errors...)
	}
	a.write(w)
}

// parse returns the request in r or, if r is invalid, an error response.
func (s *Server) parse(w http.ResponseWriter, r *http.Request) (*Request, *answer) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok || path == "" {
		return nil, failure(http.StatusNotFound)
	}
	q := &Request{
		Method: r.Method, Path: path, Query: r.URL.Query(),
		Namespace: folder(r.Header.Get("X-Vault-Namespace")), Header: r.Header.Clone(),
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, failure(http.StatusRequestEntityTooLarge, "http: request body too large") // core: sdk/logical/response_util.go
	} else if err != nil {
		return nil, failure(http.StatusBadRequest, "error reading data")
	}
	q.Body = body

	// core: http/logical.go, buildLogicalRequestNoAuth
	switch r.Method {
	case http.MethodGet:
		q.Operation = "read"
		if text := q.Query.Get("list"); text != "" {
			list, err := strconv.ParseBool(text)
			if err != nil {
				return nil, failure(http.StatusBadRequest)
			}
			if list {
				q.Operation = "list"
			}
		}
	case "LIST":
		q.Operation = "list"
	case http.MethodPost, http.MethodPut:
		q.Operation = "write"
	case http.MethodPatch:
		q.Operation = "patch"
		if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/merge-patch+json" {
			return nil, failure(http.StatusUnsupportedMediaType,
				"PATCH requires Content-Type of application/merge-patch+json, provided "+kind)
		}
	case http.MethodDelete:
		q.Operation = "delete"
	default:
		return nil, failure(http.StatusMethodNotAllowed)
	}
	if q.Operation == "list" && !strings.HasSuffix(q.Path, "/") {
		q.Path += "/"
	}
	switch first, _, _ := strings.Cut(path, "/"); first {
	case "auth", "sys":
		q.Class = first
	default:
		if name := s.mountOf(q); name != "" {
			q.Class, _, _ = strings.Cut(strings.TrimPrefix(q.Path, name), "/")
		}
	}
	return q, nil
}

// mountOf returns the name of the mount to which q belongs, with a final "/", or "" if q
// belongs to no mount.
func (s *Server) mountOf(q *Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := ""
	for name := range s.mounts {
		if name, ok := strings.CutPrefix(name, q.Namespace); ok && strings.HasPrefix(q.Path, name) && len(name) > len(best) {
			best = name
		}
	}
	return best
}

func (s *Server) handle(q *Request) *answer {
	name := s.mountOf(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Path == "sys/health" {
		return s.health()
	}
	if s.sealed {
		return failure(http.StatusServiceUnavailable, "Vault is sealed") // core: sdk/logical/response_util.go
	}
	forwarded := q.Header.Get("X-Vault-Forward")
	if forwarded != "" && s.opts.Forward == ForwardRefused && !s.opts.OpenBao {
		return failure(http.StatusBadRequest, "forwarding via header X-Vault-Forward disabled in configuration")
	}
	if (q.Operation == "write" || q.Operation == "patch") && strings.HasSuffix(q.Path, "/") {
		return failure(http.StatusBadRequest, "cannot write to a path ending in '/'") // core: vault/request_handling.go
	}
	if !s.known(q.Namespace) {
		return failure(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", q.Path))
	}
	if q.Path == "auth/approle/login" {
		return s.login(q)
	}
	t := s.tokens[bearer(q.Header)]
	switch {
	case bearer(q.Header) == "":
		return failure(http.StatusForbidden, "permission denied")
	case t == nil || t.dead(s.Now()):
		return s.stranger()
	}
	m := s.mounts[q.Namespace+name]
	rest := strings.TrimPrefix(q.Path, name)
	if strings.HasPrefix(q.Path, "sys/internal/ui/mounts/") {
		return s.uiMount(t, q) // uiMount checks the policies itself (core: vault/logical_system.go)
	}
	if !s.allowed(t, q, m, rest) {
		return failure(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	}
	switch {
	case q.Class == "auth":
		return s.self(t, q)
	case q.Class == "sys" || name == "":
		// core: vault/router.go
		return failure(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", q.Path))
	}
	now, asOf := s.Now(), time.Time{}
	if s.opts.Lag > 0 && (forwarded != "active-node" || s.opts.Forward == ForwardIgnored || s.opts.OpenBao) {
		asOf = now.Add(-s.opts.Lag)
	}
	return m.handle(q.Operation, rest, q.Query, q.Body, now, asOf)
}

// stranger returns the response to an invalid token (docs: concepts/tokens, "Error Responses").
// If OpenBao is set, the response is the same as to a missing permission.
func (s *Server) stranger() *answer {
	if s.opts.OpenBao {
		return failure(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	}
	return failure(http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
}

// known reports whether the namespace is the root namespace or has a mount.
func (s *Server) known(namespace string) bool {
	if namespace == "" {
		return true
	}
	for name := range s.mounts {
		if strings.HasPrefix(name, namespace) {
			return true
		}
	}
	return false
}

// health answers the health check, which needs no token (docs:
// api-docs/system/health).
func (s *Server) health() *answer {
	status := http.StatusOK
	if s.sealed {
		status = http.StatusServiceUnavailable
	}
	return &answer{status: status, raw: map[string]any{
		"initialized": true, "sealed": s.sealed, "standby": false, "performance_standby": s.opts.Lag > 0,
		"replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
		"server_time_utc": s.Now().Unix(), "version": map[bool]string{false: "1.21.4", true: "2.6.2"}[s.opts.OpenBao],
		"cluster_name": "fakevault", "cluster_id": "00000000-0000-0000-0000-000000000000",
	}}
}

// uiMount returns the type and version of the engine at a path. Vault's command line makes this
// request before every operation on a KV engine.
func (s *Server) uiMount(t *token, q *Request) *answer {
	path := folder(strings.TrimPrefix(q.Path, "sys/internal/ui/mounts/"))
	for full, m := range s.mounts {
		name, ok := strings.CutPrefix(full, q.Namespace)
		if ok && strings.HasPrefix(path, name) && s.anyRule(t, q.Namespace+name) {
			return &answer{data: map[string]any{
				"path": name, "type": "kv", "options": map[string]any{"version": map[bool]string{false: "2", true: "1"}[m.config.KV1]}, "description": "",
				"accessor": "kv_00000000", "uuid": "", "local": false, "seal_wrap": false,
			}}
		}
	}
	return failure(http.StatusForbidden, fmt.Sprintf(
		"preflight capability check returned 403, please ensure client's policies grant access to path %q", path))
}

type answer struct {
	status   int            // 0 means that the method write derives the status from the content
	data     map[string]any // nil if there is none
	warnings []string
	errors   []string
	auth     map[string]any
	raw      map[string]any // the whole body, if set
}

func failure(status int, errs ...string) *answer {
	return &answer{status: status, errors: append([]string{}, errs...)}
}

// write sends the answer. An empty answer has status 204 (core: http/logical.go).
func (a *answer) write(w http.ResponseWriter) {
	status, body := a.status, a.raw
	switch {
	case a.raw != nil:
	case a.errors != nil:
		body = map[string]any{"errors": a.errors}
	case a.data == nil && a.auth == nil && a.warnings == nil:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		body = map[string]any{
			"request_id": rand.Text(), "lease_id": "", "renewable": false, "lease_duration": 0,
			"data": a.data, "wrap_info": nil, "warnings": a.warnings, "auth": a.auth, "mount_type": "kv",
		}
	}
	if status == 0 {
		status = http.StatusOK
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// folder returns name without a leading "/" and with exactly one "/" at its end. For an empty name,
// folder returns "".
func folder(name string) string {
	if name = strings.Trim(name, "/"); name == "" {
		return ""
	}
	return name + "/"
}

func bearer(h http.Header) string {
	if t := h.Get("X-Vault-Token"); t != "" {
		return t
	}
	t, _ := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	return t
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
