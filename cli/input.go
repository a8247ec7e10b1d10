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
			return nil, tooLong(limit)
		}
		return r.data, r.err
	}
}

// tooLong returns the error for an input of more than limit bytes.
func tooLong(limit int64) error {
	if limit < 1<<20 {
		return fmt.Errorf("%w: longer than %d KiB", errInput, limit>>10)
	}
	return fmt.Errorf("%w: longer than %d MiB", errInput, limit>>20)
}

// readFile reads a file of at most limit bytes, or standard input if the name is "-". If standard
// input is a terminal, readFile asks for the text with the prompt in the parameter what.
func (a *app) readFile(ctx context.Context, name string, limit int64, what prompt) ([]byte, error) {
	if name == "-" {
		return a.readInput(ctx, limit, what)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, withoutToken(err, name, maybeTokenFile)
	}
	defer func() { _ = f.Close() }()
	data, err := readAll(ctx, f, limit)
	return data, withoutToken(err, name, maybeTokenFile)
}

// readRecord reads a record from a file; "-" is standard input.
func (a *app) readRecord(ctx context.Context, name string) (tokenstore.Token, error) {
	data, err := a.readFile(ctx, name, maxRecord, typedRecord)
	if err != nil {
		return tokenstore.Token{}, err
	}
	return parseRecord(data)
}
