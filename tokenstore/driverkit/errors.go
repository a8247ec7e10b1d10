package driverkit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// CallError converts err, an error from a driver's client, to the error that the driver returns.
// err must not be nil. class is the class of err, or nil if err has no class.
//
//   - If ctx is done, the error matches ctx.Err() and err. CallError then ignores class.
//   - If ctx is not done but err matches a context error, the client's own timeout has
//     passed. The error then matches class or, if class is nil, driver.ErrUnavailable. The
//     error contains the text of err but does not wrap err, so that no caller takes the error
//     to mean that the caller's own context is done.
//   - Otherwise the error matches class and err. If class is nil, CallError returns err.
func CallError(ctx context.Context, err, class error) error {
	cause := ctx.Err()
	switch {
	case cause != nil && errors.Is(err, cause):
		return err
	case cause != nil:
		return fmt.Errorf("%w: %w", cause, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		if class == nil {
			class = driver.ErrUnavailable
		}
		return fmt.Errorf("%w: the client's timeout has passed: %v", class, err)
	case class == nil:
		return err
	}
	return fmt.Errorf("%w: %w", class, err)
}

// longest is the number of consecutive bytes that count as a repetition in Repeats.
const longest = 12

// Repeats reports whether text contains at least 12 consecutive bytes of the data in sent, or of
// its base64 form. If the data is shorter but not empty, Repeats reports whether text contains all
// of the data. The text of a driver's error must not contain such bytes, because the data holds
// tokens.
func Repeats(text string, sent []byte) bool {
	if len(sent) == 0 {
		return false
	}
	coded := []byte(base64.StdEncoding.EncodeToString(sent))
	for i := 0; i+longest <= len(text); i++ {
		part := []byte(text[i : i+longest])
		if bytes.Contains(sent, part) || bytes.Contains(coded, part) {
			return true
		}
	}
	return len(sent) < longest && strings.Contains(text, string(sent))
}
