package fakeaws

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// Account is the ID of the account that owns all secrets.
const Account = "123456789012"

// maxRequest is the maximum size of a request body in bytes. Every valid body is smaller.
const maxRequest = 1 << 20

// Options configures a Service. With the zero value or a nil *Options, the Service uses the real
// clock, does not lag, has no quotas, and completes forced deletions immediately.
type Options struct {
	// Now is the clock. Nil means time.Now. Advance moves the clock forward.
	Now func() time.Time

	// ReadLag is the age of the state that GetSecretValue by staging label, DescribeSecret and
	// ListSecretVersionIds return. The values of BatchGetSecretValue have the same age. ReadLag is
	// at most a day. GetSecretValue by version ID does not lag, because a version never changes.
	ReadLag time.Duration

	// ListLag is the age of the state that ListSecrets and the filters of BatchGetSecretValue
	// search. ListLag is at most a day.
	ListLag time.Duration

	// DeleteDelay is how long the name of a secret stays in use after a forced deletion.
	DeleteDelay time.Duration

	// Quotas limit the calls of the account. The first Quota that lists an operation applies. An
	// operation that no Quota lists is not limited.
	Quotas []Quota

	// LocalStack makes the service behave like LocalStack 4.14.0 on moto 5.1.22. The file
	// localstack.go lists the differences from Secrets Manager.
	LocalStack bool
}

// A Quota limits the total number of calls of its Operations.
type Quota struct {
	fakeserver.Rate
	Operations []string
}

// Documented returns the quotas of an account in a region (guide: reference_limits). The guide
// documents no capacity for bursts.
func Documented() []Quota {
	return []Quota{
		{fakeserver.PerSecond(10_000), []string{"GetSecretValue"}},
		{fakeserver.PerSecond(40_000), []string{"DescribeSecret"}},
		{fakeserver.PerSecond(100), []string{"BatchGetSecretValue"}},
		{fakeserver.PerSecond(50), []string{"PutSecretValue", "UpdateSecret", "UpdateSecretVersionStage", "RemoveRegionsFromReplication", "ReplicateSecretToRegions", "StopReplicationToReplica"}},
		{fakeserver.PerSecond(50), []string{"CreateSecret"}},
		{fakeserver.PerSecond(50), []string{"DeleteSecret"}},
		{fakeserver.PerSecond(50), []string{"RestoreSecret"}},
		{fakeserver.PerSecond(50), []string{"TagResource", "UntagResource"}},
		{fakeserver.PerSecond(50), []string{"ListSecrets", "ListSecretVersionIds"}},
		{fakeserver.PerSecond(50), []string{"DeleteResourcePolicy", "GetResourcePolicy", "PutResourcePolicy", "ValidateResourcePolicy"}},
	}
}

// A Service simulates Secrets Manager as an http.Handler. Its methods are safe for
// concurrent use.
type Service struct {
	fakeserver.Clock
	fakeserver.Log[Request, Fault]

	opts  Options
	taken fakeserver.Quotas

	mu       sync.Mutex
	secrets  []*secret            // in order of creation
	names    map[string][]*secret // all secrets that ever had the name, in order of creation
	arns     map[string]*secret
	tagged   map[string][]*secret // secrets by the prefix of each tag key that they ever had: see tagStart
	leaving  []*secret            // deleted by force, until DeleteDelay has passed
	policies map[string]policy
}

// A Server is a Service with its own socket.
type Server struct {
	*Service

	// URL is the base URL, such as "http://127.0.0.1:8080".
	URL string

	stop func()
}

// A Request is a request that the service received.
type Request struct {
	Operation string // "GetSecretValue"
	AccessKey string
	Region    string
	Header    http.Header
	Body      []byte
}

// A Fault is an injected failure of one request, or a delay. A request with a Fault is not
// refused for an exhausted quota.
type Fault struct {
	// Wait delays the request until the channel is closed. If the client disconnects first, the
	// service does not execute the request.
	Wait <-chan struct{}

	// If Code is not empty, an error with Code, Message and Status replaces the response; a Status
	// of 0 means 400. If Code is empty and Status is not 0, a response with Status and Body
	// replaces the response.
	Code, Message string
	Status        int
	Body          string

	// Drop closes the connection instead of sending a response.
	Drop bool

	// Applied makes the server execute the request even if Code, Status or Drop is set.
	Applied bool

	// Stale is added to ReadLag and ListLag for this request.
	Stale time.Duration

	// Hold delays the response, whether or not the request was executed, until the channel is
	// closed or the client disconnects.
	Hold <-chan struct{}
}

// NewService returns a Service without a socket.
func NewService(opts *Options) *Service {
	s := &Service{
		names:    map[string][]*secret{},
		tagged:   map[string][]*secret{},
		arns:     map[string]*secret{},
		policies: map[string]policy{},
	}
	if opts != nil {
		s.opts = *opts
	}
	s.SetClock(s.opts.Now)
	return s
}

// New starts a Server. Close stops the Server. New panics if the Server cannot listen.
func New(opts *Options) *Server {
	s := &Server{Service: NewService(opts)}
	var err error
	if s.URL, s.stop, err = fakeserver.Serve(s); err != nil {
		panic(fmt.Sprintf("fakeaws: %v", err))
	}
	return s
}

// Close stops the server and closes its connections.
func (s *Server) Close() { s.stop() }

// SetLag replaces Options.ReadLag and Options.ListLag.
func (s *Service) SetLag(read, list time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.ReadLag, s.opts.ListLag = read, list
}

// Count returns the number of requests since the last Reset, by operation.
func (s *Service) Count() map[string]int {
	return s.CountBy(func(r Request) string { return r.Operation })
}

// ServeHTTP implements http.Handler. In addition to the service's protocol, ServeHTTP supports
// LocalStack's health check, because some clients wait until LocalStack is healthy.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == "/_localstack/health" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"services": {"secretsmanager": "running"}, "edition": "community", "version": "fakeaws"}`+"\n")
		return
	}
	q, bad := parse(w, r)
	if bad != nil {
		bad.write(w)
		return
	}
	throttled := !s.admits(q.Operation)
	fault := s.Receive(q)
	switch {
	case fault == nil && throttled:
		refuse("ThrottlingException", "Rate exceeded").write(w)
		return
	case fault == nil:
		s.answer(w, q, 0)
		return
	}
	if !fakeserver.Await(r.Context(), fault.Wait) {
		return
	}
	breaks := fault.Drop || fault.Code != "" || fault.Status != 0
	var body any
	var refused *refusal
	if fault.Applied || !breaks {
		body, refused = s.handle(q, fault.Stale)
	}
	if !fakeserver.Await(r.Context(), fault.Hold) {
		return
	}
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case fault.Code != "":
		(&refusal{fault.Code, fault.Message, fault.Status}).write(w)
	case fault.Status != 0:
		w.WriteHeader(fault.Status)
		_, _ = io.WriteString(w, fault.Body)
	case refused != nil:
		refused.write(w)
	default:
		write(w, body)
	}
}

func (s *Service) admits(operation string) bool {
	for i, q := range s.opts.Quotas {
		if slices.Contains(q.Operations, operation) {
			return s.taken.Take(s.Now(), strconv.Itoa(i), q.Rate)
		}
	}
	return true
}

func (s *Service) answer(w http.ResponseWriter, q *Request, stale time.Duration) {
	body, refused := s.handle(q, stale)
	if refused != nil {
		refused.write(w)
		return
	}
	write(w, body)
}

// parse returns the request in r, or the refusal of an invalid request.
func parse(w http.ResponseWriter, r *http.Request) (*Request, *refusal) {
	operation, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager.")
	if !ok || r.Method != http.MethodPost {
		return nil, &refusal{"UnknownOperationException", "", http.StatusNotFound}
	}
	q := &Request{Operation: operation, Header: r.Header.Clone()}
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ := strings.Cut(credential, ",")
	parts := strings.Split(scope, "/")
	if len(parts) != 5 || parts[3] != "secretsmanager" || parts[4] != "aws4_request" {
		return nil, &refusal{"MissingAuthenticationTokenException", "Missing Authentication Token", 0}
	}
	q.AccessKey, q.Region = parts[0], parts[2]
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &refusal{"RequestEntityTooLargeException", "", http.StatusRequestEntityTooLarge}
	} else if err != nil {
		return nil, &refusal{"SerializationException", "", 0}
	}
	q.Body = body
	return q, nil
}

type refusal struct {
	code, message string
	status        int // 0 means 400, which the service also sends for secrets that do not exist
}

func refuse(code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...), 0}
}

func (r *refusal) write(w http.ResponseWriter) {
	status := r.status
	if status == 0 {
		status = http.StatusBadRequest
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": r.code, "Message": r.message})
}

func write(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(body)
}
