package gcpsm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// errGone means that a version is there no more, or not to be read: it is
// disabled or destroyed.
var errGone = fmt.Errorf("%w: the version is disabled or destroyed", driver.ErrUnavailable)

// conditional are the methods that carry an etag. Their FAILED_PRECONDITION says
// that the etag is not the current one.
var conditional = map[string]bool{"UpdateSecret": true, "DeleteSecret": true, "DestroySecretVersion": true}

// class returns the class of an error of a method, or nil if it has none.
func class(method string, err error) error {
	switch code(err) { //nolint:exhaustive // of the others the service documents none
	case codes.NotFound:
		return driver.ErrNotFound
	case codes.AlreadyExists:
		return driver.ErrExists
	case codes.FailedPrecondition:
		switch {
		case conditional[method]:
			return driver.ErrConflict
		case method == "AccessSecretVersion":
			return errGone
		}
	case codes.PermissionDenied, codes.Unauthenticated:
		return driver.ErrDenied
	case codes.ResourceExhausted, codes.Unavailable, codes.Internal, codes.Aborted, codes.DataLoss,
		codes.DeadlineExceeded, codes.Canceled, codes.Unknown:
		// Unknown is also what an error has that is not the service's: of the
		// connection, or of the credentials.
		return driver.ErrUnavailable
	}
	return nil
}

// code returns the code of an error. Over REST several codes share a status of
// HTTP, and the body tells which it is.
func code(err error) codes.Code {
	var answer *googleapi.Error
	if errors.As(err, &answer) {
		var body struct {
			Error struct {
				Status json.RawMessage `json:"status"`
			} `json:"error"`
		}
		var c codes.Code
		if json.Unmarshal([]byte(answer.Body), &body) == nil && c.UnmarshalJSON(body.Error.Status) == nil && c != codes.OK {
			return c
		}
	}
	return status.Code(err)
}

// failed makes the error of a call out of the client's: an error of ctx if ctx is
// done, else one of its class. What was sent is not repeated in it.
func failed(ctx context.Context, method, id string, err error, sent []byte) error {
	if repeats(err.Error(), sent) {
		err = status.Error(code(err), "(text not shown)")
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%w: %s %q: %w", cause, method, id, err)
	}
	c := class(method, err)
	switch {
	case c == nil:
		return fmt.Errorf("%s %q: %w", method, id, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// The client's own time-out has run out, and not the caller's. The error
		// is not wrapped, or it would be taken for that.
		return fmt.Errorf("%w: %s %q: %v", c, method, id, err)
	}
	return fmt.Errorf("%w: %s %q: %w", c, method, id, err)
}

// longest is how much of what was sent a text may repeat.
const longest = 12

// repeats reports whether text holds a piece of what was sent.
func repeats(text string, sent []byte) bool {
	for i := 0; i+longest <= len(text); i++ {
		if bytes.Contains(sent, []byte(text[i:i+longest])) {
			return true
		}
	}
	return len(sent) > 0 && len(sent) < longest && strings.Contains(text, string(sent))
}
