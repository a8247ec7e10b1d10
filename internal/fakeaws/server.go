package fakeaws

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// Account is the account that everything belongs to.
const Account = "123456789012"

// maxRequest is longer than any request that the service takes.
const maxRequest = 1 << 20

// Options configures a Service. The zero value, and a nil *Options, make one on
// the real clock that does not lag and deletes at once.
type Options struct {
	// Now is the clock. Nil means time.Now. Advance adds to it.
	Now func() time.Time

	// ReadLag is how old the answers of GetSecretValue by staging label, of
	// DescribeSecret and ListSecretVersionIds and the values of
	// BatchGetSecretValue are, up to a day. GetSecretValue by version ID does not
	// lag: a version never changes.
	ReadLag time.Duration

	// ListLag is how old what ListSecrets and the filters of BatchGetSecretValue
	// go by is, up to a day.
	ListLag time.Duration

	// DeleteDelay is how long a secret that was deleted by force keeps its name.
	DeleteDelay time.Duration

	// LocalStack makes the service behave as LocalStack 4.14.0 does on moto 5.1.22
	// where that differs from Secrets Manager and a client can see it. See
	// localstack.go.
	LocalStack bool
}

// A Service is Secrets Manager as an http.Handler. Its methods are safe for
// concurrent use.
type Service struct {
	fakeserver.Clock
	fakeserver.Log[Request, Fault]

	opts Options

	mu       sync.Mutex
	secrets  []*secret            // in order of creation
	names    map[string][]*secret // all that ever had the name, the last one last
	arns     map[string]*secret
	tagged   map[string][]*secret // all that ever had a tag: see tagStart
	leaving  []*secret            // deleted by force, and still there
	policies map[string]policy
}

// A Server is a Service on a socket of its own.
type Server struct {
	*Service

	// URL is where it listens: "http://127.0.0.1:…".
	URL string

	stop func()
}

// A Request is what a client asked for.
type Request struct {
	Operation string // "GetSecretValue"
	AccessKey string
	Region    string
	Header    http.Header
	Body      []byte
}

// A Fault is what goes wrong with one request.
type Fault struct {
	// Wait holds the request up until it is closed, or the client goes away.
	Wait <-chan struct{}

	// Code, if it is not empty, is the error that is answered in place of what
	// would be, with Message and Status, which is 400 if it is 0. Without a Code
	// a Status is answered with Body as it is.
	Code, Message string
	Status        int
	Body          string

	// Drop closes the connection in place of an answer.
	Drop bool

	// Applied says that the request is carried out all the same.
	Applied bool

	// Stale makes what this request reads older by that much than the lags do.
	Stale time.Duration

	// Hold holds the answer back, once the request has been carried out or not,
	// until it is closed, or the client goes away.
	Hold <-chan struct{}
}

// NewService returns a Service for a server of the caller's own.
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

// New starts a Server. Close stops it.
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

// SetLag changes the lags.
func (s *Service) SetLag(read, list time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.ReadLag, s.opts.ListLag = read, list
}

// Count returns how many requests there were since the last Reset, by operation.
func (s *Service) Count() map[string]int {
	return s.CountBy(func(r Request) string { return r.Operation })
}

// ServeHTTP answers one request. Besides the service's protocol it knows the
// health check of LocalStack, for what waits for that.
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
	fault := s.Receive(q)
	if fault == nil {
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

func (s *Service) answer(w http.ResponseWriter, q *Request, stale time.Duration) {
	body, refused := s.handle(q, stale)
	if refused != nil {
		refused.write(w)
		return
	}
	write(w, body)
}

// parse reads a request.
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

// A refusal is an error that the service answers with.
type refusal struct {
	code, message string
	status        int // 0: 400, which the service uses for what is not found too
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
