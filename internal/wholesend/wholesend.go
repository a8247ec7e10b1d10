// Package wholesend sends requests from the AWS SDK to servers that answer immediately, such as
// servers on the same machine.
package wholesend

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// A Doer has the method of the SDK's interface HTTPClient.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// A Client reads the whole body of a request into memory before it sends the request.
//
// The SDK closes its own body as soon as a response begins; the body's WriteTo method then
// fails with io.EOF. If the server is on this machine, net/http might not have finished
// reading the body by then. net/http treats the io.EOF as a failed write and closes the
// connection while the response arrives. See github.com/aws/aws-sdk-go-v2/issues/2737.
type Client struct{ Doer Doer }

// Do reads and closes the body of r, and sends a copy of r with the body from memory. A request
// without a body is sent as it is.
func (c Client) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return c.Doer.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	whole := r.WithContext(r.Context())
	whole.ContentLength = int64(len(body))
	whole.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	whole.Body, _ = whole.GetBody()
	return c.Doer.Do(whole)
}
