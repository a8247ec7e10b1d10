package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Limits for a connection while no operation is running.
const (
	headTime = 5 * time.Second  // for the head of a request
	readTime = 10 * time.Second // for the whole request
	idleTime = 2 * time.Minute  // between two requests
	maxHead  = 8 << 10          // maximum size in bytes of the head of a request

	defaultGrace = 25 * time.Second
)

// ServeOptions configures Serve. The zero value and a nil *ServeOptions mean the
// defaults.
type ServeOptions struct {
	// Grace limits the duration of the shutdown after ctx is done or the listener fails; 0 means 25
	// seconds. Set a shorter Grace if the platform kills a process sooner.
	Grace time.Duration
}

// Serve serves h on l until ctx is done or l fails. Then Serve shuts down: it closes l, waits for
// the requests in progress, including refreshes, and tries again to store the unsaved tokens. If
// ctx was done and the shutdown succeeded within Grace, Serve returns nil. Otherwise Serve returns
// the errors from l and from the shutdown.
//
// If Config.Token is empty and l is not a Unix socket, Serve closes l and returns an error.
func Serve(ctx context.Context, l net.Listener, h *Handler, opts *ServeOptions) error {
	grace := defaultGrace
	if opts != nil && opts.Grace != 0 {
		grace = opts.Grace
	}
	if h.conf.Token == "" && l.Addr().Network() != "unix" {
		return errors.Join(errors.New("agent: without Config.Token only a Unix socket is served"), l.Close())
	}
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headTime,
		ReadTimeout:       readTime,
		WriteTimeout:      h.conf.Timeout + readTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHead,
		// The server's log would quote text from clients. The Handler logs each request.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	var broken error
	select {
	case err := <-failed:
		broken = fmt.Errorf("agent: serve: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := s.Shutdown(last)
	err = errors.Join(broken, err, h.Close(last))
	return errors.Join(err, s.Close())
}

// raw returns the encoded HTTP response for a, with the header "Connection: close".
func (a answer) raw() []byte {
	res := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Close: true, Header: http.Header{},
		ContentLength: int64(len(a.body)), Body: io.NopCloser(bytes.NewReader(a.body)),
	}
	for name, value := range a.headers() {
		res.Header.Set(name, value)
	}
	var b bytes.Buffer
	_ = res.Write(&b) // writing to a Buffer cannot fail
	return b.Bytes()
}
