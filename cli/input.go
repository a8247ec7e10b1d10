package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// readAll reads r to its end. The error matches errInput if r has more than limit bytes. If ctx
// is done, readAll returns ctx.Err(), even while a read of a terminal or pipe is blocked.
func readAll(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(r, limit+1))
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		if r.err == nil && int64(len(r.data)) > limit {
			return nil, fmt.Errorf("%w: longer than %d MiB", errInput, limit>>20)
		}
		return r.data, r.err
	}
}

// readFile reads a file of at most limit bytes, or standard input if the name is "-".
func (a *app) readFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if name == "-" {
		return readAll(ctx, a.in, limit)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, withoutToken(err, name, maybeTokenFile)
	}
	defer func() { _ = f.Close() }()
	data, err := readAll(ctx, f, limit)
	return data, withoutToken(err, name, maybeTokenFile)
}

// noteTyping prints a remark about the expected input if standard input is a terminal.
func (a *app) noteTyping() {
	if isTerminal(a.in) {
		a.note("reading a record as JSON from standard input, which shows what is typed; end it with Ctrl-D")
	}
}

// readRecord reads a record from a file; "-" is standard input.
func (a *app) readRecord(ctx context.Context, name string) (tokenstore.Token, error) {
	if name == "-" {
		a.noteTyping()
	}
	data, err := a.readFile(ctx, name, maxRecord)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return parseRecord(data)
}
