package wholesend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"

	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// A heldConn is a connection whose writes of a body do not return before the server has
// answered.
type heldConn struct {
	net.Conn
	answered <-chan struct{}
}

func (c heldConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if !bytes.HasPrefix(b, []byte("POST")) {
		<-c.answered
	}
	return n, err
}

// TestRequestsToAWSAreSentWhole checks that net/http sends the whole request with Client, even
// though the SDK closes the body early. Without Client, net/http must report io.EOF; otherwise
// Client is unnecessary.
func TestRequestsToAWSAreSentWhole(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer server.Close()
	for name, test := range map[string]struct {
		wrap func(smithyhttp.ClientDo) smithyhttp.ClientDo
		want error
	}{
		"as the SDK does": {func(c smithyhttp.ClientDo) smithyhttp.ClientDo { return c }, io.EOF},
		"whole":           {func(c smithyhttp.ClientDo) smithyhttp.ClientDo { return Client{Doer: c} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			answered := make(chan struct{})
			transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, address)
				return heldConn{c, answered}, err
			}}
			defer transport.CloseIdleConnections()
			sent := make(chan error, 1)
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				WroteRequest: func(info httptrace.WroteRequestInfo) { sent <- info.Err },
			})
			_, _, err := smithyhttp.NewClientHandlerWithOptions(test.wrap(&http.Client{Transport: transport})).Handle(ctx, post(t, server.URL, "body"))
			close(answered)
			if err != nil {
				t.Fatal(err)
			}
			if err := <-sent; !errors.Is(err, test.want) {
				t.Errorf("sending it came to %v, want %v", err, test.want)
			}
		})
	}
}

func post(t *testing.T, url, body string) *smithyhttp.Request {
	t.Helper()
	r := smithyhttp.NewStackRequest().(*smithyhttp.Request)
	r.Method, r.URL.Scheme, r.URL.Host, r.URL.Path = http.MethodPost, "http", strings.TrimPrefix(url, "http://"), "/"
	r.ContentLength = int64(len(body))
	r, err := r.SetStream(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
