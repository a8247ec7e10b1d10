package vault

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// A body is a response body. Its field closed is set once Close is called.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

// TestRetryVault checks which responses from Vault are retried. It also checks that retryVault
// closes a body that it read, and replaces the body with its text.
func TestRetryVault(t *testing.T) {
	t.Parallel()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	cut := io.MultiReader(strings.NewReader("{\"err"), iotest.ErrReader(io.ErrUnexpectedEOF))
	for what, c := range map[string]struct {
		ctx    context.Context
		status int
		text   io.Reader
		retry  bool
		err    error
		left   string // the text of the body afterwards
	}{
		"sealed":         {t.Context(), 503, strings.NewReader("Vault is sealed"), false, nil, "Vault is sealed"},
		"unavailable":    {t.Context(), 503, strings.NewReader("later"), true, nil, "later"},
		"a body cut off": {t.Context(), 503, cut, true, nil, "{\"err"},
		"canceled":       {done, 503, iotest.ErrReader(context.Canceled), false, context.Canceled, ""},
		"denied":         {t.Context(), 403, strings.NewReader("no"), false, nil, "no"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := &body{Reader: c.text}
			answer := &http.Response{StatusCode: c.status, Body: b}
			retry, err := retryVault(c.ctx, answer, nil)
			if retry != c.retry || !errors.Is(err, c.err) {
				t.Errorf("retryVault returns %v and %v", retry, err)
			}
			if read := c.status == 503; b.closed != read {
				t.Errorf("the body is closed: %v, want %v", b.closed, read)
			}
			if text, err := io.ReadAll(answer.Body); string(text) != c.left || err != nil {
				t.Errorf("the body is %q, %v", text, err)
			}
		})
	}
}
