// Package wholesend sends requests of the SDK of AWS to servers that answer at once,
// as those on the same machine do.
package wholesend

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// A Doer is what the SDK calls an HTTPClient.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// A Client sends the body of a request from memory, together with its header.
//
// The SDK's own body is closed as soon as an answer begins, and its method WriteTo
// then fails with io.EOF. If net/http has not yet asked whether there is more of
// the body by then, because the server is on this machine and quick, it takes that
// for a failure to send, and breaks the connection off under the answer. See
// github.com/aws/aws-sdk-go-v2/issues/2737.
type Client struct{ Doer Doer }

// Do sends a request.
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
