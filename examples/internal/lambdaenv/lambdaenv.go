// Package lambdaenv simulates an execution environment of AWS Lambda. It serves the Extensions
// API to one extension, and the Runtime API to the runtime of one function. It reports
// requests that violate the documented protocols:
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
package lambdaenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ShutdownTime is the time after SHUTDOWN until Lambda kills an extension.
const ShutdownTime = 2 * time.Second

// timeout is the time limit of an invocation.
const timeout = 30 * time.Second

const (
	extensionID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
	requestID   = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
)

// An Environment simulates an execution environment. It is an http.Handler. The address of its
// server belongs in the environment variable AWS_LAMBDA_RUNTIME_API. Call Ready, Invoke and
// Shutdown one after another, in the order in which Lambda starts, uses and stops an
// environment. The other methods are safe for concurrent use.
type Environment struct {
	extension string
	report    func(problem string)
	mux       *http.ServeMux

	registered chan struct{} // closed at registration
	waits      chan struct{} // receives a value at each request of the extension for its next event
	idle       chan struct{} // receives a value at each request of the runtime for its next invocation
	events     chan string
	payloads   chan []byte
	results    chan result
	failures   chan error

	mu       sync.Mutex
	received bool // a request to register was received
}

type result struct {
	answer []byte
	err    error
}

// New returns an Environment for the extension with the given file name. The Environment calls
// report, possibly concurrently, for each request that violates the documented protocols.
func New(extension string, report func(problem string)) *Environment {
	e := &Environment{
		extension: extension, report: report, mux: http.NewServeMux(),
		registered: make(chan struct{}), waits: make(chan struct{}, 1), idle: make(chan struct{}, 1),
		events: make(chan string), payloads: make(chan []byte), results: make(chan result, 1), failures: make(chan error, 4),
	}
	const extensions, runtime = "/2020-01-01/extension/", "/2018-06-01/runtime/"
	e.mux.HandleFunc("POST "+extensions+"register", e.register)
	e.mux.HandleFunc("GET "+extensions+"event/next", e.known(e.nextEvent))
	e.mux.HandleFunc("POST "+extensions+"init/error", e.known(e.failed))
	e.mux.HandleFunc("POST "+extensions+"exit/error", e.known(e.failed))
	e.mux.HandleFunc("GET "+runtime+"invocation/next", e.nextInvocation)
	e.mux.HandleFunc("POST "+runtime+"invocation/"+requestID+"/response", e.response)
	e.mux.HandleFunc("POST "+runtime+"invocation/"+requestID+"/error", e.response)
	e.mux.HandleFunc("POST "+runtime+"init/error", e.failed)
	e.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		e.refuse(w, "%s %s is in neither API", r.Method, r.URL.Path)
	})
	return e
}

// ServeHTTP serves the Extensions API and the Runtime API.
func (e *Environment) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.mux.ServeHTTP(w, r) }

// Registered waits until the extension has registered. It returns an error if the extension
// reports a failure, or if ctx is done first. Lambda starts the runtime only after the
// registration.
func (e *Environment) Registered(ctx context.Context) error { return e.wait(ctx, e.registered) }

// Ready waits until the extension and the runtime request their next event. Lambda's Init
// phase ends when both have requested their first event. Ready returns an error if the
// extension or the runtime reports a failure, or if ctx is done first.
func (e *Environment) Ready(ctx context.Context) error {
	return errors.Join(e.wait(ctx, e.waits), e.wait(ctx, e.idle))
}

// Invoke sends an invocation to the extension and to the runtime. It returns the response of
// the function after the extension and the runtime have requested their next event. It returns
// an error if the function, the runtime or the extension reports an error, if ctx is done, or
// after 30 seconds.
func (e *Environment) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := send(ctx, e, e.events, "INVOKE"); err != nil {
		return nil, err
	}
	if err := send(ctx, e, e.payloads, payload); err != nil {
		return nil, err
	}
	select {
	case r := <-e.results:
		return r.answer, errors.Join(r.err, e.Ready(ctx))
	case err := <-e.failures:
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Shutdown sends SHUTDOWN to the extension, which must exit within ShutdownTime. It does not
// wait for the exit. It returns an error if a process reports a failure, or if ctx is done
// first.
func (e *Environment) Shutdown(ctx context.Context) error { return send(ctx, e, e.events, "SHUTDOWN") }

// wait waits until c delivers a value or is closed. It returns an error if a process reports a
// failure, or if ctx is done first.
func (e *Environment) wait(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case err := <-e.failures:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send sends v on c. It returns an error if a process reports a failure, or if ctx is done
// first.
func send[V any](ctx context.Context, e *Environment, c chan<- V, v V) error {
	select {
	case c <- v:
		return nil
	case err := <-e.failures:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *Environment) register(w http.ResponseWriter, r *http.Request) {
	var body struct{ Events []string }
	name := r.Header.Get("Lambda-Extension-Name")
	e.mu.Lock()
	again := e.received
	e.received = true
	e.mu.Unlock()
	switch err := json.NewDecoder(r.Body).Decode(&body); {
	case err != nil || len(body.Events) == 0:
		e.refuse(w, "the extension registers for no event: %v", err)
	case name != e.extension:
		e.refuse(w, "the extension registers as %q, not by the name of its file, %q", name, e.extension)
	case again:
		e.refuse(w, "the extension registers twice")
	default:
		w.Header().Set("Lambda-Extension-Identifier", extensionID)
		_, _ = io.WriteString(w, `{"functionName":"crm","functionVersion":"$LATEST","handler":"app.handler"}`)
		close(e.registered)
	}
}

// known returns a handler that calls h for requests with the identifier of the extension, and
// refuses other requests.
func (e *Environment) known(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Lambda-Extension-Identifier") != extensionID {
			e.refuse(w, "%s without the identifier of the extension", r.URL.Path)
			return
		}
		h(w, r)
	}
}

func (e *Environment) nextEvent(w http.ResponseWriter, r *http.Request) {
	e.arrive(e.waits, "extension")
	select {
	case event := <-e.events:
		lasts := timeout
		if event == "SHUTDOWN" {
			lasts = ShutdownTime
		}
		_, _ = fmt.Fprintf(w, `{"eventType":%q,"deadlineMs":%d,"requestId":%q}`, event, time.Now().Add(lasts).UnixMilli(), requestID)
	case <-r.Context().Done():
	}
}

func (e *Environment) nextInvocation(w http.ResponseWriter, r *http.Request) {
	select {
	case <-e.registered:
	default:
		e.refuse(w, "the runtime starts before the extension has registered")
		return
	}
	e.arrive(e.idle, "runtime")
	select {
	case payload := <-e.payloads:
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", requestID)
		w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(timeout).UnixMilli()))
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:000000000000:function:crm")
		_, _ = w.Write(payload)
	case <-r.Context().Done():
	}
}

// arrive records that a process has requested its next event. It reports a second request for
// the same event.
func (e *Environment) arrive(c chan<- struct{}, process string) {
	select {
	case c <- struct{}{}:
	default:
		e.report("the " + process + " asks twice for one event")
	}
}

// response handles the response or the error of the function.
func (e *Environment) response(w http.ResponseWriter, r *http.Request) {
	answer, err := io.ReadAll(r.Body)
	if strings.HasSuffix(r.URL.Path, "/error") {
		err = fmt.Errorf("the function failed: %s", answer)
	}
	select {
	case e.results <- result{answer, err}:
		w.WriteHeader(http.StatusAccepted)
	default:
		e.refuse(w, "the runtime answers twice")
	}
}

// failed handles a failure of the extension, or of the runtime before the first invocation.
func (e *Environment) failed(w http.ResponseWriter, r *http.Request) {
	why, _ := io.ReadAll(r.Body)
	select {
	case e.failures <- fmt.Errorf("%s: %s", r.URL.Path, why):
	default:
	}
	w.WriteHeader(http.StatusAccepted)
}

// refuse reports a problem, and answers with status 403, as Lambda answers a request that is
// out of order.
func (e *Environment) refuse(w http.ResponseWriter, format string, args ...any) {
	e.report(fmt.Sprintf(format, args...))
	w.WriteHeader(http.StatusForbidden)
}
