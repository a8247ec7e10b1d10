package fakek8s

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/tokenkeep/tokenkeep/internal/fakeserver"
)

// AdminToken is a token with all permissions.
const AdminToken = "admin"

// maxRequest is the maximum size of a request body in bytes (apiserver: pkg/server/config.go,
// MaxRequestBodyBytes).
const maxRequest = 3 << 20

// Options configures a Server. With the zero value or a nil *Options, the Server has no TLS and
// uses the real clock.
type Options struct {
	// Now is the clock for creation and deletion times. Nil means time.Now. Advance moves the
	// clock forward.
	Now func() time.Time

	// TLS makes the server use https with a self-signed certificate. A client with a
	// kubectl configuration sends a token only over TLS.
	TLS bool

	// NoSocket makes New return a Server without a socket. The Server has no URL, and its clients
	// call ServeHTTP.
	NoSocket bool
}

// A Server simulates an API server. Its methods are safe for concurrent use. The
// namespace "default" exists.
type Server struct {
	// URL is the base URL, such as "http://127.0.0.1:8080". With TLS, the scheme is https.
	URL string

	// CA is the certificate that clients must trust, in PEM, or nil without TLS.
	CA []byte

	fakeserver.Clock
	fakeserver.Log[Request, Fault]

	stop func()

	mu         sync.Mutex
	revision   int64                // the revision of the last write
	compacted  int64                // the revision at the last compaction; continue tokens of earlier revisions have expired
	past       map[string][]moment  // states by namespace and name, in order of revision
	namespaces map[string]bool      // by name; whether the namespace is being deleted
	tokens     map[string]*identity // owners of the tokens
}

// A Request is a request that the server received.
type Request struct {
	Verb      string // verb as in Roles: "get", "list", "create", "update", "patch", "delete"
	Namespace string
	Name      string // empty for a list or a creation
	Query     url.Values
	Header    http.Header
	Body      []byte
}

// A Fault is an injected failure of one request.
type Fault struct {
	// Wait delays the request until the channel is closed. If the client disconnects first, the
	// server does not execute the request.
	Wait <-chan struct{}

	// Status, if not nil, replaces the response. If Status.Details has RetryAfterSeconds, the
	// response also has the header Retry-After.
	Status *metav1.Status

	// Code and Body, if Code is not 0, replace the response, as a proxy can do.
	Code int
	Body string

	// Drop closes the connection instead of sending a response.
	Drop bool

	// Applied makes the server execute the request despite the fault.
	Applied bool

	// Hold delays the response, whether or not the request was executed, until the channel is
	// closed or the client disconnects.
	Hold <-chan struct{}
}

// codecs returns the codecs that all servers share, because the codecs never change and take longer
// to construct than the rest of a server.
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		panic(fmt.Sprintf("fakek8s: %v", err))
	}
	return serializer.NewCodecFactory(scheme)
})

// New starts a server. Close stops the server. New panics if the server cannot listen.
func New(opts *Options) *Server {
	s := &Server{
		revision: 1, past: map[string][]moment{}, namespaces: map[string]bool{"default": false},
		tokens: map[string]*identity{AdminToken: {name: "admin", all: true}},
	}
	if opts != nil {
		s.SetClock(opts.Now)
	}
	if opts != nil && opts.NoSocket {
		s.stop = func() {}
		return s
	}
	if opts != nil && opts.TLS {
		server := httptest.NewTLSServer(s)
		s.URL, s.stop = server.URL, func() { server.CloseClientConnections(); server.Close() }
		s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		return s
	}
	var err error
	if s.URL, s.stop, err = fakeserver.Serve(s); err != nil {
		panic(fmt.Sprintf("fakek8s: %v", err))
	}
	return s
}

// Close stops the server and closes its connections.
func (s *Server) Close() { s.stop() }

// Namespace creates the named namespace unless the namespace exists, and sets whether the namespace
// is being deleted. Secrets cannot be created in a namespace that is being deleted.
func (s *Server) Namespace(name string, deleted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespaces[name] = deleted
}

// Compact discards all revisions before the current revision, so that lists of these revisions
// expire. By default, the API server compacts every five minutes (docs:
// reference/using-api/api-concepts, "Resource versions").
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = s.revision
	for key, past := range s.past {
		if last := past[len(past)-1]; last.secret != nil {
			s.past[key] = []moment{last}
		} else {
			delete(s.past, key)
		}
	}
}

// Count returns the number of requests since the last Reset, by verb.
func (s *Server) Count() map[string]int { return s.CountBy(func(r Request) string { return r.Verb }) }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := parse(w, r)
	if err != nil {
		s.write(w, r, nil, err)
		return
	}
	fault := s.Receive(q)
	if fault == nil {
		o, err := s.handle(q)
		s.write(w, r, o, err)
		return
	}
	if !fakeserver.Await(r.Context(), fault.Wait) {
		return
	}
	var o runtime.Object
	if fault.Applied || fault.Status == nil && fault.Code == 0 && !fault.Drop {
		o, err = s.handle(q)
	}
	if !fakeserver.Await(r.Context(), fault.Hold) {
		return
	}
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case fault.Code != 0:
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(fault.Code)
		_, _ = io.WriteString(w, fault.Body)
		return
	case fault.Status != nil:
		err = &apierrors.StatusError{ErrStatus: *fault.Status}
	}
	s.write(w, r, o, err)
}

// parse returns the request in r, or an error if the server does not support the request or cannot
// read the body.
func parse(w http.ResponseWriter, r *http.Request) (*Request, error) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/")
	if !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/") || len(parts) < 2 || len(parts) > 3 || parts[1] != "secrets" {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "", 0, false)
	}
	q := &Request{Namespace: parts[0], Query: r.URL.Query(), Header: r.Header.Clone()}
	verbs := map[string]string{http.MethodGet: "list", http.MethodPost: "create", http.MethodDelete: "deletecollection"}
	if len(parts) == 3 {
		q.Name = parts[2]
		verbs = map[string]string{http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}
	}
	q.Verb = verbs[r.Method]
	if q.Verb == "" || q.Verb == "deletecollection" || q.Query.Has("watch") {
		return nil, apierrors.NewMethodNotSupported(secrets, r.Method)
	}
	var err error
	q.Body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxRequest)) // apiserver: pkg/endpoints/handlers/rest.go
	} else if err != nil {
		return nil, apierrors.NewBadRequest("the body cannot be read")
	}
	return q, nil
}

func (s *Server) handle(q *Request) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.authorize(q); err != nil {
		return nil, err
	}
	switch q.Verb {
	case "get":
		return s.get(q)
	case "list":
		return s.list(q)
	case "create":
		return s.create(q)
	case "delete":
		return s.delete(q)
	default:
		return s.change(q)
	}
}

// write sends a response, in protocol buffers if the client prefers them.
func (s *Server) write(w http.ResponseWriter, r *http.Request, o runtime.Object, err error) {
	code := http.StatusOK
	if r.Method == http.MethodPost {
		code = http.StatusCreated
	}
	if err != nil {
		var answer *apierrors.StatusError
		if !errors.As(err, &answer) {
			answer = apierrors.NewInternalError(err)
		}
		status := answer.ErrStatus
		code, o = int(status.Code), &status
		if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
			// apiserver: pkg/endpoints/handlers/responsewriters/writers.go
			w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
		}
	}
	kind := runtime.ContentTypeJSON
	if strings.HasPrefix(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		kind = runtime.ContentTypeProtobuf
	}
	info, _ := runtime.SerializerInfoForMediaType(codecs().SupportedMediaTypes(), kind)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	_ = codecs().EncoderForVersion(info.Serializer, v1.SchemeGroupVersion).Encode(o, w)
}

// dry reports whether a request is a dry run (docs: reference/using-api/api-concepts,
// "Dry-run").
func dry(q *Request) bool { return q.Query.Get("dryRun") == metav1.DryRunAll }

// names returns the names of all Secrets that ever existed in a namespace.
func (s *Server) names(namespace string) []string {
	var all []string
	for key := range maps.Keys(s.past) {
		if name, ok := strings.CutPrefix(key, namespace+"/"); ok {
			all = append(all, name)
		}
	}
	return all
}
